"""Sweeps, runs, records read again, gates: with real worker processes."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dyx.bench import (
    Comparison,
    Contender,
    Match,
    Plan,
    Skipped,
    bench,
    bundle_contender,
    check_ratios,
    pool,
    read_record,
    save,
    save_csv,
    sweep,
    tabulate_all,
)
from dyx.bench.samples import Turn, last_windows
from dyx.bench.stats import median_interval, speed_ratio
from dyx.bench.sweep import is_out_of_memory
from dyx.bundle import Bundle
from dyx.errors import BenchFailed, InvalidOption, RatioMissed, RecordUnreadable, UnlikeMachines


def sides(bundle: Bundle, threads: int = 1) -> list[Contender]:
    baseline = bundle_contender(bundle, "onnxruntime", baseline=True, threads=threads)
    return [baseline, bundle_contender(bundle, "onnxruntime", name="again", threads=threads)]


@pytest.fixture(scope="module")
def swept(tiny_bundle: Bundle) -> tuple[Comparison, ...]:
    """Two batch sizes, each in two runs."""
    absent = [Skipped("tiny", "paddle", "not here")]
    return sweep([Match(sides(tiny_bundle), absent, batch) for batch in (1, 4)], Plan(seconds=0.09, runs=2))


def test_a_sweep_measures_every_batch_and_every_line_up(tiny_bundle: Bundle) -> None:
    matches = [Match(sides(tiny_bundle, threads), [], batch) for threads in (1, 2) for batch in (1, 2)]
    found = sweep(matches, Plan(seconds=0.03))
    assert [(each.settings.batch, each.measurements[0].threads) for each in found] == [(1, 1), (2, 1), (1, 2), (2, 2)]


def test_runs_have_processes_of_their_own_and_count_together(swept: tuple[Comparison, ...]) -> None:
    for comparison in swept:
        for seen in comparison.measurements:
            assert {turn.run for turn in seen.turns} == {0, 1}
            assert len(seen.warm_ups) == 2
        kept = last_windows(comparison.measurements[1].turns, 3)
        assert len(kept) == 6
        assert comparison.rows[1].ratio is not None
        assert comparison.rows[1].ratio.pairs == sum(map(len, kept))
        assert comparison.rows[1].calls == sum(len(turn.calls_ns) for turns in kept for turn in turns)


def test_records_are_read_again_with_the_same_figures(swept: tuple[Comparison, ...], tmp_path: Path) -> None:
    save(swept, tmp_path / "sweep.json")
    save(swept[:1], tmp_path / "one.json")
    assert json.loads((tmp_path / "one.json").read_text())["kind"] == "dyx-bench"
    assert [each.rows for each in read_record(tmp_path / "sweep.json")] == [each.rows for each in swept]
    assert read_record(tmp_path / "one.json")[0].rows == swept[0].rows


def test_records_of_one_machine_are_pooled(swept: tuple[Comparison, ...]) -> None:
    small, large = swept
    pooled = pool([small, large, small])
    assert [each.settings.batch for each in pooled] == [1, 4]
    assert {turn.run for turn in pooled[0].measurements[0].turns} == {0, 1, 2, 3}
    assert pooled[0].rows[1].calls == 2 * small.rows[1].calls
    assert pooled[1].rows == large.rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"memory_bytes": 1}, "memory .* and 1"),
        ({"packages": {"onnxruntime": "0.1"}}, "onnxruntime .* and 0.1"),
        ({"variables": {"OMP_NUM_THREADS": "64"}}, "OMP_NUM_THREADS"),
        ({"gpus": [{"name": "H200"}]}, "GPUs .* and .*H200"),
    ],
)
def test_records_of_unlike_machines_are_not(swept: tuple[Comparison, ...], change: dict[str, Any], said: str) -> None:
    other = replace(swept[0], environment={**swept[0].environment, **change})
    with pytest.raises(UnlikeMachines, match=said):
        pool([swept[0], other])


def test_when_and_where_a_record_was_taken_does_not_matter(swept: tuple[Comparison, ...]) -> None:
    later = {**swept[0].environment, "start_utc": "2030-01-01T00:00:00+00:00", "command": ["else"], "revision": None}
    assert len(pool([swept[0], replace(swept[0], environment=later)])) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "it is no JSON that can be read"),
        ("[]", "it holds no kind of record, not dyx-bench schema 1 or dyx-bench-sweep schema 1"),
        ('{"kind": "else", "schema": 3}', "it holds else schema 3, not dyx-bench schema 1"),
        ('{"kind": ["else"], "schema": {}}', "not dyx-bench schema 1"),
        ('{"kind": "dyx-bench", "schema": 9}', "it holds dyx-bench schema 9, not dyx-bench schema 1"),
        ('{"kind": "dyx-bench-sweep", "schema": 9}', "it holds dyx-bench-sweep schema 9"),
        ('{"kind": "dyx-bench", "schema": 1}', "its dyx-bench is not whole .KeyError: 'settings'"),
        ('{"kind": "dyx-bench-sweep", "schema": 1, "comparisons": [{}]}', "its dyx-bench-sweep is not whole"),
    ],
)
def test_other_files_are_no_records(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(RecordUnreadable, match=said):
        read_record(tmp_path / "r.json")
    with pytest.raises(RecordUnreadable, match="can be read"):
        read_record(tmp_path / "none.json")


def test_csv_has_a_line_per_row(swept: tuple[Comparison, ...], tmp_path: Path) -> None:
    save_csv(swept, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["network"], row["batch"], row["threads"]) for row in rows] == [
        *(("tiny", "1", "1"), ("again", "1", "1")),
        *(("tiny", "4", "1"), ("again", "4", "1")),
    ]
    for row, told in zip(rows, [row for each in swept for row in each.rows], strict=True):
        assert float(row["images_per_s"]) == told.images_per_s
        assert row["ratio"] == ("" if told.ratio is None else str(told.ratio.value))


def test_a_sweep_is_one_table(swept: tuple[Comparison, ...]) -> None:
    from rich.console import Console

    console = Console(width=100, record=True, file=io.StringIO())
    console.print(tabulate_all([*swept[:1], swept[1].noted("batch 512 did not fit into memory")]))
    text = console.export_text()
    assert text.count("onnxruntime") == 4 and text.count("× baseline") >= 1
    assert "Note: batch 512 did not fit into memory." in text


def test_a_gate_lets_through_what_is_fast_enough(swept: tuple[Comparison, ...]) -> None:
    check_ratios(swept, 0.01)
    with pytest.raises(RatioMissed, match=r"--fail-under 99 was missed by again on onnxruntime at batch 1: .*; again"):
        check_ratios(swept, 99)


def test_a_gate_without_a_ratio_is_missed(swept: tuple[Comparison, ...]) -> None:
    alone = replace(swept[0], measurements=swept[0].measurements[:1])
    with pytest.raises(RatioMissed, match="a comparison without any ratio"):
        check_ratios([alone], 0.5)


def test_references_do_not_count_for_the_gate(swept: tuple[Comparison, ...]) -> None:
    base, again = swept[0].measurements
    slow = replace(again, contender=replace(again.contender, reference=True))
    with pytest.raises(RatioMissed, match="without any ratio"):
        check_ratios([replace(swept[0], measurements=(base, slow))], 0.5)


def hungry(openers: str, most: int) -> Contender:
    return Contender("hungry", "odd", f"{openers}:Hungry", {"most": most})


def test_a_batch_that_does_not_fit_is_halved_and_told(openers: str) -> None:
    (found,) = sweep([Match([hungry(openers, 3)], [], 8)], Plan(seconds=0.03))
    assert found.settings.batch == 2
    assert found.notes == ("batch 8 did not fit into memory",)
    assert Comparison.from_json(found.to_json()).notes == found.notes


def test_a_halved_batch_that_was_asked_for_too_stands_once(openers: str) -> None:
    found = sweep([Match([hungry(openers, 2)], [], batch) for batch in (2, 8)], Plan(seconds=0.03))
    assert [each.settings.batch for each in found] == [2]


def test_a_batch_of_one_that_does_not_fit_is_an_error(openers: str) -> None:
    with pytest.raises(BenchFailed, match="MemoryError: no room for 1"):
        sweep([Match([hungry(openers, 0)], [], 4)], Plan(seconds=0.03))


def test_other_failures_are_not_taken_for_want_of_memory(openers: str) -> None:
    with pytest.raises(BenchFailed, match="the session is bad"):
        sweep([Match([Contender("bad", "odd", f"{openers}:raises")], [], 4)], Plan(seconds=0.03))
    assert not is_out_of_memory(BenchFailed("x", "exit status 3"))


def interrupt(after_s: float) -> None:
    """Ctrl-C, some time from now."""

    def press() -> None:
        time.sleep(after_s)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()


def odd(openers: str, name: str, pid_file: Path, **more: Any) -> Contender:
    return Contender(name, "odd", f"{openers}:Odd", {"seconds": 0.01, "pid_file": str(pid_file)}, **more)


def test_ctrl_c_keeps_what_was_measured_and_marks_it(
    openers: str, tmp_path: Path, is_running: Callable[[Path], bool]
) -> None:
    contenders = [odd(openers, "base", tmp_path / "a", baseline=True), odd(openers, "own", tmp_path / "b")]
    pressed: list[bool] = []

    def progress(text: str, share: float) -> None:
        if "window 2" in text and not pressed:
            pressed.append(True)
            interrupt(0.05)

    found = sweep([Match(contenders, [], batch) for batch in (1, 2)], Plan(seconds=3.0), progress)
    assert [each.settings.batch for each in found] == [1]
    assert found[0].interrupted and found[0].notes == ("interrupted: figures are of what was measured so far",)
    assert found[0].rows[1].ratio is not None and found[0].rows[1].calls > 10
    assert not is_running(tmp_path / "a") and not is_running(tmp_path / "b")
    assert Comparison.from_json(found[0].to_json()).interrupted


@pytest.mark.parametrize("group", ["odd", "later"])
def test_ctrl_c_in_a_later_run_keeps_the_earlier_one_and_stops_the_sweep(
    openers: str, tmp_path: Path, group: str
) -> None:
    """In the first of two groups the second run lacks the other one; in the last it is nearly whole."""
    contenders = [odd(openers, "one", tmp_path / "a"), odd(openers, "two", tmp_path / "b", group="later")]
    pressed: list[bool] = []

    def progress(text: str, share: float) -> None:
        if "run 2" in text and f"{group}: window 2" in text and not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    found = sweep([Match(contenders, [], batch) for batch in (1, 2)], Plan(seconds=0.5, runs=2), progress)
    assert [each.settings.batch for each in found] == [1]
    assert found[0].interrupted
    assert found[0].notes == ("interrupted: figures are of what was measured so far",)
    assert [row.name for row in found[0].rows] == ["one", "two"]
    assert {turn.run for turn in found[0].measurements[0].turns} == ({0} if group == "odd" else {0, 1})


def test_ctrl_c_before_anything_was_measured_goes_on(openers: str, tmp_path: Path) -> None:
    slow = Contender("slow", "odd", f"{openers}:Odd", {"seconds": 2.0})
    with pytest.raises(KeyboardInterrupt):
        interrupt(0.8)
        sweep([Match([slow], [], 1)], Plan(seconds=0.03))


def test_progress_tells_the_running_median_with_its_interval(openers: str, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    contenders = [odd(openers, "base", tmp_path / "a", baseline=True), odd(openers, "own", tmp_path / "b")]
    bench(contenders, batch=1, seconds=0.5, progress=lambda text, share: told.append((text, share)))
    running = [text for text, _ in told if "own 1" in text and text.endswith("]")]
    assert running and all("ms [" in text for text in running)
    shares = [share for _, share in told]
    assert all(0 <= share <= 1 for share in shares)


def test_the_median_lies_in_its_interval_about_as_often_as_it_says() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        low, high = median_interval([int(time) for time in rng.lognormal(10, 1, 51)])
        hits += low <= np.exp(10) <= high
    assert 0.92 < hits / 400 < 0.99


def test_resampling_runs_sees_what_differs_between_them() -> None:
    """Two processes of one network, one of them 10 % slower for all its life: calls alone would not tell."""
    base = [[100] for _ in range(40)]
    own = [[100] for _ in range(20)] + [[110] for _ in range(20)]
    alone, in_runs = speed_ratio(base, own, 0), speed_ratio(base, own, 0, [0] * 20 + [1] * 20)
    assert alone is not None and in_runs is not None
    assert alone.value == in_runs.value
    assert alone.low is not None and in_runs.low is not None and in_runs.high is not None
    assert in_runs.low == pytest.approx(1 / 1.1) and in_runs.high == pytest.approx(1.0)
    assert alone.low > in_runs.low


def test_turns_of_old_records_are_of_one_run() -> None:
    entry = {"window": 1, "round": 2, "sent_ns": [0], "done_ns": [5], "device_ns": []}
    assert (Turn.from_json(entry).run, Turn.from_json(entry).cpu_mhz) == (0, None)


@pytest.mark.parametrize("runs", [0, -1])
def test_runs_that_cannot_be(runs: int) -> None:
    with pytest.raises(InvalidOption, match="--runs is"):
        Plan(runs=runs)


def test_the_last_windows_are_those_of_each_run() -> None:
    turns = [Turn(window, window, (0,), (1,), (), run) for run in (0, 1) for window in range(5)]
    kept = [[(turn.run, turn.window) for turn in window] for window in last_windows(turns, 3)]
    assert kept == [[(0, 2)], [(0, 3)], [(0, 4)], [(1, 2)], [(1, 3)], [(1, 4)]]


def test_elsewhere_than_on_a_terminal_each_step_is_one_plain_line(
    openers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dyx.console import Bar

    contenders = [odd(openers, "base", tmp_path / "a", baseline=True), odd(openers, "own", tmp_path / "b")]
    with Bar() as bar:
        bench(contenders, batch=1, seconds=0.5, progress=bar)
    lines = capsys.readouterr().err.splitlines()
    assert sum(re.search(r"odd: window 1\b", line) is not None for line in lines) == 1
    assert sum("own: opening" in line for line in lines) == 1
    with Bar(quiet=True) as bar:
        bar("anything", 0.5)
    assert capsys.readouterr().err == ""
