"""From raw samples to one row per contender; pure, and done anew whenever a comparison is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from dyx.bench.limit import arithmetic
from dyx.bench.samples import Measurement, Settings, Turn, last_windows, times
from dyx.bench.stats import KEPT_WINDOWS, PERCENTS, Ratio, agree, percentile, speed_ratio, variation
from dyx.gpu import throttling

ENOUGH_CALLS = 100
VARIATION_LIMIT = 0.025


@dataclass(frozen=True)
class Row:
    """One contender's figures, from the last three windows of each run.

    Attributes:
        name: The contender's name.
        backend: Its backend.
        group: Whom it took turns with.
        device: Where it computed.
        baseline: Whether the ratios of its group are against it.
        calls: How many calls the figures come from.
        images_per_s: Images over the time spent in calls.
        percentiles_ms: `"p50"` … to ms per batch, end to end; None where too few calls reach beyond it.
        device_ms: The median on the device alone, without copies; None on a CPU.
        peak_bytes: The most memory its process held on the host.
        ratio: Speed relative to the group's baseline; None for the baseline itself and without one.
        stable: Whether the three windows agree; None of fewer windows.
        variation: The greatest coefficient of variation within a window; None without two calls in one.
        notes: What a reader must know before quoting the figures.
        open_s: From the start of opening it, in a process that has loaded no runtime yet, until it could be called; the
            median over runs, None where no record tells.
        first_call_ms: How long its very first call took; the median over runs, None where no record tells.
        peak_share: Its arithmetic per second as a share of the machine's limit, where that was measured beside it.
    """

    name: str
    backend: str
    group: str
    device: str
    baseline: bool
    calls: int
    images_per_s: float
    percentiles_ms: Mapping[str, float | None]
    device_ms: float | None
    peak_bytes: int
    ratio: Ratio | None
    stable: bool | None
    variation: float | None
    notes: tuple[str, ...]
    open_s: float | None = None
    first_call_ms: float | None = None
    peak_share: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The form shown by `--json`."""
        return asdict(self)


def summarize(measurements: Sequence[Measurement], settings: Settings) -> tuple[Row, ...]:
    """One row per measurement, in their order."""
    baselines = {seen.contender.group: seen for seen in measurements if seen.contender.baseline}
    rows = [_row(seen, baselines.get(seen.contender.group), settings) for seen in measurements]
    best = max((_limit(row, seen, settings) for row, seen in zip(rows, measurements, strict=True)), default=0.0)
    return tuple(_with_share(row, seen, best) for row, seen in zip(rows, measurements, strict=True))


def _limit(row: Row, seen: Measurement, settings: Settings) -> float:
    """Multiply-accumulates per second of the machine's limit; 0 for anybody else."""
    if not seen.contender.limit or seen.contender.macs is None:
        return 0.0
    return row.images_per_s / settings.batch * arithmetic(seen.contender.macs, settings.batch)


def _with_share(row: Row, seen: Measurement, best: float) -> Row:
    if not best or seen.contender.limit or seen.contender.macs is None:
        return row
    return replace(row, peak_share=row.images_per_s * seen.contender.macs / best)


def _row(seen: Measurement, baseline: Measurement | None, settings: Settings) -> Row:
    who = seen.contender
    kept = last_windows(seen.turns, KEPT_WINDOWS)
    windows = [times(turns) for turns in kept]
    calls = [call for window in windows for call in window]
    stable, spread = agree(windows), _greatest_variation(windows)
    return Row(
        name=who.name,
        backend=who.backend,
        group=who.group,
        device=seen.device,
        baseline=who.baseline,
        calls=len(calls),
        images_per_s=settings.batch * len(calls) / (sum(calls) / 1e9),
        percentiles_ms={f"p{percent}": _ms(percentile(calls, percent)) for percent in PERCENTS},
        device_ms=_ms(percentile([call for turns in kept for turn in turns for call in turn.device_ns], 50)),
        peak_bytes=seen.peak_bytes,
        ratio=None if baseline is None or baseline is seen or who.limit else _ratio(kept, baseline, settings.seed),
        stable=stable,
        variation=spread,
        notes=tuple(_notes(len(calls), stable, spread, seen)),
        open_s=_median([warm_up.open_s for warm_up in seen.warm_ups]),
        first_call_ms=_ms(_median([warm_up.first_ns for warm_up in seen.warm_ups])),
    )


def _greatest_variation(windows: Sequence[Sequence[int]]) -> float | None:
    return max((spread for window in windows if (spread := variation(window)) is not None), default=None)


def _median(values: Sequence[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / 1e6


def _ratio(kept: Sequence[Sequence[Turn]], baseline: Measurement, seed: int) -> Ratio | None:
    """Against the baseline's turns of the same rounds."""
    theirs = {(turn.run, turn.round): turn.calls_ns for turn in baseline.turns}
    own = [turn for turns in kept for turn in turns if (turn.run, turn.round) in theirs]
    base = [theirs[turn.run, turn.round] for turn in own]
    return speed_ratio(base, [turn.calls_ns for turn in own], seed, [turn.run for turn in own])


def _notes(calls: int, stable: bool | None, spread: float | None, seen: Measurement) -> list[str]:
    notes = []
    if stable is False:
        notes.append("UNSTABLE")
    if spread is not None and spread > VARIATION_LIMIT:
        notes.append(f"CV {spread:.1%}")
    if calls < ENOUGH_CALLS:
        notes.append(f"{calls} call{'s' * (calls != 1)}")
    reasons = {reason for window in seen.gpu_samples[-KEPT_WINDOWS:] for gpu in window for reason in throttling(gpu)}
    if reasons:
        notes.append(f"throttled: {', '.join(sorted(reasons))}")
    return notes
