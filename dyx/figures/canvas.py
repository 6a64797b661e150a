"""What all figures share: ink, colours, sizes, an empty figure, axes that look alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dyx.errors import PackageMissing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# Neither black, which matplotlib leaves out of an SVG, nor the colour of anything else.
INK = "#1a1c21"
WRONG = "#c81e1e"
# Blue, purple, orange of the same lightness: each stands out from white and from near-black.
LINES = ("#2f7fd6", "#a45fc4", "#d9680a")
DASHES = ("-", "--", "-.", ":")
TITLE_SIZE, TEXT_SIZE = 9, 8
PANEL_WIDTH, PANEL_HEIGHT = 3.4, 2.5

_MOST_MARKERS, _MOST_NAMES, _LONGEST_NAME = 30, 6, 30


def import_figure() -> type[Figure]:
    """The class of figures. Raises PackageMissing."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise PackageMissing("matplotlib", "plot") from error
    return Figure


def new_figure(width: float, height: float, label: str) -> Figure:
    """An empty figure, in inches. Raises PackageMissing."""
    figure = import_figure()(figsize=(width, height), facecolor="white", layout="constrained")
    figure.set_label(label)
    return figure


def only_words(text: str) -> Figure:
    """A figure that only says something."""
    figure = new_figure(PANEL_WIDTH, 1.0, text)
    figure.text(0.5, 0.5, text, ha="center", va="center", color=INK, fontsize=TITLE_SIZE)
    return figure


def style_axes(axes: Axes, title: str, unit: str) -> None:
    """Title at the left, what the axis beneath tells, and no frame but the axes themselves."""
    axes.set_title(title, color=INK, fontsize=TITLE_SIZE, loc="left", parse_math=False)
    axes.set_xlabel(unit, color=INK, fontsize=TEXT_SIZE)
    axes.tick_params(colors=INK, labelsize=TEXT_SIZE)
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)


def draw_lines(axes: Axes, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    """A line each of x and y, first to last from blue to orange; of many, only some are named."""
    named = set(np.linspace(0, len(lines) - 1, min(len(lines), _MOST_NAMES)).round().astype(int))
    handles, names = [], []
    for place, (name, (across, values)) in enumerate(lines.items()):
        dash = DASHES[place] if len(lines) <= len(DASHES) else "-"
        marker = "o" if len(across) <= _MOST_MARKERS else ""
        colour = _line_colours()(place / max(len(lines) - 1, 1))
        (handle,) = axes.plot(across, values, color=colour, linestyle=dash, linewidth=1.4, marker=marker, markersize=3)
        if name and place in named:
            handles.append(handle)
            names.append(shortened(name))
    if handles:
        legend = axes.legend(handles, names, fontsize=TEXT_SIZE - 1, labelcolor=INK, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)


def shortened(name: str) -> str:
    """A name that fits a figure; of a long one, the middle is left out, since names differ at their ends."""
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME // 2]}…{name[1 - _LONGEST_NAME // 2 :]}"


def _line_colours() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("lines", LINES)
