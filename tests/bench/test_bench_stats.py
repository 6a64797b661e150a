"""Statistics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dyx.bench.stats import agree, drift, percentile, speed_ratio, variation


@pytest.mark.parametrize(("percent", "wanted"), [(50, 2), (90, 10), (95, 20), (99, 100)])
def test_a_percentile_wants_a_sample_beyond_it(percent: int, wanted: int) -> None:
    assert percentile(range(wanted - 1), percent) is None
    assert percentile(range(wanted), percent) == pytest.approx((wanted - 1) * percent / 100)


def test_variation_by_hand() -> None:
    assert variation([1, 3]) == pytest.approx(2**0.5 / 2)
    assert variation([5]) is None


def test_windows_agree_within_ten_percent() -> None:
    assert agree([[100], [105], [110]]) is True
    assert agree([[100], [105], [111]]) is False
    assert agree([[100, 900, 100], [105], [110]]) is True  # medians, not means
    assert agree([[100], [105], [110], [111]]) is False
    assert agree([[100], [100]]) is None


def test_the_ratio_is_of_mean_times_per_call() -> None:
    ratio = speed_ratio([[2, 2], [4]], [[1], [1, 1]], seed=0)
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high, ratio.pairs) == (pytest.approx(8 / 3), None, None, 2)


def test_there_is_no_ratio_without_a_pair() -> None:
    assert speed_ratio([], [], seed=0) is None


def test_three_pairs_give_an_interval() -> None:
    ratio = speed_ratio([[20], [30], [40]], [[10], [10], [10]], seed=0)
    assert ratio is not None
    # Of 27 draws one is all 20s and one all 40s: more than 2.5 % each.
    assert (ratio.low, ratio.value, ratio.high) == (pytest.approx(2), pytest.approx(3), pytest.approx(4))


def test_what_slows_both_sides_of_a_pair_cancels() -> None:
    drift = [1, 2, 5, 10, 20, 50]
    ratio = speed_ratio([[2_000 * slow] for slow in drift], [[1_000 * slow] for slow in drift], seed=0)
    assert ratio is not None
    assert (ratio.low, ratio.high) == (pytest.approx(2), pytest.approx(2))


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(60):
        load = rng.lognormal(0, 0.3, 40)
        base, own = (load * time * rng.lognormal(0, 0.1, 40) for time in (9e5, 1e6))
        ratio = speed_ratio(base.astype(int)[:, None].tolist(), own.astype(int)[:, None].tolist(), seed=trial)
        assert ratio is not None and ratio.low is not None and ratio.high is not None
        assert ratio.high - ratio.low < 0.12
        hits += ratio.low <= 0.9 <= ratio.high
    assert 50 <= hits < 60


def test_drift_is_the_rise_from_the_first_turn_to_the_last() -> None:
    rising = list(np.geomspace(100, 120, 24))
    assert drift([rising]) == pytest.approx(0.2)
    assert drift([rising[::-1]]) == pytest.approx(1 / 1.2 - 1)
    odd = [*rising[:5], 900, *rising[6:]]
    assert drift([odd]) == pytest.approx(0.2, abs=0.01), "one odd turn does not bend it"
    assert drift([[100] * 24]) is None


def test_runs_drift_each_for_itself() -> None:
    # Every run has another level, higher from run to run; within each nothing rises.
    rng = np.random.default_rng(0)
    levels = [list(level * rng.lognormal(0, 0.005, 8)) for level in (100, 120, 140)]
    assert drift(levels) is None
    assert drift([[value * (1 + at / 50) for at, value in enumerate(run)] for run in levels]) == pytest.approx(
        0.14, abs=0.02
    )


def test_few_turns_tell_nothing() -> None:
    rising = [100, 118, 130, 155, 170, 200]
    assert drift([rising]) == pytest.approx(1.0, abs=0.05)
    assert drift([rising[:5]]) is None
    assert drift([rising, rising[:5]]) == drift([rising])


def test_times_that_rise_along_a_curve_drift() -> None:
    """As those of a chip that gets hot."""
    assert drift([[100 + 10 * (1 - 0.9**turn) for turn in range(24)]]) == pytest.approx(0.08, abs=0.02)


def test_drift_is_found_in_noise() -> None:
    rng = np.random.default_rng(0)
    found = [drift([list(np.linspace(100, 115, 24) * rng.lognormal(0, 0.02, 24))]) for _ in range(100)]
    assert sum(value is not None for value in found) >= 98
    assert np.median([value for value in found if value is not None]) == pytest.approx(0.15, abs=0.01)


def _remembering(rng: np.random.Generator, turns: int, memory: float) -> list[float]:
    """Steady turns, each of which resembles the one before."""
    level, found = 0.0, []
    for step in rng.normal(0, 0.05, turns + 50):
        level = memory * level + (1 - memory**2) ** 0.5 * step
        found.append(100 * float(np.exp(level)))
    return found[50:]


@pytest.mark.parametrize(("memory", "most"), [(0.0, 0.02), (0.5, 0.05), (0.8, 0.12)])
def test_noise_is_seldom_taken_for_drift(memory: float, most: float) -> None:
    rng = np.random.default_rng(0)
    for turns in (6, 12, 24, 48):
        told = [drift([_remembering(rng, turns, memory)]) is not None for _ in range(400)]
        assert np.mean(told) <= most


def test_another_program_for_a_while_is_no_drift() -> None:
    rng = np.random.default_rng(0)
    told = 0
    for _ in range(400):
        turns = rng.lognormal(0, 0.01, 24)
        begin = rng.integers(0, 18)
        turns[begin : begin + 6] *= 1.3
        told += drift([turns.tolist()]) is not None
    assert told <= 8


def test_the_same_seed_gives_the_same_interval() -> None:
    base, own = [[3], [4], [8], [9]], [[2], [4], [5], [9]]
    assert speed_ratio(base, own, seed=1) == speed_ratio(base, own, seed=1)
