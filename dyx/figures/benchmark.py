"""Figures of a benchmark: ratios with their intervals, throughput, latency, how times moved over a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from dyx.figures.canvas import (
    INK,
    LINES,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    TEXT_SIZE,
    draw_lines,
    new_figure,
    only_words,
    shortened,
    style_axes,
)
from dyx.figures.rows import Line, draw_limit, lay_rows, mark_of, rows_figure, rows_height, set_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BINS = 48
_LINEAR_UP_TO = 3.0
"""Times of one figure stand on a logarithmic axis where the longest is more than this many times the shortest."""
_MOST_DOTS = 150
_STRIP_HEIGHT, _AROUND_STRIPS = 0.72, 0.55
_GROUPS_A_ROW = 3
_FIGURES = 3


@dataclass(frozen=True)
class Speed:
    """How fast one network is on one backend.

    Attributes:
        name: Of the network, and of the backend where that is not the group's.
        group: Whom it took turns with.
        images_per_s: Images over time in calls.
        ratio: Speed relative to the group's baseline; None for the baseline itself and without one.
        low: Lower end of the ratio's interval; None where there were too few pairs for one.
        high: Its upper end.
        baseline: Whether it is the baseline.
    """

    name: str
    group: str
    images_per_s: float
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    baseline: bool = False


@dataclass(frozen=True)
class CallTimes:
    """How long calls took.

    Attributes:
        name: Of the network, and of the backend where that is not the group's.
        calls_ms: One entry per call that figures are taken from, in ms.
        percentiles_ms: `"p50"` … to ms; None where there were too few calls for one.
    """

    name: str
    calls_ms: Sequence[float]
    percentiles_ms: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Track:
    """How call times moved over a run.

    Attributes:
        name: Of the network, and of the backend where that is not the group's.
        at_s: When each call was sent, in s.
        calls_ms: How long each took, in ms.
        counted: One per call: whether figures are taken from it; earlier windows only led there.
    """

    name: str
    at_s: Sequence[float]
    calls_ms: Sequence[float]
    counted: Sequence[bool]


@dataclass(frozen=True)
class BatchLine:
    """Throughput of one network on one backend over batch sizes, both in rising order of size."""

    name: str
    batches: Sequence[int]
    images_per_s: Sequence[float]


def speeds(rows: Sequence[Speed]) -> Figure:
    """The one figure that answers a benchmark: a panel per group, three to a row, ratios above and throughput beneath.

    Raises PackageMissing.
    """
    groups = list(_by_group(rows).values())
    if not groups:
        return only_words("Nothing was measured.")
    draw = [_draw_ratios, _draw_throughput] if any(row.ratio is not None for row in rows) else [_draw_throughput]
    columns = min(len(groups), _GROUPS_A_ROW)
    blocks = ceil(len(groups) / columns)
    height = blocks * len(draw) * rows_height(max(map(len, groups)))
    figure = new_figure(PANEL_WIDTH * columns, height, "Speed relative to the baseline, and throughput, by group")
    places = figure.subplots(blocks * len(draw), columns, squeeze=False)
    for number in range(blocks * columns):
        for kind, draw_panel in enumerate(draw):
            axes = places[number // columns * len(draw) + kind, number % columns]
            if number < len(groups):
                draw_panel(axes, groups[number], rows)
            else:
                axes.remove()
    return figure


def ratios(rows: Sequence[Speed], among: Sequence[Speed] = ()) -> Figure:
    """Speed of one group relative to its baseline, which stands at 1, with 95 % intervals.

    Args:
        rows: From top to bottom.
        among: All rows whose ratios the axis has room for, so that figures of several groups can be compared.

    Raises PackageMissing.
    """
    if not any(row.ratio is not None for row in rows):
        return only_words("Nothing was compared with a baseline.")
    figure = rows_figure(len(rows), f"Speed relative to the baseline on {rows[0].group}, with 95 % intervals")
    _draw_ratios(figure.subplots(), rows, among or rows)
    return figure


def throughput(rows: Sequence[Speed], among: Sequence[Speed] = ()) -> Figure:
    """Images per second of one group; `among` as for `ratios`. Raises PackageMissing."""
    if not rows:
        return only_words("Nothing was measured.")
    figure = rows_figure(len(rows), f"Throughput on {rows[0].group}")
    _draw_throughput(figure.subplots(), rows, among or rows)
    return figure


def latencies(times: Sequence[CallTimes], title: str, of: str = "call") -> Figure:
    """How times are distributed: a histogram per row, on one axis, with percentiles marked.

    Args:
        times: From top to bottom.
        title: What they have in common.
        of: What took each time.

    Raises PackageMissing.
    """
    shown = [one for one in times if len(one.calls_ms)]
    if not shown:
        return only_words("No call was measured.")
    figure = rows_figure(len(shown), f"Distribution of times per {of}: {title}")
    axes = figure.subplots()
    low = min(min(one.calls_ms) for one in shown)
    high = max(max(one.calls_ms) for one in shown)
    edges = _bins(axes, low, high)
    lines = [Line(one.name, _percentiles(one)) for one in shown]
    lay_rows(axes, f"{title}: ms per {of}", "ms; marks: p50, p90, p95, p99", lines)
    for row, one in enumerate(shown):
        _draw_times(axes, mark_of(row) + 0.18, one, edges)
    return figure


def drift(tracks: Sequence[Track], title: str) -> Figure:
    """Call times over a run, a strip per row: blue is what figures are taken from, hollow what went before.

    A dot is a call, or the mean of some that follow each other where there are many. Raises PackageMissing.
    """
    shown = [track for track in tracks if len(track.calls_ms)]
    if not shown:
        return only_words("No call was measured.")
    height = _STRIP_HEIGHT * len(shown) + _AROUND_STRIPS
    figure = new_figure(PANEL_WIDTH, height, f"Call times over the run: {title}")
    places = figure.subplots(len(shown), 1, sharex=True, squeeze=False).ravel()
    for axes, track in zip(places, shown, strict=True):
        _draw_track(axes, track)
    for axes in places[:-1]:
        axes.set_xlabel("")
        axes.tick_params(labelbottom=False)
    figure.suptitle(f"{title}: ms per call", x=0.01, ha="left", color=INK, fontsize=TEXT_SIZE + 1, parse_math=False)
    return figure


def throughput_by_batch(lines: Sequence[BatchLine], title: str) -> Figure:
    """Images per second over batch size. Raises PackageMissing."""
    from matplotlib.ticker import FixedLocator, NullLocator

    if not lines:
        return only_words("Nothing was measured.")
    figure = new_figure(PANEL_WIDTH, PANEL_HEIGHT, f"Throughput by batch size: {title}")
    axes = figure.subplots()
    style_axes(axes, f"{title}: images/s", "batch size")
    draw_lines(axes, {line.name: (line.batches, line.images_per_s) for line in lines})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sorted({float(size) for line in lines for size in line.batches})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda size, _place: f"{size:g}")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=INK, alpha=0.15)
    return figure


def _by_group(rows: Sequence[Speed]) -> dict[str, list[Speed]]:
    groups: dict[str, list[Speed]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return groups


def _draw_ratios(axes: Axes, rows: Sequence[Speed], among: Sequence[Speed]) -> None:
    """A dot per row, its interval as a line, and a line at 1."""
    ends = [end for row in among for end in (row.ratio, row.low, row.high) if end is not None] + [1.0]
    room = 0.06 * (max(ends) - min(ends)) or 0.1
    axes.set_xlim(min(ends) - room, max(ends) + room)
    lay_rows(axes, f"{rows[0].group}: × baseline", "× as fast as the baseline", [_ratio_line(row) for row in rows])
    draw_limit(axes, 1.0, len(rows), "dashed")
    for place, row in enumerate(rows):
        height = mark_of(place)
        if row.baseline:
            axes.plot([1.0], [height], marker="D", markersize=4, color=INK)
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [height] * 2, color=LINES[0], linewidth=2.5, solid_capstyle="butt")
        if row.ratio is not None:
            axes.plot([row.ratio], [height], marker="o", markersize=5, color=LINES[0])


def _ratio_line(row: Speed) -> Line:
    if row.ratio is None:
        return Line(row.name, "baseline" if row.baseline else "–")
    interval = "" if row.low is None or row.high is None else f" [{row.low:.2f} {row.high:.2f}]"
    return Line(row.name, f"{row.ratio:.2f}{interval}")


def _draw_throughput(axes: Axes, rows: Sequence[Speed], among: Sequence[Speed]) -> None:
    """A bar per row from zero; the baseline's is grey."""
    axes.set_xlim(0, 1.04 * max(row.images_per_s for row in among))
    lines = [Line(f"{row.name}{' (baseline)' if row.baseline else ''}", _figure(row.images_per_s)) for row in rows]
    lay_rows(axes, f"{rows[0].group}: images/s", "images/s", lines)
    for place, row in enumerate(rows):
        colour, strength = (INK, 0.45) if row.baseline else (LINES[0], 1.0)
        axes.barh(mark_of(place), row.images_per_s, height=0.24, color=colour, alpha=strength)


def _figure(value: float) -> str:
    """Three figures, none of them an exponent."""
    return f"{value:,.{max(0, _FIGURES - len(str(int(value))))}f}"


def _percentiles(times: CallTimes) -> str:
    median = times.percentiles_ms.get("p50")
    return "" if median is None else f"p50 {_figure(median)}"


def _bins(axes: Axes, low: float, high: float) -> np.ndarray:
    """Edges `(49,)` over a range, even on the axis, which is logarithmic where the range is wide."""
    if low > 0 and high / low > _LINEAR_UP_TO:
        set_log(axes, low * 0.95, high * 1.05)
        return np.geomspace(low, high, _BINS + 1)
    room = 0.04 * (high - low) or 0.05 * high or 1.0
    axes.set_xlim(low - room, high + room)
    return np.linspace(low - room, high + room, _BINS + 1)


def _draw_times(axes: Axes, base: float, times: CallTimes, edges: np.ndarray) -> None:
    """A histogram that stands on `base`, the highest bin of each row as high as those of others."""
    counts, _ = np.histogram(times.calls_ms, edges)
    heights = 0.34 * counts / max(counts.max(), 1)
    axes.stairs(base - heights, edges, baseline=base, fill=True, color=LINES[0], alpha=0.75)
    axes.plot(edges[[0, -1]], [base] * 2, color=INK, linewidth=0.5, alpha=0.5)
    for name, value in times.percentiles_ms.items():
        if value is not None:
            top = 0.36 if name == "p50" else 0.2
            axes.plot([value] * 2, [base + 0.04, base - top], color=INK, linewidth=1.6 if name == "p50" else 1)


def _draw_track(axes: Axes, track: Track) -> None:
    from matplotlib.ticker import MaxNLocator

    style_axes(axes, "", "s from the start")
    axes.set_title(shortened(track.name), color=INK, fontsize=TEXT_SIZE, loc="left", parse_math=False)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.grid(axis="y", color=INK, alpha=0.15)
    at, calls, counted = _thinned(track)
    median = float(np.median(np.asarray(track.calls_ms)[np.asarray(track.counted, bool)]))
    axes.axhline(median, color=INK, linewidth=0.8, alpha=0.6)
    axes.plot(at[counted], calls[counted], linestyle="", marker="o", markersize=2, color=LINES[0])
    before = ~counted
    axes.plot(at[before], calls[before], linestyle="", marker="o", markersize=2.5, color=INK, markerfacecolor="none")
    low, high = min(calls.min(), 0.95 * median), max(calls.max(), 1.05 * median)
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _thinned(track: Track) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, lengths and whether they count; means of calls that follow each other where there are many."""
    step = -(-len(track.calls_ms) // _MOST_DOTS)
    starts = np.arange(0, len(track.calls_ms), step)
    sizes = np.diff([*starts, len(track.calls_ms)])
    at = np.add.reduceat(np.asarray(track.at_s, float), starts) / sizes
    calls = np.add.reduceat(np.asarray(track.calls_ms, float), starts) / sizes
    return at, calls, np.asarray(track.counted, bool)[starts]
