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
"""Of the medians of the last three windows: Triton's perf_analyzer calls a measurement stable by this rule."""

LEAST_PAIRS = 3
RESAMPLES = 10_000
_RESAMPLES_AT_ONCE = 1_000
_INTERVAL_PERCENTS = (2.5, 97.5)
_LEAST_TURNS = 6
"""With fewer, not even times that rise with every single turn pass the test below."""

_TREND_Z = 2.576
"""Two-sided 1 %: of 100 steady contenders, one may be said to drift."""

_MOST_MEMORY = 0.5
"""Noise with a longer memory looks just like times that rise along a curve: twelve that each rise must count."""


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


def drift(runs: Sequence[Sequence[float]]) -> float | None:
    """By how much times rose over a run, as a share of what they were at its begin; below zero where they fell.

    The slope is Theil and Sen's, of logarithms over turns: a few odd turns do not bend it. It counts only where the
    test of Mann and Kendall, its score added up over runs, finds a trend. Neighbouring turns resemble each other on a
    machine that others use as well, which that test takes for a trend: its variance is widened as by Hamed and Rao
    (1998), for the correlation from each turn to the next that the ranks of the residuals have.

    Args:
        runs: The time of every turn of each run, in order.

    Returns None where chance may have made it, and of runs with fewer than six turns.
    """
    logs = [np.log(times) for times in runs if len(times) >= _LEAST_TURNS]
    if not logs:
        return None
    slope = float(np.median(np.concatenate([_slopes(times) for times in logs])))
    score = abs(sum(np.sign(_rises(times)).sum() for times in logs))
    variance = sum(_score_variance(times, slope) for times in logs)
    return float(np.expm1(slope)) if score - 1 > _TREND_Z * variance**0.5 else None


def _rises(values: np.ndarray) -> np.ndarray:
    """By how much each value is above each one before it."""
    earlier, later = np.triu_indices(len(values), 1)
    return np.asarray(values[later] - values[earlier])


def _slopes(values: np.ndarray) -> np.ndarray:
    """The slope between each two values, per whole run."""
    return np.asarray(_rises(values) / _rises(np.linspace(0, 1, len(values))))


def _score_variance(values: np.ndarray, slope: float) -> float:
    """Of Mann and Kendall's score, where there is no trend but what each turn has from the one before."""
    count = len(values)
    behind = np.arange(1, count)
    widened = 1 + 2 * float(np.sum((1 - behind / count) * _memory(values, slope) ** behind))
    return count * (count - 1) * (2 * count + 5) / 18 * widened


def _memory(values: np.ndarray, slope: float) -> float:
    """The correlation of each turn with the next, apart from the trend."""
    left = values - slope * np.linspace(0, 1, len(values))
    ranks = np.sign(left[:, None] - left).sum(axis=1)
    seen = float(ranks[1:] @ ranks[:-1] / max(ranks @ ranks, 1))
    # Around a line that was fitted to them, few values seem less alike than they are: by (2 + 4 r) / n.
    return float(np.clip((len(values) * seen + 2) / (len(values) - 4), 0, _MOST_MEMORY))


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
