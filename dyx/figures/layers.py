"""The time of a call by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dyx.figures.canvas import INK, LINES, only_words
from dyx.figures.rows import Line, lay_rows, mark_of, rows_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_BARS = 16


@dataclass(frozen=True)
class LayerBar:
    """What one layer takes of a call.

    Attributes:
        name: Its path.
        rule: The rule that made it; "" for a static layer.
        ms: Its time.
        share: The same as a share of a call.
    """

    name: str
    rule: str
    ms: float
    share: float


def layer_times(bars: Sequence[LayerBar], title: str) -> Figure:
    """A bar per layer, those that take most and in their order: blue where a rule made it, grey where it is static.

    Raises PackageMissing.
    """
    if not bars:
        return only_words("No layer was told apart.")
    least = sorted((bar.ms for bar in bars), reverse=True)[:_MOST_BARS][-1]
    shown = [bar for bar in bars if bar.ms >= least][:_MOST_BARS]
    figure = rows_figure(len(shown), f"Time of a call by layer: {title}")
    axes = figure.subplots()
    axes.set_xlim(0, 1.04 * max(bar.ms for bar in shown) or 1.0)
    part = "" if len(shown) == len(bars) else f", the longest {len(shown)} of {len(bars)}"
    lay_rows(axes, f"{title}{part}", "ms; blue: made by a rule", [_line(bar) for bar in shown])
    for place, bar in enumerate(shown):
        colour, strength = (LINES[0], 1.0) if bar.rule else (INK, 0.45)
        axes.barh(mark_of(place), bar.ms, height=0.24, color=colour, alpha=strength)
    return figure


def _line(bar: LayerBar) -> Line:
    return Line(bar.name, f"{bar.rule + '   ' if bar.rule else ''}{bar.ms:.3f} ({bar.share:.0%})")
