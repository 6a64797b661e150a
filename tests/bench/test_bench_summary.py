"""From raw samples to rows, and rows to tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from dyx.bench import Comparison, Contender, Settings, Skipped, read_record, tabulate
from dyx.bench.report import figure
from dyx.bench.samples import ENOUGH, Measurement, Turn, WarmUp
from dyx.bench.summary import DRIFT_LIMIT, Row, summarize
from dyx.errors import InvalidOption
from dyx.gpu import throttling

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
MS = 1_000_000
WARM_UP = WarmUp(10, 0.2, (90 * MS, *[4 * MS] * 9), ENOUGH, 0.5)


def turn(window: int, number: int, calls_ms: Sequence[float], device_ms: Sequence[float] = ()) -> Turn:
    """A turn of calls of given lengths, one after another."""
    ends = [sum(calls_ms[: count + 1]) for count in range(len(calls_ms))]
    starts = [end - call for end, call in zip(ends, calls_ms, strict=True)]
    nanoseconds = [tuple(round(at * MS) for at in instants) for instants in (starts, ends, device_ms)]
    return Turn(window, number, *nanoseconds)


def measured(name: str, turns: Sequence[Turn], *, baseline: bool = False, reference: bool = False) -> Measurement:
    contender = Contender(name, "onnxruntime", "a:b", baseline=baseline, reference=reference)
    return Measurement(contender, "cpu", 2, {"spin": False}, (WARM_UP,), tuple(turns), 2**20 * 70)


def steady(name: str, call_ms: float, *, calls: int = 40, windows: int = 3, baseline: bool = False) -> Measurement:
    return measured(name, [turn(at, at, [call_ms] * calls) for at in range(windows)], baseline=baseline)


def row_of(measurement: Measurement, *others: Measurement) -> Row:
    return summarize([measurement, *others], Settings(batch=8, seconds=1.0))[0]


def compared(*measurements: Measurement) -> Comparison:
    environment = {"cpu": {"model": "a CPU"}, "gpus": []}
    skipped = (Skipped("tiny", "paddle", "paddlepaddle is not installed: pip install 'dyx[paddle]'"),)
    return Comparison(environment, Settings(8, 1.0), measurements, skipped)


def printed(comparison: Comparison, width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(tabulate(comparison))
    return captured.get()


def test_images_per_second_are_images_over_time_in_calls() -> None:
    row = row_of(steady("a", 4.0))
    assert row.images_per_s == pytest.approx(8 / 0.004)
    assert row.calls == 120
    assert row.percentiles_ms == {"p50": 4.0, "p90": 4.0, "p95": 4.0, "p99": 4.0}
    assert (row.stable, row.notes) == (True, ())


def test_only_the_last_three_windows_count() -> None:
    first = [turn(at, at, [99.0] * 50) for at in range(2)]
    row = row_of(measured("a", [*first, *(turn(at, at, [4.0] * 50) for at in range(2, 5))]))
    assert (row.calls, row.percentiles_ms["p99"], row.notes) == (150, 4.0, ())


def test_few_calls_are_told_and_have_no_far_percentiles() -> None:
    row = row_of(measured("a", [turn(0, 0, [4.0])]))
    assert row.notes == ("1 call",)
    assert set(row.percentiles_ms.values()) == {None}
    assert (row.stable, row.variation) == (None, None)


def test_windows_that_disagree_are_told() -> None:
    row = row_of(measured("a", [turn(at, at, [call] * 40) for at, call in enumerate((4.0, 4.0, 5.0))]))
    assert (row.stable, row.notes) == (False, ("UNSTABLE",))


def test_a_wide_spread_within_a_window_is_told() -> None:
    row = row_of(measured("a", [turn(at, at, [4.0, 4.4] * 20) for at in range(3)]))
    assert row.variation == pytest.approx(0.0482, abs=1e-4)
    assert row.notes == ("CV 4.8%",)


def test_the_ratio_is_against_the_baseline_of_the_same_group() -> None:
    baseline = steady("base", 2.0, baseline=True)
    elsewhere = replace(baseline, contender=replace(baseline.contender, group="other"))
    ratio = row_of(steady("a", 4.0), baseline).ratio
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high, ratio.pairs) == (0.5, 0.5, 0.5, 3)
    assert row_of(steady("a", 4.0), elsewhere).ratio is None
    assert row_of(baseline).ratio is None


def test_a_reference_is_compared_with_the_rounds_it_took_part_in() -> None:
    # The baseline went on for five windows, slower in its last three.
    baseline = [turn(at, at, [call] * 40) for at, call in enumerate((2.0, 2.0, 3.0, 3.0, 3.0))]
    reference = measured("eager", [turn(0, 0, [20.0]), turn(1, 1, [20.0])], reference=True)
    row = row_of(reference, measured("base", baseline, baseline=True))
    assert row.ratio is not None
    assert (row.ratio.value, row.ratio.low, row.ratio.pairs) == (pytest.approx(0.1), None, 2)
    assert row.notes == ("2 calls",)


def test_rounds_without_the_baseline_give_no_pair() -> None:
    short = measured("base", [turn(0, 0, [2.0])], baseline=True, reference=True)
    ratio = row_of(steady("a", 4.0), short).ratio
    assert ratio is not None
    assert (ratio.value, ratio.pairs) == (0.5, 1)


def test_device_time_stands_beside_end_to_end() -> None:
    turns = [turn(at, at, [4.0] * 40, [1.0, 2.0, 3.0]) for at in range(3)]
    seen = replace(measured("a", turns), device="gpu")
    assert row_of(seen).device_ms == 2.0
    assert "dev ms" in printed(compared(seen))
    assert "without them" in printed(compared(seen))
    assert row_of(steady("a", 4.0)).device_ms is None
    assert "dev ms" not in printed(compared(steady("a", 4.0)))


def test_a_trend_is_told() -> None:
    slower = [turn(at // 8, at, [4.0 * (1 + at / 200)] * 12) for at in range(24)]
    row = row_of(measured("a", slower))
    assert row.drift == pytest.approx(0.115, abs=0.001)
    assert row.notes == ("drift +11.5%",)
    assert row_of(measured("a", [replace(each, run=at % 2) for at, each in enumerate(slower)])).drift is not None
    little = [turn(at // 8, at, [4.0 * (1 + at / 1000)] * 12) for at in range(24)]
    assert (row_of(measured("a", little)).drift, row_of(measured("a", little)).notes) == (
        pytest.approx(0.023, abs=1e-3),
        (),
    )


@pytest.mark.parametrize("name", ["alexnet-dy-cpu-512", "gates-cpu-512", "gates-cpu-64", "avx2/kw1x-resnet18-cpu-8"])
def test_real_records_drift_seldom(name: str) -> None:
    """Samples of a machine that others used as well."""
    (comparison,) = read_record(RESULTS / f"{name}.json")
    told = [row.drift for row in comparison.rows if row.drift is not None and abs(row.drift) > DRIFT_LIMIT]
    assert len(told) <= len(comparison.rows) / 10
    clocks = [row.clock_mhz for row in comparison.rows if row.clock_mhz]
    assert all(low == high for low, high in clocks), "the clock of that machine stands still"


def clocked(*clocks: float | None) -> Measurement:
    return measured("a", [replace(turn(at, at, [4.0] * 40), cpu_mhz=clock) for at, clock in enumerate(clocks)])


def test_a_clock_that_moved_is_told() -> None:
    assert (row_of(clocked(3000, 2900, 2700)).clock_mhz, row_of(clocked(3000, 2900, 2700)).notes) == (
        (2700, 3000),
        ("clock 11.1%",),
    )
    assert row_of(clocked(3000, 2900, 2860)).notes == ()
    assert (row_of(clocked(None, None, None)).clock_mhz, row_of(clocked(None, None, None)).notes) == (None, ())
    assert row_of(clocked(9000, 3000, 3000, 3000)).notes == (), "figures come from the last three windows"


def test_on_a_gpu_its_own_clock_counts() -> None:
    samples = tuple(
        [{"sm_clock_mhz": 345, "throttle_mask": 0}, {"sm_clock_mhz": clock, "throttle_mask": 0}]
        for clock in (1980, 1980, 1755)
    )
    row = row_of(replace(clocked(3000, 2000, 1000), device="gpu", gpu_samples=samples))
    assert (row.clock_mhz, row.notes) == ((1755, 1980), ("clock 12.8%",))
    untold = tuple([{"sm_clock_mhz": None, "throttle_mask": None}] for _ in range(3))
    assert row_of(replace(clocked(3000, 2000, 1000), device="gpu", gpu_samples=untold)).clock_mhz is None


@pytest.mark.parametrize(("device_ms", "notes"), [(1.9, ("transfer-bound",)), (2.1, ())])
def test_copies_that_take_more_than_computing_are_told(device_ms: float, notes: tuple[str, ...]) -> None:
    turns = [turn(at, at, [4.0] * 40, [device_ms] * 40) for at in range(3)]
    row = row_of(replace(measured("a", turns), device="gpu"))
    assert (row.transfer_share, row.notes) == (pytest.approx(1 - device_ms / 4), notes)
    assert row_of(steady("a", 4.0)).transfer_share is None


def test_throttling_is_told() -> None:
    throttled = ([{"throttle_mask": 0x1}], [{"throttle_mask": 0x44}], [{"throttle_mask": None}])
    row = row_of(replace(steady("a", 4.0), gpu_samples=throttled))
    assert row.notes == ("throttled: hardware thermal slowdown, power cap",)
    assert throttling({"throttle_mask": 0x1}) == []


def test_saved_json_recomputes_the_same_rows() -> None:
    comparison = compared(steady("base", 2.0, baseline=True), measured("a", [turn(0, 0, [4.0, 4.5], [1.0])]))
    saved = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    read = Comparison.from_json(saved)
    assert read.rows == comparison.rows
    assert read.measurements[1].turns == comparison.measurements[1].turns
    assert read.skipped == comparison.skipped
    assert json.loads(json.dumps(read.to_json())) == saved


def test_the_first_call_and_opening_are_medians_over_runs() -> None:
    warm_ups = [replace(WARM_UP, calls_ns=(first * MS, MS), open_s=first / 10) for first in (90, 30, 50)]
    row = row_of(replace(steady("a", 4.0), warm_ups=tuple(warm_ups)))
    assert (row.first_call_ms, row.open_s) == (50.0, 5.0)


def test_records_from_before_warm_up_calls_were_kept_still_load() -> None:
    old = json.loads(json.dumps(compared(steady("a", 4.0)).raw()))
    (entry,) = old["contenders"]
    del entry["warm_ups"]
    entry["warm_up"] = {"calls": 7, "seconds": 0.25}
    read = Comparison.from_json(old)
    assert read.measurements[0].warm_ups == (WarmUp(7, 0.25),)
    assert (read.rows[0].open_s, read.rows[0].first_call_ms) == (None, None)
    text = " ".join(printed(read).split())
    assert "warmed up by 7 calls and 0.2 s at the least. Timed" in text
    assert Comparison.from_json(json.loads(json.dumps(read.to_json()))).measurements == read.measurements


def test_statistics_are_taken_anew_not_read() -> None:
    saved = compared(steady("a", 4.0)).to_json()
    saved["summary"] = []
    assert len(Comparison.from_json(saved).rows) == 1


@pytest.mark.parametrize("change", [{"schema": 2}, {"kind": "else"}])
def test_another_schema_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidOption, match="not dyx-bench schema 1"):
        Comparison.from_json({**compared().to_json(), **change})


def test_the_table_fits_and_says_what_it_must() -> None:
    unstable = measured("alexnet-dy", [turn(at, at, [call] * 3) for at, call in enumerate((4.0, 4.0, 5.0))])
    text = printed(compared(steady("alexnet-bn", 2.0, baseline=True), unstable))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    row = next(line for line in lines if "alexnet-dy" in line)
    assert "–" in row and "0.46 [0.40 0.50]" in row and "UNSTABLE" in row
    assert any("baseline" in line and "4000" in line for line in lines if "alexnet-bn" in line)
    assert "pip install 'dyx[paddle]'" in text
    assert "end to end on the host" in text
    told = "warmed up by 10 calls and 0.2 s at the least; opened in 0.50 s, first call 90.0 ms at the most."
    assert f"onnxruntime: 2 threads, spin=False; {told}" in " ".join(text.split())


def test_contenders_are_named_where_others_of_their_backend_had_other_settings() -> None:
    plain, frozen, other = (steady(name, 2.0) for name in ("plain", "frozen", "other"))
    own = replace(frozen, options={"spin": True})
    text = " ".join(printed(compared(plain, own, other)).split())
    assert "onnxruntime (plain, other): 2 threads, spin=False; warmed" in text
    assert "onnxruntime (frozen): 2 threads, spin=True; warmed" in text


@pytest.mark.parametrize("width", [100, 78])
def test_neither_figures_nor_warnings_are_cropped(width: int) -> None:
    turns = [turn(at, at, [call, call * 1.9] * 6) for at, call in enumerate((1060.0, 1066.0, 1700.0))]
    wild = replace(measured("kernelwarehouse-resnet18-dy", turns), peak_bytes=12_345 * 2**20)
    text = printed(compared(steady("alexnet-bn", 1060.0, baseline=True), wild), width)
    for whole in ("UNSTABLE", "CV 32.4%", "36 calls", "12345", "0.57 [0.43 0.69]", "3230"):
        assert whole in text
    assert "…" not in text


def test_the_backend_stands_beneath_the_name_where_it_is_not_the_groups() -> None:
    baseline, eager = steady("alexnet-bn", 2.0, baseline=True), steady("alexnet-dy", 9.0)
    mixed = replace(eager, contender=replace(eager.contender, backend="paddle-eager"))
    for other, is_told in ((eager, False), (mixed, True)):
        lines = printed(replace(compared(baseline, other), skipped=()), 80).splitlines()
        assert any(line.strip().startswith("paddle-eager") for line in lines[:8]) == is_told
        assert any("alexnet-dy" in line and "0.22" in line for line in lines)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.1234, "0.12"), (1.234, "1.23"), (56.78, "56.8"), (1234.5, "1234")]
)
def test_figures_have_three_places(value: float | None, text: str) -> None:
    assert figure(value) == text
