"""Contenders under the real LoadGen: its verdict and figures, what dyx notes beside them, and what may go wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dyx.bench import (
    Contender,
    Scenario,
    ScenarioResult,
    ScenarioRun,
    Skipped,
    bundle_contender,
    run_scenario,
    run_scenarios,
    scenario_table,
)
from dyx.bench.scenario_result import Log, read_log
from dyx.bench.scenarios import loadgen_settings
from dyx.bundle import Bundle
from dyx.errors import BenchFailed, DyxError, InvalidOption, OptionNeeded, OutputUnwritable, PackageMissing

pytest.importorskip("mlperf_loadgen")

IsRunning = Callable[[Path], bool]
CALL_S = 0.003
SECONDS = 0.5

# LoadGen's clock and dyx's are read in one process, a crossing between C++ and Python apart: 0.05 ms, or some times
# that on a busy machine. A server's latency is counted from when a sample was due, which LoadGen's thread may be late
# to ask for by as much as the machine lets it sleep. Both are far below what a wrong unit, a wrong percentile or a
# forgotten wait in the queue would make: a call takes 3 ms, a wait as long.
SHARE = 0.05
CROSSING_MS = 0.2
LATE_MS = 1.0

OPENERS = """
import os, signal
from odd_openers import Odd


class Ill(Odd):
    def __init__(self, at, how, **arguments):
        super().__init__(**arguments)
        self.at, self.how = at, how

    def _infer(self, image):
        if self.calls >= self.at:
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("the device is lost")
        return super()._infer(image)


class Counting(Odd):
    def __init__(self, file, **arguments):
        super().__init__(**arguments)
        self.file, self.sizes = file, []

    def _infer(self, image):
        self.sizes.append(len(image))
        return super()._infer(image)

    def close(self):
        with open(self.file, "w") as file:
            file.write(" ".join(map(str, self.sizes)))
"""


@pytest.fixture
def ill_openers(openers: str, tmp_path: Path) -> str:
    (tmp_path / "openers" / "ill_openers.py").write_text(OPENERS, encoding="utf-8")
    assert openers == "odd_openers"
    return "ill_openers"


def odd(openers: str, **arguments: object) -> Contender:
    return Contender("tiny", "odd", f"{openers}:Odd", {"seconds": CALL_S, **arguments})


def ill(ill_openers: str, how: str, **arguments: object) -> Contender:
    return Contender("tiny", "odd", f"{ill_openers}:Ill", {"seconds": CALL_S, "at": 250, "how": how, **arguments})


SUMMARY_LINES = {
    "offline": "Samples per second: ",
    "single-stream": "90.0th percentile latency (ns) : ",
    "multi-stream": "99.0th percentile latency (ns) : ",
    "server": "Completed samples per second    : ",
}


@pytest.mark.parametrize("scenario", list(SUMMARY_LINES))
def test_figures_are_loadgens_and_dyxs_own_agree(openers: str, scenario: str, tmp_path: Path) -> None:
    # A bound that no stall of the machine breaks: on a server LoadGen allows few late samples among so few.
    bound = {"latency_ms": 10_000.0} if scenario == "server" else {}
    options = {"seconds": SECONDS, "logs": tmp_path / "logs", "batch": _batch(scenario), **bound}
    result = run_scenario(odd(openers), scenario, **options)
    summary = (tmp_path / "logs" / "mlperf_log_summary.txt").read_text()
    assert result.valid and result.reasons == () and "Result is : VALID" in summary
    assert _after(summary, SUMMARY_LINES[scenario]) == pytest.approx(result.value, abs=0.01)
    assert SUMMARY_LINES[scenario].startswith(result.metric)
    for key, line in (("min", "Min latency"), ("mean", "Mean latency"), ("max", "Max latency")):
        assert _after(summary, f"{line} (ns)".ljust(32) + ": ") == pytest.approx(result.percentiles_ms[key] * 1e6)
    for key in ("50.00", "90.00", "95.00", "97.00", "99.00", "99.90"):
        by_loadgen = _after(summary, f"{key} percentile latency (ns)".ljust(32) + ": ")
        assert by_loadgen == pytest.approx(result.percentiles_ms[f"p{float(key):g}"] * 1e6)
    _assert_own_figures_agree(result)


def _batch(scenario: str) -> int | None:
    return 16 if scenario == "offline" else None


def _after(summary: str, start: str) -> float:
    (line,) = [line for line in summary.splitlines() if line.startswith(start)]
    return float(line.removeprefix(start))


def _assert_own_figures_agree(result: ScenarioResult) -> None:
    late_ms = LATE_MS if result.scenario == "server" else CROSSING_MS
    for key, by_loadgen in result.percentiles_ms.items():
        own = result.own_percentiles_ms[key]
        assert CALL_S * 1e3 <= own <= by_loadgen + 0.05, f"{key}: dyx's instants lie within LoadGen's"
    # Beyond these stand samples at which the machine looked away; on a server those that were due meanwhile, too.
    for key in ("p50",) if result.scenario == "server" else ("p50", "p90", "mean"):
        assert result.own_percentiles_ms[key] == pytest.approx(result.percentiles_ms[key], rel=SHARE, abs=late_ms), key
    told = result.loadgen.get("result_qps_with_loadgen_overhead")
    rate = result.value if "samples per second" in result.metric.lower() else told
    if rate is not None:  # LoadGen tells no rate of a multi-stream
        assert result.own_samples_per_s == pytest.approx(rate, rel=SHARE)


@pytest.mark.parametrize(
    ("scenario", "options", "words"),
    [
        ("server", {"target_qps": 50_000}, "Reduce target QPS to improve latency."),
        ("server", {"target_qps": 50_000}, "Too many outstanding queries"),
        ("server", {"target_qps": 300, "latency_ms": 1.0}, "Reduce target QPS to improve latency."),
        ("offline", {"target_qps": 1, "batch": 8, "seconds": 30}, "Increase expected QPS"),
    ],
)
def test_verdict_is_loadgens(openers: str, scenario: str, options: dict[str, Any], words: str, tmp_path: Path) -> None:
    result = run_scenario(odd(openers), scenario, logs=tmp_path / "logs", **{"seconds": SECONDS, **options})
    assert not result.valid
    assert words in " ".join(result.reasons)
    assert "Result is : INVALID" in (tmp_path / "logs" / "mlperf_log_summary.txt").read_text()


def test_a_result_and_its_table_come_back_from_json(tiny_bundle: Bundle, openers: str) -> None:
    told: list[tuple[str, float]] = []
    sides = [bundle_contender(tiny_bundle, "onnxruntime", threads=1), odd(openers)]
    asked = Scenario.of("server", 4, 0.3, target_qps=20_000)
    run = run_scenarios(
        sides, asked, skipped=[Skipped("tiny", "paddle", "not here")], progress=lambda *both: told.append(both)
    )
    saved = json.loads(json.dumps(run.to_json(), allow_nan=False))
    assert (saved["kind"], saved["schema"]) == ("dyx-scenario", 1)
    assert saved["results"][0]["contender"]["sha256"] == {"model.onnx": tiny_bundle.manifest["files"]["model.onnx"]}
    assert saved["results"][0]["versions"]["mlcommons-loadgen"] and saved["environment"]["cpu"]["usable_cores"] >= 1
    assert saved["results"][1]["settings"]["server_target_qps"] == 20_000
    assert saved["results"][1]["own"]["percentiles_ms"] == run.results[1].own_percentiles_ms
    assert ScenarioRun.from_json(saved) == run and not run.interrupted
    del saved["interrupted"]
    assert ScenarioRun.from_json(saved) == run, "as records had none before"
    assert [share for _, share in told] == sorted(share for _, share in told) and told[-1][1] < 1
    with pytest.raises(InvalidOption, match="the scenario run is 'dyx-bench schema 1'"):
        ScenarioRun.from_json({"kind": "dyx-bench", "schema": 1})
    shown = _shown(scenario_table(run))
    for words in ("completed/s", "INVALID", "tiny on odd is INVALID:", "Too many", "not in turns", "not here"):
        assert words in shown


def _shown(table: Any) -> str:
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115 - goes with the console
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize("scenario", ["offline", "server"])
def test_samples_are_answered_in_batches(ill_openers: str, scenario: str, tmp_path: Path) -> None:
    file = tmp_path / "sizes"
    counting = Contender("tiny", "odd", f"{ill_openers}:Counting", {"seconds": 0.001, "file": str(file)})
    rate = {"target_qps": 20_000} if scenario == "server" else {}
    result = run_scenario(counting, scenario, batch=4, seconds=0.3, **rate)
    sizes = [int(size) for size in file.read_text().split()]
    assert max(sizes) == 4
    assert sum(size == 4 for size in sizes) > len(result.latencies_ns) / 4 * 0.9
    assert sum(sizes) >= len(result.latencies_ns)


def test_logs_are_kept_only_if_asked_for(openers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    asked = Scenario.of("single-stream", seconds=0.1)
    run_scenarios([odd(openers)], asked, logs=tmp_path / "logs")
    assert (tmp_path / "logs" / "1-tiny-odd" / "mlperf_log_detail.txt").is_file()
    run_scenarios([odd(openers)], asked)
    assert list(temporary.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputUnwritable, match="cannot write"):
        run_scenarios([odd(openers)], asked, logs=tmp_path / "file")


def test_an_audit_config_lying_about_is_not_obeyed(
    openers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("audit.config").write_text("*.SingleStream.max_query_count = 3\n*.SingleStream.min_query_count = 3\n")
    assert run_scenario(odd(openers), "single-stream", seconds=0.1).queries >= 64


@pytest.mark.parametrize("scenario", list(SUMMARY_LINES))
def test_an_error_in_a_call_is_told_and_nothing_hangs(
    ill_openers: str, scenario: str, tmp_path: Path, is_running: IsRunning
) -> None:
    started, pid_file, told = time.monotonic(), tmp_path / "pid", [""]
    sick = ill(ill_openers, "raises", pid_file=str(pid_file))
    with pytest.raises(BenchFailed, match="of tiny on odd failed: RuntimeError: the device is lost; its last lines"):
        run_scenario(sick, scenario, seconds=30, batch=_batch(scenario), progress=lambda text, share: told.append(text))
    assert told[-1] == f"tiny: {scenario}"
    assert time.monotonic() - started < 20
    assert not is_running(pid_file)


def test_a_worker_that_is_killed_is_told(ill_openers: str, tmp_path: Path, is_running: IsRunning) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(BenchFailed, match="its process was ended by SIGKILL"):
        run_scenario(ill(ill_openers, "killed", pid_file=str(pid_file)), "server", seconds=30)
    assert not is_running(pid_file)


def test_a_worker_without_a_verdict_is_told(openers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dyx.bench.scenarios.read_log", lambda folder: None)
    with pytest.raises(BenchFailed, match="LoadGen left no verdict in its log"):
        run_scenario(odd(openers), "single-stream", seconds=0.1)


def test_ctrl_c_ends_the_worker(openers: str, tmp_path: Path, is_running: IsRunning) -> None:
    pid_file = tmp_path / "pid"

    def interrupt(text: str, share: float) -> None:
        if text.endswith("server"):
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        run_scenario(odd(openers, pid_file=str(pid_file)), "server", seconds=60, progress=interrupt)
    assert not is_running(pid_file)


def test_ctrl_c_keeps_the_contenders_that_were_through(openers: str, tmp_path: Path, is_running: IsRunning) -> None:
    sides = [odd(openers), odd(openers, pid_file=str(tmp_path / "pid")), odd(openers)]

    def interrupt(text: str, share: float) -> None:
        if text.endswith("single-stream") and share > 1 / 3:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    run = run_scenarios(sides, Scenario.of("single-stream", seconds=3.0), progress=interrupt)
    assert (len(run.results), run.interrupted) == (1, True)
    assert not is_running(tmp_path / "pid")
    assert ScenarioRun.from_json(json.loads(json.dumps(run.to_json()))).interrupted
    assert "interrupted: those who would have come later are missing" in _shown(scenario_table(run))


@pytest.mark.parametrize(
    ("scenario", "options", "error", "words"),
    [
        ("ofline", {}, InvalidOption, "--scenario is 'ofline', which is not one of offline, single-stream, multi-str"),
        (None, {"target_qps": 5}, OptionNeeded, "--scenario is needed"),
        ("server", {"target_qps": 0}, InvalidOption, "--target-qps is 0, which is not a number above 0"),
        ("offline", {"target_qps": -1.5}, InvalidOption, "--target-qps is -1.5, which is not a number above 0"),
        (
            "server",
            {"target_qps": 2e6},
            InvalidOption,
            "--target-qps is 2000000.0, which is not a number up to 1000000",
        ),
        ("server", {"latency_ms": 0}, InvalidOption, "--latency-ms is 0, which is not a number above 0"),
        ("server", {"latency_ms": float("nan")}, InvalidOption, "--latency-ms is nan"),
        (
            "single-stream",
            {"target_qps": 5},
            InvalidOption,
            "which is not one that takes --target-qps: offline, server",
        ),
        ("offline", {"latency_ms": 5}, InvalidOption, "'offline', which is not one that takes --latency-ms: server"),
        ("single-stream", {"batch": 8}, InvalidOption, "--batch is 8, which is not 1"),
        ("server", {"batch": 0}, InvalidOption, "--batch is 0, which is not a number from 1 up"),
        ("server", {"seconds": 0}, InvalidOption, "--seconds is 0, which is not a number above 0"),
    ],
)
def test_values_that_cannot_be_are_refused(
    scenario: str | None, options: dict[str, Any], error: type[DyxError], words: str
) -> None:
    with pytest.raises(error, match=re.escape(words)):
        Scenario.of(scenario, **options)


def test_without_loadgen_the_extra_is_told(monkeypatch: pytest.MonkeyPatch, openers: str) -> None:
    monkeypatch.setattr("dyx.bench.scenarios.find_spec", lambda name: None)
    with pytest.raises(PackageMissing, match="mlcommons-loadgen is not installed") as caught:
        run_scenario(odd(openers), "offline")
    assert "dyx[loadgen]" in caught.value.hint


def test_settings_by_hand() -> None:
    offline = loadgen_settings(Scenario.of("offline", 100, 2.0), {100: 0.5})
    assert offline == {"min_duration_ms": 2000, "min_query_count": 600, "offline_expected_qps": 250.0}
    assert loadgen_settings(Scenario.of("offline", 8, 1.0, target_qps=1), {8: 0.5})["min_query_count"] == 8
    single = loadgen_settings(Scenario.of("single-stream", seconds=10), {1: 0.004})
    assert single == {
        "min_duration_ms": 10_000,
        "max_duration_ms": 100_000,
        "min_query_count": 64,
        "single_stream_expected_latency_ns": 2_000_000,
    }
    multi = loadgen_settings(Scenario.of("multi-stream", seconds=1), {8: 0.004})
    assert multi == {
        "min_duration_ms": 1000,
        "max_duration_ms": 60_000,
        "min_query_count": 662,
        "multi_stream_samples_per_query": 8,
        "multi_stream_expected_latency_ns": 2_000_000,
    }
    server = loadgen_settings(Scenario.of("server", 10, 1.0), {1: 0.01, 10: 0.02})
    assert server == {
        "min_duration_ms": 1000,
        "max_duration_ms": 60_000,
        "min_query_count": 459,
        "server_target_qps": 50.0,
        "server_target_latency_ns": 100_000_000,
        "server_target_latency_percentile": 0.99,
        "server_max_async_queries": 560,
    }
    asked = loadgen_settings(Scenario.of("server", 1, 1.0, 7, 5), {1: 0.01})
    assert (asked["server_target_qps"], asked["server_target_latency_ns"]) == (7, 5_000_000)


def test_reasons_are_loadgens_words(tmp_path: Path) -> None:
    told = {
        "result_validity": "INVALID",
        "result_invalid_reason": "Reduce target QPS to improve latency. Do more.  ",
        "early_stopping_met": False,
        "early_stopping_result": " * Run unsuccessful.  * Processed 3 queries,  all late.",
        "power_begin": "now",
    }
    lines = [_line(key, value) for key, value in told.items()] + [_line("error_runtime", "Ending early", error=True)]
    (tmp_path / "mlperf_log_detail.txt").write_text("\n".join(["chatter", *lines]))
    log = read_log(tmp_path)
    assert log is not None and not log.valid and "power_begin" not in log.results
    assert log.reasons == (
        *("Ending early", "Reduce target QPS to improve latency.", "Do more."),
        *("Run unsuccessful.", "Processed 3 queries, all late."),
    )
    assert Log({**told, "early_stopping_met": True}, ()).reasons == log.reasons[1:3]
    assert Log({**told, "result_validity": "VALID"}, ("an error",)).reasons == ()
    (tmp_path / "mlperf_log_detail.txt").write_text(lines[1])
    assert read_log(tmp_path) is None
    assert read_log(tmp_path / "nowhere") is None


def _line(key: str, value: object, *, error: bool = False) -> str:
    return ":::MLLOG " + json.dumps({"key": key, "value": value, "metadata": {"is_error": error}})


def test_command_runs_a_scenario(run_dyx: Any, tiny_bundle: Bundle, tmp_path: Path) -> None:
    words = ("bench", tiny_bundle.path, "--backend", "onnxruntime", "--threads", 1, "--seconds", 0.2)
    ran = run_dyx(*words, "--scenario", "single-stream", "--json", tmp_path / "run.json")
    assert ran.code == 0, ran.err
    for shown in ("p90 ms (judged)", "tiny", "VALID", "not in turns"):
        assert shown in ran.out
    saved = ScenarioRun.from_json(json.loads((tmp_path / "run.json").read_text()))
    assert (saved.results[0].name, saved.results[0].scenario, saved.results[0].threads) == ("tiny", "single-stream", 1)
    page = run_dyx("report", tmp_path / "run.json", "--out", tmp_path / "page.html")
    assert page.code == 0, page.err
    assert "<h1>tiny: single-stream by MLPerf LoadGen</h1>" in (tmp_path / "page.html").read_text()
    printed = run_dyx(*words, "--scenario", "server", "--batch", 2, "--target-qps", 3000, "--json", "-")
    (result,) = ScenarioRun.from_json(json.loads(printed.out)).results
    assert (result.scenario, result.batch, result.settings["server_target_qps"]) == ("server", 2, 3000)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--target-qps", "5"), "--scenario is needed"),
        (("--scenario", "offlin"), "--scenario is 'offlin'"),
        (("--scenario", "server", "--runs", "2"), "--runs makes no sense beside --scenario"),
        (("--scenario", "server", "--batch", "1,2"), "--batch is '1,2', which is not one number"),
    ],
)
def test_command_refuses_what_cannot_be(
    run_dyx: Any, tiny_bundle: Bundle, options: tuple[str, ...], words: str
) -> None:
    ran = run_dyx("bench", tiny_bundle.path, *options)
    assert ran.code == 2
    assert words in " ".join(ran.err.split())
