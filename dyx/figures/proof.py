"""How far off each artifact is, beside what it is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dyx.figures.canvas import INK, LINES, WRONG, only_words
from dyx.figures.rows import Line, draw_limit, lay_rows, mark_of, rows_figure, set_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLE = "error, as a share of max |y|"
_UNIT = "● error   ○ rows alone   ┃ allowed"
_LEAST = 1e-12
"""An error of zero has no logarithm; float32 resolves nothing as small."""


@dataclass(frozen=True)
class ParityError:
    """What one verdict says.

    Attributes:
        name: Artifact, backend and batch size.
        error: Largest error as a share of max |y|; None where none can be stated.
        allowed: The share that the kind of input with that error is allowed; None where no error can be stated.
        drift: Largest difference between a row in the batch and that row alone, as a share; None where not compared.
        passed: Whether the verdict passed.
    """

    name: str
    error: float | None
    allowed: float | None
    drift: float | None
    passed: bool


def parity_errors(errors: Sequence[ParityError], tolerance: float) -> Figure:
    """A row per artifact, backend and batch size: its error and its limit, on a logarithmic axis.

    Args:
        errors: From top to bottom.
        tolerance: The share that was asked for; a dotted line.

    Raises PackageMissing.
    """
    if not errors:
        return only_words("Nothing was proved.")
    figure = rows_figure(len(errors), "Error of each artifact, backend and batch size, and what was allowed")
    axes = figure.subplots()
    shown = [share for one in errors for share in (one.error, one.allowed, one.drift) if share] + [tolerance]
    set_log(axes, max(min(shown), _LEAST) / 2, max(shown) * 2)
    lay_rows(axes, _TITLE, _UNIT, [Line(one.name, _told(one.error), wrong=not one.passed) for one in errors])
    draw_limit(axes, tolerance, len(errors), "dotted")
    for row, one in enumerate(errors):
        _draw(axes, mark_of(row), one)
    return figure


def _told(error: float | None) -> str:
    return "not finite" if error is None else f"{error:.1e}"


def _draw(axes: Axes, height: float, one: ParityError) -> None:
    colour = LINES[0] if one.passed else WRONG
    if one.allowed is not None:
        axes.plot([one.allowed], [height], marker="|", markersize=9, markeredgewidth=2.5, color=INK)
    if one.drift:
        axes.plot([one.drift], [height], marker="o", markersize=6, color=colour, markerfacecolor="none")
    if one.error is not None:
        axes.plot([max(one.error, axes.get_xlim()[0])], [height], marker="o", markersize=5, color=colour)
