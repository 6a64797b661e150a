"""Real benchmarks: real worker processes, and what becomes of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from multiprocessing.connection import Pipe
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from dyx.bench import Comparison, Contender, Skipped, bench, bundle_contender, check_writable
from dyx.bench.measure import WARM_UP
from dyx.bench.samples import ENOUGH, TIME_UP
from dyx.bench.summary import DRIFT_LIMIT
from dyx.bench.turns import order
from dyx.bench.worker import make_input
from dyx.bundle import Bundle
from dyx.environment import cpu_mhz
from dyx.errors import BenchFailed, InvalidOption, OutputUnwritable, UnknownName
from dyx.tensors import BATCH, TensorSpec

SHORT: dict[str, Any] = {"batch": 2, "seconds": 0.09}
IsRunning = Callable[[Path], bool]


def odd(openers: str, name: str, **arguments: object) -> Contender:
    return Contender(name, "odd", f"{openers}:Odd", arguments)


def test_inputs_are_what_each_network_takes() -> None:
    normal, pixels = (make_input(TensorSpec("image", dtype, (BATCH, 3, 8, 8)), 5, 7) for dtype in ("float32", "uint8"))
    assert (normal.dtype, normal.shape) == (np.float32, (5, 3, 8, 8)) and normal.min() < 0 < normal.max()
    assert (pixels.dtype, pixels.shape) == (np.uint8, (5, 3, 8, 8)) and pixels.max() > 250 and pixels.min() < 5
    again = make_input(TensorSpec("image", "uint8", (BATCH, 3, 8, 8)), 5, 7)
    np.testing.assert_array_equal(pixels, again)


@pytest.fixture(scope="module")
def timed(tiny_bundle: Bundle) -> tuple[Comparison, int]:
    """A bundle against itself, and how many ns the whole took."""
    baseline = bundle_contender(tiny_bundle, "onnxruntime", baseline=True, threads=1)
    again = bundle_contender(tiny_bundle, "onnxruntime", name="again", threads=1)
    start_ns = time.perf_counter_ns()
    compared = bench([baseline, again], batch=4, seconds=0.3, skipped=[Skipped("tiny", "paddle", "not here")])
    return compared, time.perf_counter_ns() - start_ns


@pytest.fixture(scope="module")
def comparison(timed: tuple[Comparison, int]) -> Comparison:
    return timed[0]


def test_a_bundle_against_itself_has_a_ratio_with_an_interval(comparison: Comparison) -> None:
    baseline, again = comparison.rows
    assert baseline.ratio is None and baseline.baseline
    assert again.ratio is not None and again.ratio.low is not None and again.ratio.high is not None
    assert 0 < again.ratio.low <= again.ratio.high
    last = {turn.window for turn in comparison.measurements[1].turns}
    kept = [turn for turn in comparison.measurements[1].turns if turn.window > max(last) - 3]
    assert again.ratio.pairs == len(kept) >= 3
    assert (again.name, again.backend, again.device) == ("again", "onnxruntime", "cpu")
    assert again.images_per_s > 0 and again.percentiles_ms["p50"] is not None


def test_sides_take_turns_and_share_one_clock(timed: tuple[Comparison, int]) -> None:
    comparison, whole_ns = timed
    turns = sorted(
        ((turn, seen.contender.name) for seen in comparison.measurements for turn in seen.turns),
        key=lambda pair: pair[0].sent_ns[0],
    )
    assert all(before.done_ns[-1] <= after.sent_ns[0] for (before, _), (after, _) in pairwise(turns))
    rounds = range(len(turns) // 2)
    assert [name for _, name in turns] == [name for number in rounds for name in order(["tiny", "again"], number)]
    assert 0 < turns[0][0].sent_ns[0] < turns[-1][0].done_ns[-1] < whole_ns


def test_there_are_three_to_ten_windows_after_a_warm_up(comparison: Comparison) -> None:
    for seen in comparison.measurements:
        assert 3 <= len({turn.window for turn in seen.turns}) <= 10
        (warm_up,) = seen.warm_ups
        assert warm_up.calls >= 10 and warm_up.seconds >= 0.2
        assert warm_up.ended == ENOUGH


def test_opening_and_warm_up_calls_are_kept_apart_from_what_is_measured(openers: str) -> None:
    cold = Contender("cold", "odd", f"{openers}:ColdStart", {"opening": 0.2, "first": 0.1, "seconds": 0.002})
    comparison = bench([cold], **SHORT)
    (warm_up,) = comparison.measurements[0].warm_ups
    assert len(warm_up.calls_ns) == warm_up.calls
    assert warm_up.calls_ns[0] > 1e8 > median(warm_up.calls_ns[1:])
    assert 0.5 * warm_up.seconds < sum(warm_up.calls_ns) / 1e9 <= warm_up.seconds
    (row,) = comparison.rows
    assert row.open_s is not None and 0.2 < row.open_s < 10
    assert row.first_call_ms == warm_up.calls_ns[0] / 1e6
    assert median(call for turn in comparison.measurements[0].turns for call in turn.calls_ns) < 1e8
    saved = json.loads(json.dumps(comparison.to_json()))
    assert saved["contenders"][0]["warm_ups"][0]["calls_ns"] == list(warm_up.calls_ns)
    assert Comparison.from_json(saved).measurements == comparison.measurements


def test_a_warm_up_whose_time_is_up_says_so(openers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WARM_UP, "most_s", 0.05)
    (seen,) = bench([odd(openers, "slow", seconds=0.03)], **SHORT).measurements
    assert (seen.warm_ups[0].calls, seen.warm_ups[0].ended) == (2, TIME_UP)


def test_the_record_says_what_ran(comparison: Comparison, tiny_bundle: Bundle) -> None:
    saved = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    first = saved["contenders"][0]
    assert (saved["schema"], saved["kind"]) == (1, "dyx-bench")
    assert first["contender"]["sha256"] == {"model.onnx": tiny_bundle.manifest["files"]["model.onnx"]}
    assert (first["threads"], first["options"]["intra_op_num_threads"]) == (1, 1)
    assert all(isinstance(instant, int) for instant in first["turns"][0]["sent_ns"])
    assert saved["settings"]["method"]["warm_up"]["calls_wanted"] == 10
    assert saved["environment"]["packages"]["onnxruntime"]
    assert saved["environment"]["cpu"]["usable_cores"] >= 1
    assert saved["skipped"] == [{"name": "tiny", "backend": "paddle", "reason": "not here"}]
    assert [row["name"] for row in saved["summary"]] == ["tiny", "again"]
    assert Comparison.from_json(saved).rows == comparison.rows


def test_raw_samples_are_saved_even_where_statistics_fail(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison.save(tmp_path / "run.json")
    whole = json.loads((tmp_path / "run.json").read_text())
    assert Comparison.from_json(whole).rows == comparison.rows
    assert [row["name"] for row in whole["summary"]] == ["tiny", "again"]
    monkeypatch.setattr(Comparison, "to_json", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        comparison.save(tmp_path / "raw.json")
    raw = json.loads((tmp_path / "raw.json").read_text())
    assert "summary" not in raw
    assert raw["contenders"] == whole["contenders"]
    monkeypatch.undo()
    with pytest.raises(OutputUnwritable, match="cannot write"):
        comparison.save(tmp_path / "nowhere" / "run.json")


def test_peak_memory_is_the_workers_own(tiny_bundle: Bundle) -> None:
    held = np.ones(600 * 2**20, np.uint8)
    (row,) = bench([bundle_contender(tiny_bundle, "onnxruntime", threads=1)], **SHORT).rows
    assert 10 * 2**20 < row.peak_bytes < held.nbytes


def test_groups_run_one_after_another_each_with_its_own_baseline(openers: str) -> None:
    told: list[tuple[str, float]] = []
    sides = [replace(odd(openers, f"{group}{i}"), group=group, baseline=i == 0) for i in range(2) for group in "xy"]
    rows = bench(sides, **SHORT, progress=lambda text, share: told.append((text, share))).rows
    assert [(row.name, row.group, row.ratio is None) for row in rows] == [
        *(("x0", "x", True), ("x1", "x", False)),
        *(("y0", "y", True), ("y1", "y", False)),
    ]
    assert told[0] == ("x0: opening", 0.0)
    assert [share for _, share in told] == sorted(share for _, share in told) and told[-1][1] < 1


def test_a_slow_reference_has_few_turns_and_the_others_go_on(openers: str) -> None:
    slow = replace(odd(openers, "eager", seconds=0.1), reference=True)
    baseline = replace(odd(openers, "base", seconds=0.001), baseline=True)
    seen = bench([baseline, slow], **SHORT).measurements
    calls = [call for turn in seen[1].turns for call in turn.sent_ns]
    assert len(calls) == 2
    assert len({turn.window for turn in seen[0].turns}) >= 3
    assert len(seen[0].turns) > len(seen[1].turns)


def test_chatter_on_stdout_garbles_nothing(openers: str, capfd: pytest.CaptureFixture[str]) -> None:
    (row,) = bench([odd(openers, "loud", prints=True, seconds=0.001)], **SHORT).rows
    assert row.calls > 0
    assert capfd.readouterr().out == ""


def test_device_time_comes_from_the_runner(openers: str) -> None:
    (row,) = bench([odd(openers, "gpu", device="gpu", seconds=0.001)], **SHORT).rows
    assert (row.device, row.device_ms) == ("gpu", 2.0)


def test_a_contender_that_tires_is_told_and_its_clock_is_noted(openers: str) -> None:
    tiring = Contender("tiring", "odd", f"{openers}:Tiring")
    comparison = bench([tiring, odd(openers, "steady", seconds=0.004)], batch=2, seconds=1.5)
    drifts = {row.name: row.drift for row in comparison.rows}
    # The machine itself may drift by some percent meanwhile.
    assert drifts["tiring"] is not None and drifts["tiring"] > max(DRIFT_LIMIT, 2 * (drifts["steady"] or 0))
    told = cpu_mhz(1) is not None
    for seen in comparison.measurements:
        assert [turn.cpu_mhz is not None for turn in seen.turns] == [told] * len(seen.turns)
    assert all((row.clock_mhz is not None) == told for row in comparison.rows)
    assert Comparison.from_json(json.loads(json.dumps(comparison.to_json()))).rows == comparison.rows


@pytest.mark.parametrize(
    ("opener", "words"),
    [
        (
            "dies",
            r"benchmark of tiny on odd failed: its process ended with exit status 3; its last lines:\n.*last words",
        ),
        ("is_killed", r"its process was ended by SIGKILL \(out of memory\?\)"),
        ("raises", r"failed: RuntimeError: the session is bad; its last lines:\n(.*\n)*.*RuntimeError"),
        ("lacks", r"failed: paddlepaddle is not installed; pip install 'dyx\[paddle\]' brings it$"),
    ],
)
def test_a_worker_that_fails_is_told_by_name_and_reason(openers: str, opener: str, words: str) -> None:
    with pytest.raises(BenchFailed, match=words):
        bench([Contender("tiny", "odd", f"{openers}:{opener}")], **SHORT)


def test_no_process_is_left_after_a_death(openers: str, tmp_path: Path, is_running: IsRunning) -> None:
    well, ill = (tmp_path / name for name in ("well", "ill"))
    sides = [odd(openers, "well", pid_file=str(well)), odd(openers, "ill", pid_file=str(ill), dies_at=4)]
    with pytest.raises(BenchFailed, match="of ill on odd failed: its process ended with exit status 7"):
        bench(sides, **SHORT)
    assert not is_running(well)
    assert not is_running(ill)


def test_no_process_is_left_after_a_whole_run(openers: str, tmp_path: Path, is_running: IsRunning) -> None:
    bench([odd(openers, "well", pid_file=str(tmp_path / "well"))], **SHORT)
    assert not is_running(tmp_path / "well")


def test_ctrl_c_ends_the_workers(openers: str, tmp_path: Path, is_running: IsRunning) -> None:
    pid_file = tmp_path / "hangs"

    interrupter = threading.Thread(target=interrupt_once_written, args=(pid_file,))
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        bench([Contender("hangs", "odd", f"{openers}:hangs", {"pid_file": str(pid_file)})], **SHORT)
    interrupter.join()
    assert not is_running(pid_file)


def test_a_worker_deaf_to_a_polite_end_is_killed(
    openers: str, tmp_path: Path, is_running: IsRunning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dyx.bench.process._PATIENCE_S", 0.1)
    deaf = tmp_path / "deaf"
    arguments = {"pid_file": str(deaf), "deaf": True}
    interrupter = threading.Thread(target=interrupt_once_written, args=(deaf,))
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        bench([Contender("deaf", "odd", f"{openers}:hangs", arguments)], **SHORT)
    interrupter.join()
    assert not is_running(deaf)


def test_a_worker_ends_well_when_its_parent_closes() -> None:
    here, there = Pipe()
    with there:
        command = [sys.executable, "-m", "dyx.bench.worker", str(there.fileno())]
        worker = subprocess.Popen(command, pass_fds=[there.fileno()])
    here.close()
    assert worker.wait(30) == 0


def test_a_worker_does_not_outlive_a_killed_parent(openers: str, tmp_path: Path, is_running: IsRunning) -> None:
    pid_file = tmp_path / "orphan"
    code = (
        "from dyx.bench import *\n"
        f"side = Contender('a', 'odd', '{openers}:Odd', {{'seconds': .01, 'pid_file': {str(pid_file)!r}}})\n"
        "bench([side], batch=1, seconds=60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as parent:
        wait_for(lambda: pid_file.exists() and pid_file.read_text() != "")
        parent.kill()
    wait_for(lambda: not is_running(pid_file))


def interrupt_once_written(pid_file: Path) -> None:
    wait_for(lambda: pid_file.exists() and pid_file.read_text() != "")
    os.kill(os.getpid(), signal.SIGINT)


def wait_for(happened: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": 0}, "--batch is 0, which is not a number from 1 up"),
        ({"seconds": 0}, "--seconds is 0, which is not a number above 0"),
        ({"seconds": float("nan")}, "--seconds is nan"),
    ],
)
def test_values_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        bench([], **options)


def test_two_baselines_in_a_group_are_refused() -> None:
    sides = [Contender(name, "odd", "a:b", baseline=True) for name in ("one", "two")]
    with pytest.raises(InvalidOption, match="the baseline of group odd is 'one, two', which is not one contender"):
        bench(sides)


def test_an_unknown_backend_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(UnknownName, match="no backend named 'onnxruntme'"):
        bundle_contender(tiny_bundle, "onnxruntme")


def test_only_skipped_is_a_comparison_too() -> None:
    assert bench([], skipped=[Skipped("a", "paddle", "no")]).rows == ()


def test_place_for_the_result_is_checked_before_measuring(tmp_path: Path) -> None:
    check_writable(tmp_path / "run.json")
    for path, words in ((tmp_path, "it is a folder"), (tmp_path / "nowhere" / "run.json", "there is no folder")):
        with pytest.raises(OutputUnwritable, match=words):
            check_writable(path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file_is_told_even_to_who_may_write_everywhere() -> None:
    with pytest.raises(OutputUnwritable, match=r"cannot write /proc/run\.json: "):
        check_writable(Path("/proc/run.json"))
