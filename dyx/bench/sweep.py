"""Several comparisons in one go: batch sizes and numbers of threads, each as often as asked, one after the other."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dyx.bench.compare import Comparison, bench
from dyx.bench.contender import Contender, Skipped
from dyx.bench.measure import Progress, within
from dyx.bench.pool import pool, sweep_json
from dyx.bench.profile import profiled
from dyx.bench.summary import Row
from dyx.errors import BenchFailed, InvalidOption, RatioMissed
from dyx.folder import write_file_whole

_OUT_OF_MEMORY = ("bad_alloc", "memoryerror", "out of memory", "failed to allocate", "cannot allocate", "bfcarena")


@dataclass(frozen=True)
class Match:
    """One comparison of a sweep.

    Attributes:
        contenders: Who takes part.
        skipped: Who could not.
        batch: Images per call.
    """

    contenders: Sequence[Contender]
    skipped: Sequence[Skipped]
    batch: int


@dataclass(frozen=True)
class Plan:
    """What a sweep measures.

    Attributes:
        batches: Images per call, one comparison each.
        seconds: How long each side is measured at the least.
        runs: How often each comparison is made, with new processes each time.
        profile: Whether each contender is profiled, once, after all its runs.
    """

    batches: tuple[int, ...] = (512,)
    seconds: float = 3.0
    runs: int = 1
    profile: bool = False

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise InvalidOption("--runs", self.runs, "a number from 1 up")


def sweep(matches: Sequence[Match], plan: Plan, progress: Progress | None = None) -> tuple[Comparison, ...]:
    """One comparison after the other.

    A batch that does not fit into memory is halved until one fits, and the comparison says so. After Ctrl-C, what was
    measured so far is given back, marked; where that is nothing, KeyboardInterrupt goes on.

    Args:
        matches: Who is compared with whom, at which batch size.
        plan: How long, and how often.
        progress: Told what goes on.

    Raises:
        InvalidOption, BenchFailed.
    """
    found: list[Comparison] = []
    for place, match in enumerate(matches):
        tell = within(progress, place, len(matches), f"batch {match.batch}  " if len(matches) > 1 else "")
        try:
            comparison = _runs(match, plan, tell)
        except KeyboardInterrupt:
            if not found:
                raise
            return (*found[:-1], found[-1].noted("interrupted: later comparisons are missing"))
        if not any(_same(comparison, other) for other in found):  # halved to a batch that was asked for as well
            found.append(comparison)
        if comparison.interrupted:
            break
    return tuple(found)


def _runs(match: Match, plan: Plan, tell: Progress) -> Comparison:
    """One comparison, made as often as asked."""
    made: list[Comparison] = []
    for run in range(plan.runs):
        told = within(tell, run, plan.runs + plan.profile, f"run {run + 1}  " if plan.runs > 1 else "")
        try:
            fitting = match if not made else replace(match, batch=made[0].settings.batch)
            made.append(_fitting(fitting, plan, told))
        except KeyboardInterrupt:
            if not made:
                raise
            made[-1] = made[-1].noted(f"interrupted: {run} of {plan.runs} runs were made")
        if made[-1].interrupted:
            break
    # A run that was cut short may lack whole groups, and counts only where it does not.
    joined = pool(made)[0]
    notes = tuple(dict.fromkeys(note for each in made for note in each.notes))
    whole = replace(joined, notes=notes, interrupted=any(each.interrupted for each in made))
    if not plan.profile or whole.interrupted:
        return whole
    return profiled(whole, within(tell, plan.runs, plan.runs + 1))


def _fitting(match: Match, plan: Plan, tell: Progress) -> Comparison:
    """A comparison at the batch asked for, or at the largest half of it, quarter … that fits. Raises BenchFailed."""
    size = match.batch
    while True:
        try:
            comparison = bench(match.contenders, batch=size, seconds=plan.seconds, skipped=match.skipped, progress=tell)
        except BenchFailed as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            size //= 2
        else:
            halved = f"batch {match.batch} did not fit into memory"
            return comparison if size == match.batch else comparison.noted(halved)


def is_out_of_memory(error: BenchFailed) -> bool:
    """Whether a worker failed for want of memory, as far as its words tell."""
    words = str(error).lower()
    return any(sign in words for sign in _OUT_OF_MEMORY)


def _same(one: Comparison, other: Comparison) -> bool:
    return one.settings.batch == other.settings.batch and [each.contender for each in one.measurements] == [
        each.contender for each in other.measurements
    ]


def save(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write raw samples of comparisons as one record, then the same with the figures. Raises OutputUnwritable."""
    for raw in (True, False):
        write_file_whole(path, (json.dumps(sweep_json(comparisons, raw=raw)) + "\n").encode())


def save_csv(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write one line of figures per contender and comparison. Raises OutputUnwritable."""
    rows = [_flat(row, comparison, place) for comparison in comparisons for place, row in enumerate(comparison.rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["network"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file_whole(path, text.getvalue().encode())


def _flat(row: Row, comparison: Comparison, place: int) -> dict[str, Any]:
    ratio = row.ratio
    return {
        "network": row.name,
        "backend": row.backend,
        "device": row.device,
        "threads": comparison.measurements[place].threads,
        "batch": comparison.settings.batch,
        "baseline": row.baseline,
        "calls": row.calls,
        "images_per_s": row.images_per_s,
        **{f"{key}_ms": value for key, value in row.percentiles_ms.items()},
        "device_ms": row.device_ms,
        "drift": row.drift,
        "open_s": row.open_s,
        "first_call_ms": row.first_call_ms,
        "peak_bytes": row.peak_bytes,
        "ratio": ratio and ratio.value,
        "ratio_low": ratio and ratio.low,
        "ratio_high": ratio and ratio.high,
        "notes": "; ".join(row.notes),
    }


def check_ratios(comparisons: Sequence[Comparison], least: float) -> None:
    """Raises RatioMissed where a contender is slower than so many times its baseline, or nothing was compared.

    References, which are there to be far slower, do not count.
    """
    missed, seen = [], 0
    for comparison in comparisons:
        for row, measurement in zip(comparison.rows, comparison.measurements, strict=True):
            if row.ratio is None or measurement.contender.reference:
                continue
            seen += 1
            if row.ratio.value < least:
                batch = comparison.settings.batch
                missed.append(f"{row.name} on {row.backend} at batch {batch}: {row.ratio.value:.3f}")
    if missed or not seen:
        raise RatioMissed(least, missed)
