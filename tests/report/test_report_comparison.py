"""The page of a benchmark holds what its record does: ratios, percentiles, hashes, the machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dyx.bench import Comparison, Contender, Settings, Skipped
from dyx.bench.samples import ENOUGH, Measurement, Turn, WarmUp
from dyx.report import comparison as pages
from dyx.report.comparison import answer, by_batch, comparison_report, comparison_sections, verdict
from dyx.report.page import render, told

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
NEWEST = "alexnet-dy-cpu-512.json"
RECORDS = (
    "gates-cpu-512.json",
    NEWEST,
    "zoo/odconv2x-resnet50.json",
    "zoo/dy4x-mobilenetv3-small.json",
)
NASTY = "<b>&\"'</script>"
MS = 1_000_000


def recorded(name: str) -> tuple[dict[str, Any], Comparison]:
    entry = json.loads((RESULTS / name).read_text())
    return entry, Comparison.from_json(entry)


def measured(name: str, calls_ms: Sequence[float], *, runs: int = 1, **contender: Any) -> Measurement:
    """Three turns of equal calls, a window each, in every run."""
    turns = []
    for run in range(runs):
        for window in range(3):
            ends = np.cumsum([0, *calls_ms]) + sum(calls_ms) * window
            sent, done = (tuple(int(at * MS) for at in part) for part in (ends[:-1], ends[1:]))
            turns.append(Turn(window, window, sent, done, run=run))
    warm_ups = tuple(WarmUp(10, 0.25, (9 * MS, *[MS] * 9), ENOUGH, 1.5 + run) for run in range(runs))
    who = Contender(name, contender.pop("backend", "onnxruntime"), "a:b", **contender)
    return Measurement(who, "cpu", 2, {}, warm_ups, tuple(turns), 2**20 * 70)


def compared(*measurements: Measurement, batch: int = 8) -> Comparison:
    environment = {"cpu": {"model": "a CPU"}, "gpus": [], "command": ["dyx", NASTY]}
    return Comparison(environment, Settings(batch, 1.0), measurements, (Skipped("tiny", "paddle", NASTY),))


def page(comparison: Comparison) -> str:
    return render(comparison_report(comparison))


def figures(value: float) -> str:
    """Three figures of a number, none an exponent."""
    return f"{value:.{max(0, 3 - len(str(int(value))))}f}"


@pytest.mark.parametrize("name", RECORDS)
def test_every_ratio_and_percentile_of_a_record_is_on_its_page(name: str, read_whole: Any) -> None:
    entry, comparison = recorded(name)
    seen = read_whole(page(comparison))
    has_peak = any(row.get("peak_share") for row in entry["summary"])
    for row in entry["summary"]:
        label = row["name"] if row["backend"] == row["group"] else f"{row['name']}, {row['backend']}"
        starts = [place for place, cell in enumerate(seen.cells) if cell == label]
        peak = [f"{100 * row['peak_share']:.0f}" if row.get("peak_share") else "–"] if has_peak else []
        shown = [seen.cells[place : place + 10 + len(peak)] for place in starts]
        percentiles = ["–" if value is None else figures(value) for value in row["percentiles_ms"].values()]
        (cells,) = [cells for cells in shown if cells[1:6] == [figures(row["images_per_s"]), *percentiles]]
        assert cells[6:-1] == [*peak, f"{row['peak_bytes'] / 2**20:.0f}", wanted_ratio(row), ", ".join(row["notes"])]


def wanted_ratio(row: dict[str, Any]) -> str:
    if row["baseline"] or row["ratio"] is None:
        return "baseline" if row["baseline"] else "–"
    ratio = row["ratio"]
    interval = "" if ratio["low"] is None else f" [{ratio['low']:.2f} {ratio['high']:.2f}]"
    return f"{ratio['value']:.2f}{interval}"


@pytest.mark.parametrize("name", [name for name in RECORDS if name != NEWEST])
def test_every_hash_and_fact_of_a_record_is_on_its_page(name: str, read_whole: Any, leaves: Any) -> None:
    entry, comparison = recorded(name)
    seen = read_whole(page(comparison))
    for contender in entry["contenders"]:
        for file, digest in contender["contender"]["sha256"].items():
            assert [file, digest] in [seen.cells[at : at + 2] for at in range(len(seen.cells))]
        for warm_up in contender["warm_ups"] if "warm_ups" in contender else [contender["warm_up"]]:
            assert any(f"{warm_up['seconds']:.2f}" == cell for cell in seen.cells)
    parts = {part for cell in seen.cells for part in (cell, *cell.split(", "))}
    for _, value in leaves(entry["environment"]):
        assert told(value) in parts, value
    for _, value in leaves(entry["settings"]):
        assert told(value) in parts, value


def test_ratios_stand_in_figures_on_common_axes(read_whole: Any) -> None:
    _, comparison = recorded("gates-cpu-512.json")
    seen = read_whole(page(comparison))
    for group in ("onnxruntime", "openvino", "paddle"):
        for title in (f"{group}: × baseline", f"{group}: images/s", f"{group}: ms per call"):
            assert title in seen.words
    ratios = [row.ratio for row in comparison.rows if row.ratio is not None]
    assert len(ratios) == 9
    for ratio in ratios:
        assert f"{ratio.value:.2f} [{ratio.low:.2f} {ratio.high:.2f}]" in seen.words
    assert seen.count("svg") == 12  # ratios, throughput, latency, drift of three backends
    spread = f"{min(ratio.value for ratio in ratios):.2f} to {max(ratio.value for ratio in ratios):.2f} ×"
    machine = "12 measurements at batch 512 on Intel(R) Xeon(R) Processor"
    assert verdict(comparison).startswith(f"{machine}; {spread}")


def test_latencies_are_the_calls_that_figures_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    entry, comparison = recorded(NEWEST)
    seen: list[Any] = []

    def drawn(times: Any, title: str) -> Any:
        seen.extend(times)
        return real(times, title)

    real = pages.latencies
    monkeypatch.setattr(pages, "latencies", drawn)
    comparison_sections(comparison)
    for times, row in zip(seen, entry["summary"], strict=True):
        assert len(times.calls_ms) == row["calls"]
        assert np.median(times.calls_ms) == pytest.approx(row["percentiles_ms"]["p50"])
        assert times.percentiles_ms == row["percentiles_ms"]


def test_drift_has_every_call_and_runs_follow_each_other() -> None:
    seen = measured("a", [1.0, 2.0], runs=2)
    early = replace(seen, turns=(Turn(-1, -1, (0,), (MS,)), *seen.turns))
    comparison = compared(early)
    drawn = pages._track(comparison.rows[0], early)
    assert len(drawn.calls_ms) == 13
    assert drawn.counted == [False, *[True] * 12]
    assert drawn.at_s[7] == pytest.approx(0.009)  # the second run begins where the first one ended
    assert list(drawn.at_s[1:]) == sorted(drawn.at_s[1:])


def test_notes_tell_what_is_unsteady(read_whole: Any) -> None:
    base, other = measured("base", [1.0] * 40, baseline=True), measured("a", [2.0, 3.0] * 20)
    comparison = replace(compared(base, other), notes=("the machine was shared",))
    seen = read_whole(page(comparison))
    assert "the machine was shared." in seen.words
    place = seen.cells.index("notes", seen.cells.index("notes") + 1)
    assert seen.cells[place + 1 : place + 4] == ["a", "onnxruntime", "CV 20.3%"]
    calm = compared(measured("base", [1.0] * 40, baseline=True))
    assert "Notes" not in [section.title for section in comparison_sections(calm) if section.holds_something]


def test_without_a_baseline_there_is_no_ratio(read_whole: Any) -> None:
    seen = read_whole(page(compared(measured("a", [1.0] * 3))))
    assert "There was no baseline to compare with." in seen.words
    assert seen.count("svg") == 3
    assert verdict(compared(measured("a", [1.0] * 3))) == "1 measurement at batch 8 on a CPU."


def test_opening_and_first_call_are_told_by_run(read_whole: Any) -> None:
    seen = read_whole(page(compared(measured("a", [2.0] * 3, runs=2))))
    place = seen.cells.index("× p50")
    assert seen.cells[place + 4 : place + 13] == [
        *("a", "onnxruntime", "1", "1.50", "9.00", "4.5", "10", "0.25", ENOUGH)
    ]
    assert seen.cells[place + 15 : place + 17] == ["2", "2.50"]


def test_what_old_records_do_not_tell_is_a_dash(read_whole: Any) -> None:
    _, comparison = recorded("gates-cpu-512.json")
    seen = read_whole(page(comparison))
    place = seen.cells.index("× p50")
    cells = seen.cells[place + 4 : place + 13]
    assert (cells[3], cells[4], cells[5], cells[8]) == ("–",) * 4


def test_trend_and_clock_stand_over_the_run(read_whole: Any) -> None:
    calls_ms = (100, 118, 130, 155, 170, 200)
    turns = [Turn(at // 2, at, (0,), (MS * ms,), cpu_mhz=3000 - 2 * at) for at, ms in enumerate(calls_ms)]
    cells = read_whole(page(compared(replace(measured("a", [1.0]), turns=tuple(turns))))).cells
    place = cells.index("drift %")
    assert cells[place + 3 : place + 8] == ["a", "onnxruntime", "+95.6", "2,991 to 2,999", "–"]


def test_gpus_are_told_by_window(read_whole: Any) -> None:
    samples = ([{"name": "H200", "sm_clock_mhz": 1980, "power_w": 512.25, "throttle_mask": 4}],)
    seen = read_whole(page(compared(replace(measured("a", [1.0]), gpu_samples=samples))))
    place = seen.cells.index("sm_clock_mhz")
    assert seen.cells[place + 3 : place + 10] == ["a", "onnxruntime", "1", "H200", "1,980", "512.2", "4"]


def test_words_of_a_record_are_never_markup(read_whole: Any) -> None:
    odd = compared(measured(NASTY, [1.0, 2.0], baseline=True, sha256={NASTY: NASTY}), measured(f"{NASTY}2", [1.0, 2.0]))
    html = page(odd)
    seen = read_whole(html)
    assert "<b>" not in html
    assert not seen.count("b")
    assert seen.cells.count(NASTY) >= 4
    assert f"{NASTY}2 beside {NASTY}, batch 8" in seen.words


def test_records_that_differ_in_batch_alone_make_a_curve() -> None:
    records = [recorded(f"gates-cpu-{batch}.json") for batch in (512, 64)]
    section = by_batch([comparison for _, comparison in records])
    assert len(section.drawings) == 3
    (table,) = section.tables
    assert table.headings == ("network", "backend", "batch 64", "batch 512")
    speed = {(row["name"], row["backend"], entry["settings"]["batch"]): row["images_per_s"] for entry, _ in records
             for row in entry["summary"]}  # fmt: skip
    assert len(table.rows) == 12
    for name, backend, *shown in table.rows:
        assert shown == [figures(speed[name, backend, batch]) for batch in (64, 512)]


def test_records_that_differ_in_more_make_none() -> None:
    base = measured("a", [1.0])
    slower = replace(base, threads=1)
    other = replace(base, contender=replace(base.contender, sha256={"model.onnx": "other"}))
    for seen, batch in ((base, 8), (slower, 16), (other, 16)):
        assert not by_batch([compared(base, batch=8), compared(seen, batch=batch)]).holds_something
    elsewhere = replace(compared(base, batch=16), environment={"cpu": {"model": "another"}, "gpus": []})
    assert not by_batch([compared(base, batch=8), elsewhere]).holds_something
    assert by_batch([compared(base, batch=8), compared(base, batch=16)]).holds_something


def test_the_answer_names_batch_and_threads_where_they_differ() -> None:
    base = measured("a", [1.0], baseline=True)
    one = answer([compared(base)])
    assert [axes.get_title(loc="left") for axes in one.axes] == ["onnxruntime, batch 8: images/s"]
    several = answer([compared(base), compared(replace(base, threads=1), batch=16)])
    assert [axes.get_title(loc="left") for axes in several.axes] == [
        *("onnxruntime, batch 8, 2 threads: images/s", "onnxruntime, batch 16, 1 thread: images/s")
    ]
    _, comparison = recorded(NEWEST)
    words = [text.get_text() for axes in answer([comparison]).axes for text in axes.texts]
    dynamic, plain = comparison.rows[:2]
    ratio = wanted_ratio(dynamic.to_json())
    assert {ratio, "alexnet-dy, paddle-eager", f"{plain.images_per_s:,.0f}"} <= set(words)
