"""A comparison as tables to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dyx.bench.compare import Comparison
from dyx.bench.samples import Measurement, WarmUp
from dyx.bench.stats import PERCENTS
from dyx.bench.summary import Row

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

NOTHING = "–"
_FIGURES = 3
_LONGEST_NOTE = 14
_WORDS = ("network", "notes")
_METHOD = (
    "Timed: end to end on the host, input array in to float32 array out{copies}; closed loop, one process per"
    " network and backend, taking turns. images/s = images ÷ time in calls. × baseline = ratio of mean times per"
    " call, [95 % bootstrap interval over pairs of turns]. MiB = peak memory of the process, input included."
)


def tabulate(comparison: Comparison) -> Group:
    """One table per group, who was skipped, and beneath them what was timed and how."""
    from rich.console import Group
    from rich.text import Text

    groups = list(dict.fromkeys(row.group for row in comparison.rows))
    tables = [_table(group, comparison) for group in groups]
    if comparison.skipped:
        tables.append(_skipped_table(comparison))
    return Group(*tables, *(Text(line) for line in explanation(comparison)))


def explanation(comparison: Comparison) -> list[str]:
    """The lines beneath the tables: batch, time, warm-up, threads, and what the columns mean."""
    settings, told = comparison.settings, comparison.environment
    on_gpu = any(row.device == "gpu" for row in comparison.rows)
    copies = ", copies to and from the device included (dev: on the device alone, without them)" if on_gpu else ""
    places = [told["cpu"]["model"], *(gpu["name"] for gpu in told["gpus"] if on_gpu)]
    runs = 1 + max((turn.run for seen in comparison.measurements for turn in seen.turns), default=0)
    again = f", {runs} runs with processes of their own" if runs > 1 else ""
    return [
        *(f"Note: {note}." for note in comparison.notes),
        f"Batch {settings.batch}, {settings.seconds:g} s or more a side in windows{again}; {', '.join(places)}.",
        *_per_contender(comparison.measurements),
        _METHOD.format(copies=copies),
    ]


def tabulate_all(comparisons: Sequence[Comparison]) -> Group:
    """The one comparison as `tabulate` shows it; several in one table, a row per contender, batch and threads."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    if len(comparisons) == 1:
        return tabulate(comparisons[0])
    found = sorted(_all_rows(comparisons), key=lambda entry: (entry[0].backend, entry[0].name))
    columns = _sweep_columns(found)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for name in columns:
        words = name in ("network", "backend", "notes")
        table.add_column(name, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    for entry in found:
        cells = (Text(cell(*entry)) for cell in columns.values())
        table.add_row(*cells, style="bold" if entry[0].baseline else None)
    notes = dict.fromkeys(f"Note: {note}." for comparison in comparisons for note in comparison.notes)
    return Group(table, *map(Text, notes), Text(explanation(comparisons[0])[-1]))


_Entry = tuple[Row, Measurement, int]


def _sweep_columns(found: Sequence[_Entry]) -> dict[str, Callable[[Row, Measurement, int], str]]:
    """Heading to what stands under it; threads only where they differ, so that names stay whole on a terminal of 80."""
    columns: dict[str, Callable[[Row, Measurement, int], str]] = {
        "network": lambda row, _seen, _batch: row.name,
        "backend": lambda row, _seen, _batch: row.backend,
    }
    if len({seen.threads for _, seen, _ in found}) > 1:
        columns["threads"] = lambda row, seen, _batch: NOTHING if row.device == "gpu" else str(seen.threads)
    columns["batch"] = lambda _row, _seen, batch: str(batch)
    columns["images/s"] = lambda row, _seen, _batch: figure(row.images_per_s)
    columns["p50 ms"] = lambda row, _seen, _batch: figure(row.percentiles_ms["p50"])
    if any(row.percentiles_ms["p99"] is not None for row, _, _ in found):
        columns["p99"] = lambda row, _seen, _batch: figure(row.percentiles_ms["p99"])
    if any(row.peak_share is not None for row, _, _ in found):
        columns["% peak"] = lambda row, _seen, _batch: (
            NOTHING if row.peak_share is None else f"{100 * row.peak_share:.0f}"
        )
    columns["× baseline"] = lambda row, _seen, _batch: "baseline" if row.baseline else _ratio(row)
    columns["notes"] = lambda row, _seen, _batch: "\n".join(row.notes)
    return columns


def _all_rows(comparisons: Sequence[Comparison]) -> list[_Entry]:
    return [
        (row, seen, comparison.settings.batch)
        for comparison in comparisons
        for row, seen in zip(comparison.rows, comparison.measurements, strict=True)
    ]


def _per_contender(measurements: Sequence[Measurement]) -> list[str]:
    """Threads, options and warm-up; contenders that had the same share a line, and are named where others differ."""
    alike: dict[tuple[str, str], list[Measurement]] = {}
    for seen in measurements:
        alike.setdefault((seen.contender.backend, _settings(seen)), []).append(seen)
    lines = Counter(backend for backend, _ in alike)
    return [
        f"{backend}{_names(members) if lines[backend] > 1 else ''}: {settings}; {_warm_up(members)}."
        for (backend, settings), members in alike.items()
    ]


def _settings(seen: Measurement) -> str:
    place = "GPU" if seen.device == "gpu" else f"{seen.threads} thread{'s' * (seen.threads != 1)}"
    return ", ".join([place, *(f"{key}={value}" for key, value in seen.options.items())])


def _names(members: Sequence[Measurement]) -> str:
    return f" ({', '.join(seen.contender.name for seen in members)})"


def _warm_up(members: Sequence[Measurement]) -> str:
    warm_ups = [warm_up for seen in members for warm_up in seen.warm_ups]
    return _least(warm_ups) + _most(warm_ups)


def _least(warm_ups: Sequence[WarmUp]) -> str:
    calls, seconds = min(each.calls for each in warm_ups), min(each.seconds for each in warm_ups)
    return f"warmed up by {calls} call{'s' * (calls != 1)} and {seconds:.1f} s at the least"


def _most(warm_ups: Sequence[WarmUp]) -> str:
    """What a process that has just been started waits for; nothing where no record tells."""
    opened = [each.open_s for each in warm_ups if each.open_s is not None]
    first = [each.first_ns for each in warm_ups if each.first_ns is not None]
    if not opened or not first:
        return ""
    return f"; opened in {figure(max(opened))} s, first call {figure(max(first) / 1e6)} ms at the most"


def _table(group: str, comparison: Comparison) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = [row for row in comparison.rows if row.group == group]
    columns = columns_of(rows)
    # One space between columns, so that usual names stay whole on a terminal of 80.
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, title=Text(group), title_justify="left")
    for heading in columns:
        if heading in _WORDS:
            # Too narrow a terminal folds names, never figures; and it must not crop a warning.
            least = max(len(word) for row in rows for word in row.notes or [""]) if heading == "notes" else 1
            table.add_column(heading, overflow="fold", min_width=min(least, _LONGEST_NOTE))
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell(row)) for cell in columns.values()), style="bold" if row.baseline else None)
    return table


def columns_of(rows: Sequence[Row]) -> dict[str, Callable[[Row], str]]:
    """Heading to what stands under it; columns that would tell nothing are left out."""
    columns: dict[str, Callable[[Row], str]] = {"network": _network}
    columns["images/s"] = lambda row: figure(row.images_per_s)
    for percent in PERCENTS:
        columns[f"p{percent}{' ms' if percent == PERCENTS[0] else ''}"] = _percentile(f"p{percent}")
    if any(row.device_ms is not None for row in rows):
        columns["dev ms"] = lambda row: figure(row.device_ms)
    if any(row.peak_share is not None for row in rows):
        columns["% peak"] = lambda row: NOTHING if row.peak_share is None else f"{100 * row.peak_share:.0f}"
    columns["MiB"] = lambda row: f"{row.peak_bytes / 2**20:.0f}" if row.peak_bytes else NOTHING
    columns["× baseline"] = lambda row: "baseline" if row.baseline else _ratio(row)
    columns["notes"] = lambda row: "\n".join(row.notes)
    return columns


def _network(row: Row) -> str:
    """Its name, and beneath it the backend where that is not the group's: a column of its own would not fit."""
    return row.name if row.backend == row.group else f"{row.name}\n{row.backend}"


def _percentile(key: str) -> Callable[[Row], str]:
    return lambda row: figure(row.percentiles_ms[key])


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return NOTHING
    value, low, high = row.ratio.value, row.ratio.low, row.ratio.high
    interval = f" [{low:.2f} {high:.2f}]" if low is not None and high is not None else ""
    return f"{value:.2f}{interval}"


def figure(value: float | None) -> str:
    """Three figures, none of them an exponent; a dash for what could not be told."""
    if value is None:
        return NOTHING
    whole = len(str(int(value)))
    return f"{value:.{max(0, _FIGURES - whole)}f}"


def _skipped_table(comparison: Comparison) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("network", "backend", "why", box=box.SIMPLE_HEAD, pad_edge=False, title="skipped")
    table.title_justify = "left"
    for skipped in comparison.skipped:
        table.add_row(*map(Text, (skipped.name, skipped.backend, skipped.reason)))
    return table
