"""The page of a benchmark: the table that `dyx bench` prints, and what its raw samples show."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dyx.bench.compare import Comparison
from dyx.bench.report import columns_of, explanation, figure
from dyx.bench.samples import Measurement, WarmUp, last_windows, times
from dyx.bench.stats import AGREE_WITHIN, KEPT_WINDOWS
from dyx.bench.summary import CLOCK_LIMIT, DRIFT_LIMIT, ENOUGH_CALLS, TRANSFER_LIMIT, VARIATION_LIMIT, Row
from dyx.figures import (
    BatchLine,
    CallTimes,
    Speed,
    Track,
    as_svg,
    drift,
    latencies,
    ratios,
    speeds,
    throughput,
    throughput_by_batch,
)
from dyx.report.contenders import hashes_table, opened_with, options_cell
from dyx.report.page import NOTHING, Page, Section, Table, facts_table, told
from dyx.report.profile import profile_section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMED = 3
_MEANING = (
    f"UNSTABLE: the medians of the windows differ by more than {AGREE_WITHIN:.0%}. CV: the greatest coefficient of"
    f" variation within a window, told above {VARIATION_LIMIT:.1%}. Drift: calls became slower (+) or faster (-) in the"
    f" course of the run, told above {DRIFT_LIMIT:.0%} where chance does not explain it. Clock: its medians in the"
    f" windows differ by more than {CLOCK_LIMIT:.0%}. Transfer-bound: computing on the GPU is less than"
    f" {1 - TRANSFER_LIMIT:.0%} of a call, the rest is copies and waiting for them. A number of calls is told below"
    f" {ENOUGH_CALLS}. Ratios of turns that lie side by side stay quotable on a noisy machine; times do not."
)
_LATENCY = (
    "Of calls in the last three windows of each run. Warm-up calls are not among them: they stand under Before"
    " measuring."
)
_BEFORE = (
    "What a process that has just been started waits for. Opening is the import of the runtime, the comparison of"
    " hashes, loading and compiling. The first call often allocates and chooses kernels, and is many times as slow as"
    " later ones: × p50 tells how many. None of these calls is in any other figure."
)
_DRIFT = (
    "A dot is a call, or the mean of some that follow each other. Blue dots are those that figures are taken from,"
    " hollow ones are of earlier windows. Times that rise over the run tell of throttling, or of another program."
)
_BY_BATCH = "Records of one machine, one software and the same model files, which differ in batch size alone."


def comparison_report(comparison: Comparison) -> Page:
    """The page of a benchmark. Raises PackageMissing."""
    return Page(_title(comparison), verdict(comparison), comparison_sections(comparison))


def verdict(comparison: Comparison) -> str:
    """The benchmark in a sentence: how much was measured, where, and the range of ratios."""
    rows = comparison.rows
    found = [row.ratio.value for row in rows if row.ratio is not None]
    measured = f"{len(rows)} measurement{'s' * (len(rows) != 1)} at batch {told(comparison.settings.batch)}"
    spread = f"; {min(found):.2f} to {max(found):.2f} × as fast as the baseline" if found else ""
    return f"{measured} on {comparison.environment['cpu']['model']}{spread}."


def comparison_sections(comparison: Comparison) -> list[Section]:
    """Everything that a record of `dyx bench` tells. Raises PackageMissing."""
    asked = {**asdict(comparison.settings), "method": comparison.method}
    return [
        _ratios_section(comparison),
        Section("Figures", explanation(comparison), tables=_rows_tables(comparison)),
        _notes_section(comparison),
        Section("Throughput", drawings=_drawn(comparison, throughput)),
        Section("Latency", [_LATENCY], _per_group(comparison, _call_times, latencies)),
        profile_section(comparison),
        Section(
            "Over the run", [_DRIFT], _per_group(comparison, _track, drift), tables=[_steadiness_table(comparison)]
        ),
        _before_section(comparison),
        Section(
            "Contenders",
            tables=[
                _contenders_table(comparison.measurements),
                hashes_table([seen.contender for seen in comparison.measurements]),
            ],
        ),
        Section("GPUs while measuring", tables=[_gpu_table(comparison.measurements)]),
        Section("Settings", tables=[facts_table("What was asked, and how it was measured", asked)]),
        Section("Environment", tables=[facts_table("The machine and its software", comparison.environment)]),
    ]


def answer(comparisons: Sequence[Comparison]) -> Figure:
    """The one figure that answers what was asked: ratios, and throughput beneath. Raises PackageMissing."""
    threads = {seen.threads for comparison in comparisons for seen in comparison.measurements}
    rows = [
        _speed(row, _place(seen, comparison, told_threads=len(threads) > 1))
        for comparison in comparisons
        for row, seen in zip(comparison.rows, comparison.measurements, strict=True)
    ]
    return speeds(rows)


def by_batch(comparisons: Sequence[Comparison]) -> Section:
    """Throughput over batch size of comparisons that differ in nothing else; holds nothing where there are none."""
    families: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        families.setdefault(_identity(comparison), []).append(comparison)
    sweeps = [members for members in families.values() if len({each.settings.batch for each in members}) > 1]
    if not sweeps:
        return Section("Throughput by batch size")
    lines = [line for members in sweeps for line in _batch_lines(members)]
    drawings = [as_svg(throughput_by_batch(group, title)) for title, group in _grouped(lines).items()]
    return Section("Throughput by batch size", [_BY_BATCH], drawings, tables=[_batch_table(lines)])


def _title(comparison: Comparison) -> str:
    """Who was compared with whom, at which batch size."""
    rows = comparison.rows
    baselines = dict.fromkeys(row.name for row in rows if row.baseline)
    others = [name for name in dict.fromkeys(row.name for row in rows) if name not in baselines]
    named = ", ".join(others) if len(others) <= _NAMED else f"{len(others)} networks"
    beside = " beside ".join(part for part in (named, ", ".join(baselines)) if part)
    return f"{beside or 'Nothing measured'}, batch {told(comparison.settings.batch)}"


def _place(seen: Measurement, comparison: Comparison, *, told_threads: bool) -> str:
    """What tells one comparison of a sweep from the others."""
    threads = f", {seen.threads} thread{'s' * (seen.threads != 1)}" if told_threads and seen.device == "cpu" else ""
    return f", batch {comparison.settings.batch}{threads}"


def _name(row: Row) -> str:
    return row.name if row.backend == row.group else f"{row.name}, {row.backend}"


def _speed(row: Row, place: str = "") -> Speed:
    value, low, high = (row.ratio.value, row.ratio.low, row.ratio.high) if row.ratio else (None, None, None)
    return Speed(_name(row), f"{row.group}{place}", row.images_per_s, value, low, high, row.baseline)


def _groups(comparison: Comparison) -> list[str]:
    return list(dict.fromkeys(row.group for row in comparison.rows))


def _ratios_section(comparison: Comparison) -> Section:
    if not any(row.ratio for row in comparison.rows):
        return Section("Ratios", ["There was no baseline to compare with."])
    return Section("Ratios", drawings=_drawn(comparison, ratios))


def _drawn(comparison: Comparison, draw: Callable[[list[Speed], list[Speed]], Figure]) -> list[str]:
    """A figure per group, on axes that can be compared."""
    rows = [_speed(row) for row in comparison.rows]
    return [as_svg(draw([row for row in rows if row.group == group], rows)) for group in _groups(comparison)]


def _per_group(
    comparison: Comparison, take: Callable[[Row, Measurement], Any], draw: Callable[[list[Any], str], Figure]
) -> list[str]:
    """A figure per group, of what each contender's samples are taken for."""
    pairs = list(zip(comparison.rows, comparison.measurements, strict=True))
    return [
        as_svg(draw([take(row, seen) for row, seen in pairs if row.group == group], group))
        for group in _groups(comparison)
    ]


def _call_times(row: Row, seen: Measurement) -> CallTimes:
    calls = [call for window in last_windows(seen.turns, KEPT_WINDOWS) for call in times(window)]
    return CallTimes(_name(row), [call / 1e6 for call in calls], row.percentiles_ms)


def _track(row: Row, seen: Measurement) -> Track:
    """Every call that was kept; runs, each of which has a clock of its own, one after another."""
    counted = {(turn.run, turn.window) for window in last_windows(seen.turns, KEPT_WINDOWS) for turn in window}
    at, calls, counts, start, end, run = [], [], [], 0, 0, 0
    for turn in seen.turns:
        if turn.run != run:
            start, run = end, turn.run
        at += [(start + sent) / 1e9 for sent in turn.sent_ns]
        calls += [call / 1e6 for call in turn.calls_ns]
        counts += [(turn.run, turn.window) in counted] * len(turn.sent_ns)
        end = max(end, *(start + done for done in turn.done_ns))
    return Track(_name(row), at, calls, counts)


def _rows_tables(comparison: Comparison) -> list[Table]:
    """A table per group, as `dyx bench` prints it, and who was skipped."""
    skipped = [(each.name, each.backend, each.reason) for each in comparison.skipped]
    tables = [_rows_table(group, comparison) for group in _groups(comparison)]
    return [*tables, Table("Skipped", ("network", "backend", "why"), skipped)]


def _rows_table(group: str, comparison: Comparison) -> Table:
    rows = [row for row in comparison.rows if row.group == group]
    columns = columns_of(rows)
    cells = [[cell(row).replace("\n", ", ") for cell in columns.values()] for row in rows]
    baseline = next((place for place, row in enumerate(rows) if row.baseline), None)
    return Table(group, tuple(columns), cells, tuple(columns)[1:-1], baseline)


def _notes_section(comparison: Comparison) -> Section:
    rows = [(_name(row), row.group, ", ".join(row.notes)) for row in comparison.rows if row.notes]
    text = [*(f"{note}." for note in comparison.notes), *([_MEANING] if rows else [])]
    headings = ("network", "backend", "notes")
    return Section("Notes", text, tables=[Table("To know before a figure is quoted", headings, rows)])


def _before_section(comparison: Comparison) -> Section:
    """Opening, first call and warm-up, a row per contender and run."""
    rows = [
        (
            row.name,
            row.backend,
            told(run),
            figure(warm_up.open_s),
            *_first_call(warm_up, row),
            told(warm_up.calls),
            f"{warm_up.seconds:.2f}",
            warm_up.ended or NOTHING,
        )
        for row, seen in zip(comparison.rows, comparison.measurements, strict=True)
        for run, warm_up in enumerate(seen.warm_ups, 1)
    ]
    figures = ("run", "opening s", "first call ms", "× p50", "warm-up calls", "warm-up s")
    table = Table("Opening, first call, warm-up", ("network", "backend", *figures, "ended by"), rows, figures)
    return Section("Before measuring", [_BEFORE], tables=[table])


def _first_call(warm_up: WarmUp, row: Row) -> tuple[str, str]:
    """In ms, and as a multiple of the median afterwards."""
    usual = row.percentiles_ms["p50"]
    if warm_up.first_ns is None:
        return NOTHING, NOTHING
    first_ms = warm_up.first_ns / 1e6
    return figure(first_ms), NOTHING if usual is None else f"{first_ms / usual:.1f}"


def _contenders_table(measurements: Sequence[Measurement]) -> Table:
    rows = [
        (
            seen.contender.name,
            seen.contender.backend,
            seen.device,
            told(seen.threads),
            options_cell(seen.options),
            told(sum(len(turn.sent_ns) for turn in seen.turns)),
            opened_with(seen.contender),
        )
        for seen in measurements
    ]
    headings = ("network", "backend", "device", "threads", "options", "calls kept", "opened with")
    return Table("Who took part", headings, rows, ("threads", "calls kept"))


def _steadiness_table(comparison: Comparison) -> Table:
    """Trend and clock of each contender, and what its calls spend outside the GPU."""
    rows = [
        (
            *(_name(row), row.group),
            NOTHING if row.drift is None else f"{100 * row.drift:+.1f}",
            NOTHING if row.clock_mhz is None else " to ".join(f"{clock:,.0f}" for clock in row.clock_mhz),
            NOTHING if row.transfer_share is None else f"{100 * row.transfer_share:.0f}",
        )
        for row in comparison.rows
    ]
    figures = ("drift %", "clock MHz", "outside the GPU %")
    return Table(
        "Trend, clock and copies; a dash: nothing stood out, or nothing told",
        ("network", "backend", *figures),
        rows,
        figures,
    )


def _gpu_table(measurements: Sequence[Measurement]) -> Table:
    """What the GPUs said after each window; a table without rows on a CPU."""
    samples = [
        (seen.contender.name, seen.contender.backend, window, gpu)
        for seen in measurements
        for window, gpus in enumerate(seen.gpu_samples, 1)
        for gpu in gpus
    ]
    keys = list(dict.fromkeys(key for *_, gpu in samples for key in gpu))
    rows = [
        (name, backend, told(window), *(told(gpu.get(key)) for key in keys)) for name, backend, window, gpu in samples
    ]
    return Table("Clocks, power and temperature by window", ("network", "backend", "window", *keys), rows)


def _identity(comparison: Comparison) -> str:
    """What two comparisons share that differ in batch size alone."""
    surroundings = comparison.environment
    alike = {key: surroundings.get(key) for key in ("os", "packages", "memory_bytes")}
    machine = {key: (surroundings.get("cpu") or {}).get(key) for key in ("model", "usable_cores")}
    names = [gpu.get("name") for gpu in surroundings.get("gpus") or ()]
    contenders = sorted(map(_contender_identity, comparison.measurements))
    return json.dumps([alike, machine, names, contenders], sort_keys=True, default=str)


def _contender_identity(seen: Measurement) -> str:
    who = seen.contender
    facts: Mapping[str, Any] = {"threads": seen.threads, "options": seen.options, "files": who.sha256}
    return json.dumps([who.name, who.backend, who.group, seen.device, facts], sort_keys=True, default=str)


def _batch_lines(comparisons: Sequence[Comparison]) -> list[tuple[str, BatchLine]]:
    """Group and line per contender; of two comparisons at one batch size, the later one counts."""
    seen: dict[tuple[str, str], dict[int, float]] = {}
    for comparison in comparisons:
        for row in comparison.rows:
            seen.setdefault((row.group, _name(row)), {})[comparison.settings.batch] = row.images_per_s
    return [
        (group, BatchLine(name, sorted(speed), [speed[size] for size in sorted(speed)]))
        for (group, name), speed in seen.items()
    ]


def _grouped(lines: Sequence[tuple[str, BatchLine]]) -> dict[str, list[BatchLine]]:
    groups: dict[str, list[BatchLine]] = {}
    for group, line in lines:
        groups.setdefault(group, []).append(line)
    return groups


def _batch_table(lines: Sequence[tuple[str, BatchLine]]) -> Table:
    sizes = sorted({size for _, line in lines for size in line.batches})
    headings = tuple(f"batch {told(size)}" for size in sizes)
    rows = []
    for group, line in lines:
        speed = dict(zip(line.batches, line.images_per_s, strict=True))
        rows.append((line.name, group, *(figure(speed.get(size)) for size in sizes)))
    return Table("Images per second", ("network", "backend", *headings), rows, headings)
