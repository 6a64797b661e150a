"""From raw samples to one row per contender; pure, and done anew whenever a comparison is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from dyx.bench.limit import arithmetic
from dyx.bench.samples import Measurement, Settings, Turn, last_windows, times
from dyx.bench.stats import KEPT_WINDOWS, PERCENTS, Ratio, agree, drift, percentile, speed_ratio, variation
from dyx.gpu import throttling

ENOUGH_CALLS = 100
"""The 99th percentile wants so many."""

VARIATION_LIMIT = 0.025
"""Of the coefficient of variation. trtexec warns from 1 % on, of time on the GPU alone; calls end to end vary more."""

DRIFT_LIMIT = 0.05
"""Half of what windows may differ by, since a trend goes on where noise returns. None of the usual tools tests it."""

CLOCK_LIMIT = 0.05
"""Where computing is all that a call does, its time goes as the clock does: this much is a drift."""

TRANSFER_LIMIT = 0.5
"""trtexec warns where a copy takes as long as computing does: half of both."""


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
        drift: By how much calls were slower at the end of what figures are taken from than at its begin, as a share;
            None where no trend stands out from chance.
        clock_mhz: The lowest and the highest clock of the windows, each window's median: of the GPU where that
            computed, else of the CPU; None where nothing told it.
        transfer_share: The share of a call that is not computing on the GPU: copies, and waiting for them; None on a
            CPU.
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
    drift: float | None = None
    clock_mhz: tuple[float, float] | None = None
    transfer_share: float | None = None
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
    device_ns = percentile([call for turns in kept for turn in turns for call in turn.device_ns], 50)
    row = Row(
        name=who.name,
        backend=who.backend,
        group=who.group,
        device=seen.device,
        baseline=who.baseline,
        calls=len(calls),
        images_per_s=settings.batch * len(calls) / (sum(calls) / 1e9),
        percentiles_ms={f"p{percent}": _ms(percentile(calls, percent)) for percent in PERCENTS},
        device_ms=_ms(device_ns),
        peak_bytes=seen.peak_bytes,
        ratio=None if baseline is None or baseline is seen or who.limit else _ratio(kept, baseline, settings.seed),
        stable=agree(windows),
        variation=_greatest_variation(windows),
        notes=(),
        open_s=_median([warm_up.open_s for warm_up in seen.warm_ups]),
        first_call_ms=_ms(_median([warm_up.first_ns for warm_up in seen.warm_ups])),
        drift=drift(_by_run(kept)),
        clock_mhz=_clock_mhz(seen, kept),
        transfer_share=None if device_ns is None else 1 - device_ns / median(calls),
    )
    return replace(row, notes=tuple(_notes(row, seen)))


def _by_run(kept: Sequence[Sequence[Turn]]) -> list[list[float]]:
    """The median call of every turn, run by run."""
    runs: dict[int, list[float]] = {}
    for turn in (turn for turns in kept for turn in turns):
        runs.setdefault(turn.run, []).append(median(turn.calls_ns))
    return list(runs.values())


def _clock_mhz(seen: Measurement, kept: Sequence[Sequence[Turn]]) -> tuple[float, float] | None:
    if seen.device == "gpu":
        clocks = [_fastest(window) for window in seen.gpu_samples[-KEPT_WINDOWS:]]
    else:
        clocks = [_median([turn.cpu_mhz for turn in turns]) for turns in kept]
    told = [clock for clock in clocks if clock]
    return (min(told), max(told)) if told else None


def _fastest(gpus: Sequence[Mapping[str, Any]]) -> float | None:
    """The clock of the GPU that computes; others are idle, and slower."""
    return max((gpu["sm_clock_mhz"] for gpu in gpus if gpu.get("sm_clock_mhz")), default=None)


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


def _notes(row: Row, seen: Measurement) -> list[str]:
    """What a reader must know before quoting the figures; the limits stand above."""
    low, high = row.clock_mhz or (1.0, 1.0)
    reasons = {reason for window in seen.gpu_samples[-KEPT_WINDOWS:] for gpu in window for reason in throttling(gpu)}
    notes = {
        "UNSTABLE": row.stable is False,
        f"CV {row.variation or 0:.1%}": (row.variation or 0) > VARIATION_LIMIT,
        f"drift {row.drift or 0:+.1%}": abs(row.drift or 0) > DRIFT_LIMIT,
        f"clock {high / low - 1:.1%}": high / low - 1 > CLOCK_LIMIT,
        f"{row.calls} call{'s' * (row.calls != 1)}": row.calls < ENOUGH_CALLS,
        "transfer-bound": (row.transfer_share or 0) > TRANSFER_LIMIT,
        f"throttled: {', '.join(sorted(reasons))}": bool(reasons),
    }
    return [note for note, holds in notes.items() if holds]
