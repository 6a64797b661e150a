"""Statistics of call times; pure.

The ratio of two sides is taken over *pairs of turns* of the same round, and its interval comes from resampling whole
pairs: what slows both sides of a pair alike (another program, a hotter chip) then cancels, and calls of one turn,
which resemble each other, are not mistaken for independent ones. Where there were several runs, each with processes of
its own, runs are resampled too: where a process finds its memory makes it a little faster or slower for all its life.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PERCENTS = (50, 90, 95, 99)
KEPT_WINDOWS = 3
AGREE_WITHIN = 0.10
LEAST_PAIRS = 3
RESAMPLES = 10_000
_RESAMPLES_AT_ONCE = 1_000
_INTERVAL_PERCENTS = (2.5, 97.5)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the baseline, and the 95 % interval where there were pairs enough for one."""

    value: float
    low: float | None
    high: float | None
    pairs: int


def percentile(times: Sequence[int], percent: int) -> float | None:
    """The percentile, or None where too few samples reach beyond it (99 wants 100 of them, 90 wants 10)."""
    wanted = -(-100 // (100 - percent))
    return float(np.percentile(times, percent)) if len(times) >= wanted else None


def median_interval(times: Sequence[int]) -> tuple[float, float]:
    """The 95 % interval of the median by order statistics: ranks n/2 ± 0.98 √n of the sorted samples."""
    ordered = sorted(times)
    spread = 0.98 * len(ordered) ** 0.5
    low, high = max(0, int(len(ordered) / 2 - spread)), min(len(ordered) - 1, int(len(ordered) / 2 + spread))
    return float(ordered[low]), float(ordered[high])


def variation(times: Sequence[int]) -> float | None:
    """The coefficient of variation: standard deviation over mean; None of fewer than two samples."""
    return float(np.std(times, ddof=1) / np.mean(times)) if len(times) > 1 else None


def agree(windows: Sequence[Sequence[int]]) -> bool | None:
    """Whether the medians of windows are within 10 % of each other; None of fewer than three windows."""
    if len(windows) < KEPT_WINDOWS:
        return None
    medians = [float(np.median(window)) for window in windows]
    return max(medians) <= min(medians) * (1 + AGREE_WITHIN)


def speed_ratio(
    baseline: Sequence[Sequence[int]], contender: Sequence[Sequence[int]], seed: int, runs: Sequence[int] = ()
) -> Ratio | None:
    """Mean time per call of the baseline over that of the contender; None without a pair.

    Args:
        baseline: Call times of the baseline's turns.
        contender: Call times of the contender's turns; turn `i` was next to turn `i` of the baseline.
        seed: Of the resampling.
        runs: The run of each turn; empty where there was one run.
    """
    pairs = np.array(
        [(sum(base), len(base), sum(own), len(own)) for base, own in zip(baseline, contender, strict=True)], float
    )
    if len(pairs) == 0:
        return None
    value = float(_ratios(pairs.sum(axis=0)))
    if len(pairs) < LEAST_PAIRS:
        return Ratio(value, None, None, len(pairs))
    several = len(set(runs)) > 1
    draws = _resampled_runs(pairs, np.asarray(runs), seed) if several else _resampled(pairs, seed)
    low, high = np.percentile(draws, _INTERVAL_PERCENTS)
    return Ratio(value, float(low), float(high), len(pairs))


def _resampled(pairs: np.ndarray, seed: int) -> np.ndarray:
    """The ratio of each of many draws, with replacement, of as many pairs as there are."""
    rng = np.random.default_rng(seed)
    count = len(pairs)
    even = np.full(count, 1 / count)
    # How often each pair was drawn is all that a draw is; in parts, for a long run has thousands of pairs.
    parts = (
        _ratios(rng.multinomial(count, even, size=_RESAMPLES_AT_ONCE) @ pairs)
        for _ in range(RESAMPLES // _RESAMPLES_AT_ONCE)
    )
    return np.concatenate(list(parts))


def _resampled_runs(pairs: np.ndarray, runs: np.ndarray, seed: int) -> np.ndarray:
    """The same where whole runs are drawn first, with replacement, and then pairs within each that was drawn."""
    rng = np.random.default_rng(seed)
    names = np.unique(runs)
    often = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    sums = np.zeros((RESAMPLES, pairs.shape[1]))
    for name, times in zip(names, often.T, strict=True):
        own = pairs[runs == name]
        even = np.full(len(own), 1 / len(own))
        sums += rng.multinomial(times * len(own), even) @ own
    return _ratios(sums)


def _ratios(sums: np.ndarray) -> np.ndarray:
    """Baseline's mean over contender's from `(…, 4)`: time and calls of the baseline, time and calls of the other."""
    base_ns, base_calls, own_ns, own_calls = np.moveaxis(sums, -1, 0)
    return np.asarray((base_ns / base_calls) / (own_ns / own_calls))
