"""The page of a run under LoadGen holds what its record does: verdicts, reasons, percentiles of both, settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dyx.bench import Contender, ScenarioResult, ScenarioRun, Skipped
from dyx.report import scenario as pages
from dyx.report.page import render
from dyx.report.places import page_of
from dyx.report.scenario import scenario_report, verdict

NASTY = "<b>&\"'</script>"
MS = 1_000_000
SHARES = ("p50", "p90", "p95", "p97", "p99", "p99.9", "mean", "min", "max")


def result(name: str, *, backend: str = "onnxruntime", reasons: tuple[str, ...] = ()) -> ScenarioResult:
    """A hundred samples of 1 to 100 ms, of which LoadGen says that each took 0.5 ms longer."""
    return ScenarioResult(
        contender=Contender(name, backend, "a:b", {"bundle": f"bundles/{name}", "threads": 2}, {"model.onnx": "f00d"}),
        device="cpu",
        threads=2,
        options={"spin": False},
        scenario="server",
        batch=8,
        valid=not reasons,
        reasons=reasons,
        metric="Completed samples per second",
        value=59.25,
        percentiles_ms={key: 0.5 + place for place, key in enumerate(SHARES)},
        queries=459,
        seconds=7.77,
        settings={"server_target_qps": 60.0, "server_target_latency_ns": 30 * MS},
        loadgen={"result_validity": "INVALID" if reasons else "VALID", "result_query_count": 459},
        versions={"mlcommons-loadgen": "6.0.17"},
        latencies_ns=tuple(ms * MS for ms in range(1, 101)),
    )


def ran(*results: ScenarioResult, **more: Any) -> ScenarioRun:
    environment = {"cpu": {"model": "a CPU"}, "command": ["dyx", NASTY]}
    return ScenarioRun(environment, results, (Skipped("tiny", "paddle", "not here"),), **more)


def test_verdicts_and_reasons_are_loadgens(read_whole: Any) -> None:
    late = result("b", reasons=("Reduce target QPS to improve latency.", "Run unsuccessful."))
    run = ran(result("a"), late)
    seen = read_whole(render(scenario_report(run)))
    place = seen.cells.index("completed/s")
    assert seen.cells[place + 4 : place + 11] == ["a", "onnxruntime", "VALID", "59.2", "459", "100", "7.77"]
    assert seen.cells[place + 11 : place + 14] == ["b", "onnxruntime", "✗ INVALID"]
    place = seen.cells.index("reasons")
    told = "Reduce target QPS to improve latency. Run unsuccessful."
    assert seen.cells[place + 1 : place + 4] == ["b", "onnxruntime", told]
    assert verdict(run) == "1 of 2 VALID on a CPU; INVALID: b on onnxruntime."
    assert verdict(ran(result("a"))) == "1 of 1 VALID on a CPU."
    assert "60.0 a second on average; 99 % must be answered within 30.0 ms." in " ".join(seen.words)
    assert "tiny" in seen.cells and "not here" in seen.cells


def test_percentiles_of_both_stand_beside_each_other(read_whole: Any) -> None:
    seen = read_whole(render(scenario_report(ran(result("a")))))
    place = seen.cells.index("by")
    assert tuple(seen.cells[place + 1 : place + 10]) == SHARES
    assert seen.cells[place + 10 : place + 14] == ["a", "onnxruntime", "LoadGen", "0.50"]
    assert seen.cells[place + 22 : place + 28] == ["a", "onnxruntime", "dyx", "51.0", "91.0", "96.0"]


def test_latencies_are_those_of_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    def spied(times: Any, title: str, of: str) -> Any:
        drawn.append((times, title, of))
        return real(times, title, of)

    real = pages.latencies
    monkeypatch.setattr(pages, "latencies", spied)
    scenario_report(ran(result("a"), result("b"), result("a", backend="paddle")))
    assert [(title, of, [one.name for one in times]) for times, title, of in drawn] == [
        ("onnxruntime", "sample", ["a", "b"]),
        ("paddle", "sample", ["a"]),
    ]
    first = drawn[0][0][0]
    assert (len(first.calls_ms), max(first.calls_ms)) == (100, 100.0)
    assert first.percentiles_ms == {"p50": 51.0, "p90": 91.0, "p95": 96.0, "p99": 100.0}


def test_settings_log_hashes_and_machine_are_told(read_whole: Any) -> None:
    seen = read_whole(render(scenario_report(ran(result("a"), result(NASTY)))))
    place = seen.cells.index("server_target_qps")
    assert seen.cells[place + 1 : place + 3] == ["60", "60"]
    assert seen.cells[seen.cells.index("result_query_count") + 1] == "459"
    assert ["a", "onnxruntime", "model.onnx", "f00d"] in [seen.cells[at : at + 4] for at in range(len(seen.cells))]
    assert {"bundle=bundles/a", "spin=False", "a CPU"} <= set(seen.cells)
    assert not seen.count("b"), "words of a record are never markup"
    assert "ms per sample" in " ".join(seen.words)


def test_an_interrupted_run_says_so(read_whole: Any) -> None:
    said = "interrupted: those who would have come later are missing"
    assert said in " ".join(read_whole(render(scenario_report(ran(result("a"), interrupted=True)))).words)
    assert said not in " ".join(read_whole(render(scenario_report(ran(result("a"))))).words)


def test_a_run_without_contenders_has_a_page(read_whole: Any) -> None:
    seen = read_whole(render(scenario_report(ran())))
    assert "Nothing asked by MLPerf LoadGen" in seen.words
    assert "not here" in seen.cells


def test_a_record_stands_on_a_page_beside_others(tmp_path: Path, read_whole: Any) -> None:
    for count, name in enumerate(("one.json", "two.json")):
        latencies = tuple(range(MS, (90 + count) * MS, MS))
        ran(replace(result("a"), scenario="offline", latencies_ns=latencies)).save(tmp_path / name)
    assert "<h1>a: offline by MLPerf LoadGen</h1>" in page_of([tmp_path / "one.json"])
    seen = read_whole(page_of([tmp_path / "one.json", tmp_path / "two.json"]))
    assert seen.count("article") == 2
    assert json.loads((tmp_path / "one.json").read_text())["kind"] == "dyx-scenario"
