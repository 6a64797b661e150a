"""Places of several kinds on one page, and places that are none of these."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dyx.errors import BundleAltered, NothingToReport, RecordUnreadable, RunUnreadable
from dyx.report.places import default_page, page_of

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The record of a run before its first epoch has ended."""
    folder = tmp_path / "a-run"
    folder.mkdir()
    record = {"schema": 1, "model": "tiny", "data": "digits", "recipe": {"epochs": 2}, "environment": {}, "history": []}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_several_places_stand_on_one_page_in_order(run: Path, dy_bundle: Path, read_whole: Any) -> None:
    html = page_of([RESULTS / "gates-cpu-64.json", run, dy_bundle, RESULTS / "gates-cpu-512.json"])
    seen = read_whole(html)
    titles = re.findall(r'<h2 class="part"[^>]*>([^<]*)</h2>', html)
    gates = "alexnet-na, alexnet-eca, alexnet-nanet beside alexnet"
    assert titles == [f"{gates}, batch 64", "tiny on digits", "alexnet-dy", f"{gates}, batch 512"]
    assert re.findall(r'<li><a href="#(part-\d)">', html) == ["part-1", "part-2", "part-3", "part-4"]
    assert "4 reports: gates-cpu-64.json, a-run, alexnet-dy, gates-cpu-512.json." in seen.words
    assert seen.count("h1") == 1
    assert seen.words.index("Throughput by batch size") < seen.words.index("Ratios")
    assert seen.count("h3") > 20


def test_the_same_place_twice_keeps_ids_apart(dy_bundle: Path, read_whole: Any) -> None:
    assert read_whole(page_of([dy_bundle, RESULTS / "gates-cpu-512.json"])).count("article") == 2


def test_one_place_has_a_page_of_its_own(run: Path, dy_bundle: Path, read_whole: Any) -> None:
    for place, title in ((run, "tiny on digits"), (dy_bundle, "alexnet-dy")):
        html = page_of([place])
        assert f"<h1>{title}</h1>" in html
        assert not read_whole(html).count("article") + html.count("<nav")


def test_a_sweep_is_shown_whole(tmp_path: Path, read_whole: Any) -> None:
    from dyx.bench import read_record, sweep_json

    records = [*read_record(RESULTS / "gates-cpu-64.json"), *read_record(RESULTS / "gates-cpu-512.json")]
    (tmp_path / "sweep.json").write_text(json.dumps(sweep_json(records)))
    seen = read_whole(page_of([tmp_path / "sweep.json"]))
    assert seen.count("article") == 2
    assert "Throughput by batch size" in seen.words


def test_pages_lie_where_nothing_is_hashed(run: Path, dy_bundle: Path, tmp_path: Path) -> None:
    assert default_page([run]) == run / "report.html"
    assert default_page([dy_bundle]) == Path("alexnet-dy-report.html")
    assert default_page([tmp_path / "bench.json"]) == default_page([run, dy_bundle]) == Path("report.html")


WRONG = [
    ("absent", None, "there is no such file or folder"),
    ("list.json", "[]", "the file is JSON of no kind, not dyx-bench"),
    ("other.json", '{"kind": "dyx-other"}', "the file is JSON of kind dyx-other, not dyx-bench or dyx-scenario"),
    ("text.json", "{half", "the file is no JSON"),
    ("bytes.json", b"\xff\xfe\x00", "the file is no JSON"),
]


@pytest.mark.parametrize(("name", "content", "words"), WRONG, ids=[row[0] for row in WRONG])
def test_what_is_no_place_is_told(tmp_path: Path, name: str, content: str | bytes | None, words: str) -> None:
    place = tmp_path / name
    if content is not None:
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(NothingToReport) as caught:
        page_of([place])
    assert str(caught.value).startswith(f"nothing to report on at {place}: {words}")
    assert "dyx bench --json FILE" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"kind": "dyx-bench", "schema": 99}', "it holds dyx-bench schema 99, not dyx-bench schema 1"),
        ('{"kind": "dyx-bench", "schema": 1}', "its dyx-bench is not whole (KeyError: 'settings')"),
        ('{"kind": "dyx-bench-sweep", "schema": 99}', "it holds dyx-bench-sweep schema 99"),
        ('{"kind": "dyx-scenario", "schema": 99}', "it holds dyx-scenario schema 99, not dyx-scenario schema 1"),
        ('{"kind": "dyx-scenario", "schema": 1}', "its dyx-scenario is not whole (KeyError: 'results')"),
    ],
)
def test_records_that_this_dyx_does_not_read_are_told(tmp_path: Path, content: str, words: str) -> None:
    place = tmp_path / "record.json"
    place.write_text(content)
    with pytest.raises(RecordUnreadable) as caught:
        page_of([place])
    assert str(caught.value).startswith(f"cannot read the benchmark record {place}: {words}")
    assert "the dyx that wrote it" in caught.value.hint


def test_folders_without_either_record_are_told(tmp_path: Path) -> None:
    with pytest.raises(NothingToReport, match=r"the folder holds no run\.json and no dyx\.json"):
        page_of([tmp_path])


def test_a_run_or_bundle_that_was_changed_is_refused(run: Path, altered: Path) -> None:
    (altered / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleAltered, match=r"model\.onnx has another sha256"):
        page_of([altered])
    (run / "run.json").write_text("{half")
    with pytest.raises(RunUnreadable, match="cannot be read"):
        page_of([run])
