"""`dyx report` of bundles and benchmarks and `dyx bench --plot`, as they are typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
GATES = RESULTS / "gates-cpu-512.json"


def test_pages_land_where_they_are_expected(
    run_dyx: Callable[..., Any], dy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(dy_bundle.iterdir())
    for places, name in (((dy_bundle,), "alexnet-dy-report.html"), ((GATES,), "report.html")):
        ran = run_dyx("report", *places)
        assert (ran.code, ran.out.strip()) == (0, name), ran.err
        assert (tmp_path / name).read_text().startswith("<!doctype html>")
    assert sorted(dy_bundle.iterdir()) == before
    ran = run_dyx("report", dy_bundle, GATES, "--out", "both.html")
    assert (ran.code, ran.out.strip()) == (0, "both.html"), ran.err
    page = (tmp_path / "both.html").read_text()
    assert page.index(">alexnet-dy</h2>") < page.index("beside alexnet, batch 512</h2>")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("report", "{tmp}/absent"), 1, "nothing to report on at {tmp}/absent: there is no such file or folder"),
        (("report", "{tmp}"), 1, "holds no run.json and no dyx.json"),
        (("report", "{gates}", "{tmp}"), 1, "nothing to report on at {tmp}"),
        (("report", "{gates}", "--out", "{tmp}/no/x.html"), 1, "cannot write {tmp}/no/x.html"),
        (("report",), 2, "Missing argument"),
        (("bench", "--plot", "{tmp}/x.gif"), 2, "which is not one that ends in .png, .svg, .pdf"),
        (("bench", "--plot", "{tmp}/no/x.png"), 1, "cannot write {tmp}/no/x.png: there is no folder"),
    ],
)
def test_mistakes_are_told_before_any_work(
    run_dyx: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr("dyx.lineup.measure", lambda *_, **__: pytest.fail("it measured first"))
    places = {"tmp": tmp_path, "gates": GATES}
    ran = run_dyx(*(argument.format(**places) for argument in arguments))
    assert ran.code == code, ran.err
    assert said.format(**places) in ran.err.replace("\n", " ")
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_bench_draws_what_it_found(run_dyx: Callable[..., Any], tmp_path: Path, suffix: str, start: bytes) -> None:
    picture = tmp_path / f"speed.{suffix}"
    ran = run_dyx("bench", "--load", GATES, "--plot", picture)
    assert ran.code == 0, ran.err
    assert "alexnet-eca" in ran.out
    assert picture.read_bytes().startswith(start)
