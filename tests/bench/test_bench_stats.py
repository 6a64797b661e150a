"""Statistics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dyx.bench.stats import agree, percentile, speed_ratio, variation


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


def test_the_same_seed_gives_the_same_interval() -> None:
    base, own = [[3], [4], [8], [9]], [[2], [4], [5], [9]]
    assert speed_ratio(base, own, seed=1) == speed_ratio(base, own, seed=1)
