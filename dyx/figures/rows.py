"""Plots with a row per thing: its name and its value above, its mark beneath; they stay readable on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING, Literal

from dyx.figures.canvas import INK, PANEL_WIDTH, TEXT_SIZE, WRONG, new_figure, shortened, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW_HEIGHT, _AROUND_ROWS = 0.36, 0.85
_WORDS_ABOVE, _MARK_BENEATH = -0.2, 0.2
_FEW_TICKS = 4


@dataclass(frozen=True)
class Line:
    """The words of one row.

    Attributes:
        name: At the left.
        value: At the right.
        wrong: Whether it stands out.
    """

    name: str
    value: str
    wrong: bool = False


def rows_height(rows: int) -> float:
    """Inches that a plot of so many rows needs."""
    return rows * _ROW_HEIGHT + _AROUND_ROWS


def rows_figure(rows: int, label: str) -> Figure:
    """An empty figure for one such plot. Raises PackageMissing."""
    return new_figure(PANEL_WIDTH, rows_height(rows), label)


def lay_rows(axes: Axes, title: str, unit: str, lines: Sequence[Line]) -> None:
    """Words of all rows, first one on top; row `i` has its mark at `mark_of(i)`."""
    from matplotlib.ticker import MaxNLocator

    style_axes(axes, title, unit)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=INK, alpha=0.15)
    axes.set_axisbelow(True)
    if axes.get_xscale() == "linear":
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    for place, line in enumerate(lines):
        _write(axes, 0, place, f"✗ {shortened(line.name)}" if line.wrong else shortened(line.name), wrong=line.wrong)
        _write(axes, 1, place, line.value, wrong=line.wrong)


def _write(axes: Axes, side: int, place: int, words: str, *, wrong: bool) -> None:
    axes.text(
        *(side, place + _WORDS_ABOVE, words),
        transform=axes.get_yaxis_transform(),
        ha="right" if side else "left",
        va="center",
        color=WRONG if wrong else INK,
        fontsize=TEXT_SIZE,
        fontweight="bold" if wrong else "normal",
        parse_math=False,
    )


def mark_of(row: int) -> float:
    """Where the mark of a row is, from the top."""
    return row + _MARK_BENEATH


def draw_limit(axes: Axes, at: float, rows: int, style: Literal["dashed", "dotted"]) -> None:
    """A line across all marks, which spares the words."""
    heights = [mark_of(row) for row in range(rows)]
    axes.vlines([at] * rows, [y - 0.18 for y in heights], [y + 0.3 for y in heights], INK, style, linewidth=1)


def set_log(axes: Axes, low: float, high: float) -> None:
    """A logarithmic axis over at least a range, with plain numbers where they are short."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(_log_ticks(low, high)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _place: f"{value:g}")


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and 2 and 5 times them where those are few."""
    powers = range(floor(log10(low)), floor(log10(high)) + 1)
    tens = [10.0**power for power in powers]
    ticks = tens if len(tens) > _FEW_TICKS else [float(f"{part * ten:g}") for ten in tens for part in (1, 2, 5)]
    return [tick for tick in ticks if low <= tick <= high]
