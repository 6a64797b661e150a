"""Figures of a training run: curves, pictures with predictions, confusion."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, nan
from typing import TYPE_CHECKING, Any

import numpy as np

from dyx.figures.canvas import (
    INK,
    LINES,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    TEXT_SIZE,
    TITLE_SIZE,
    WRONG,
    draw_lines,
    new_figure,
    only_words,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

History = Sequence[Mapping[str, Any]]
"""One entry per epoch, as `run.json` keeps them."""

_PANELS_A_ROW, _PICTURES_A_ROW = 3, 6
_MOST_NUMBERS, _MOST_LABELS = 20, 40
_SMALL_SIDE = 96


@dataclass(frozen=True)
class _Panel:
    """One plot of a small multiple.

    Attributes:
        title: What is drawn.
        lines: Name to one value per epoch; NaN where an epoch has none.
        percent: Whether the values are shares, told in percent; their best epoch is marked.
        whole: Whether the values are shares whose distance from 0 and 1 is what counts, so that both are in sight.
    """

    title: str
    lines: Mapping[str, Sequence[float]]
    percent: bool = False
    whole: bool = False


def learning_curves(history: History) -> Figure:
    """Loss, accuracy, learning rate, temperature and attention entropy by epoch, in one figure.

    Temperature and entropy are left out where no layer has any. Raises PackageMissing.
    """
    panels = _panels(history)
    if not panels:
        return only_words("No epoch has ended yet.")
    columns = min(len(panels), _PANELS_A_ROW)
    rows = ceil(len(panels) / columns)
    figure = new_figure(columns * PANEL_WIDTH, rows * PANEL_HEIGHT, "Learning curves by epoch")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(places, panels, strict=False):
        _draw_panel(axes, panel, _epochs(history))
    for axes in places[len(panels) :]:
        axes.remove()
    return figure


def curve_panels(history: History) -> list[Figure]:
    """Each plot of `learning_curves` as a figure of its own, for a page that arranges them. Raises PackageMissing."""
    figures = []
    for panel in _panels(history):
        figures.append(new_figure(PANEL_WIDTH, PANEL_HEIGHT, f"{panel.title} by epoch"))
        _draw_panel(figures[-1].subplots(), panel, _epochs(history))
    return figures


def picture_grid(pictures: Sequence[Image | np.ndarray], titles: Sequence[str], right: Sequence[bool]) -> Figure:
    """Pictures under their titles, six to a row; wrong ones have a cross, bold red words and a red frame.

    Args:
        pictures: Images of Pillow, or uint8 arrays `(H, W, 3)`.
        titles: One per picture, such as "7 (7)".
        right: One per picture: whether its prediction is the truth.

    Raises PackageMissing.
    """
    if not len(pictures):
        return only_words("No pictures.")
    columns = min(len(pictures), _PICTURES_A_ROW)
    rows = ceil(len(pictures) / columns)
    figure = new_figure(columns * 1.35, rows * 1.65, "Pictures with prediction and, in brackets, truth")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, picture, title, is_right in zip(places, pictures, titles, right, strict=False):
        _draw_picture(axes, picture, title, is_right=is_right)
    for axes in places[len(pictures) :]:
        axes.remove()
    return figure


def confusion(matrix: np.ndarray, labels: Sequence[str]) -> Figure:
    """Which class was taken for which; a cell is the bluer, the more of its row it has.

    Args:
        matrix: Counts `(classes, classes)`; a row is a truth, a column a prediction.
        labels: One per class; shown up to 40 classes, the counts up to 20.

    Raises PackageMissing.
    """
    counts = np.asarray(matrix)
    side = min(max(0.42 * len(labels) + 1.4, 3.5), 9.0)
    figure = new_figure(side, side, "Confusion: a row is a truth, a column a prediction")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    _draw_shares(axes, shares, faint=len(labels) <= _MOST_NUMBERS)
    axes.tick_params(colors=INK, labelsize=TEXT_SIZE)
    axes.spines[:].set_color(INK)
    axes.set_xlabel("predicted", color=INK, fontsize=TITLE_SIZE)
    axes.set_ylabel("truth", color=INK, fontsize=TITLE_SIZE)
    _name_classes(axes, labels)
    if len(labels) <= _MOST_NUMBERS:
        _write_counts(axes, counts)
    return figure


def _panels(history: History) -> list[_Panel]:
    """What there is to draw; nothing before the first epoch has ended."""
    if not history:
        return []
    loss = {"held out": _values(history, "held_out_loss"), "training": _values(history, "loss")}
    accuracy = {"held out": _values(history, "held_out_accuracy"), "training": _values(history, "accuracy")}
    panels = (
        _Panel("loss", loss),
        _Panel("accuracy", accuracy, percent=True),
        _Panel("learning rate", {"": _values(history, "learning_rate")}),
        _Panel("temperature", _by_name(history, "temperature")),
        _Panel("attention entropy (1: equal attention)", _by_name(history, "entropy"), whole=True),
    )
    return [panel for panel in panels if panel.lines]


def _epochs(history: History) -> list[int]:
    return [entry["epoch"] for entry in history]


def _values(history: History, key: str) -> list[float]:
    return [_number(entry.get(key)) for entry in history]


def _by_name(history: History, key: str) -> dict[str, list[float]]:
    """A line per name that any epoch has."""
    names = dict.fromkeys(name for entry in history for name in entry.get(key) or ())
    return {name: [_number((entry.get(key) or {}).get(name)) for entry in history] for name in names}


def _number(value: float | None) -> float:
    return nan if value is None else float(value)


def _draw_panel(axes: Axes, panel: _Panel, epochs: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    style_axes(axes, panel.title, "epoch")
    draw_lines(axes, {name: (epochs, values) for name, values in panel.lines.items()})
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.grid(axis="y", color=INK, alpha=0.15)
    if panel.whole:
        axes.set_ylim(-0.03, 1.03)
    if panel.percent:
        axes.yaxis.set_major_formatter(lambda share, _place: f"{100 * share:.4g} %")
        _mark_best(axes, panel, epochs)


def _mark_best(axes: Axes, panel: _Panel, epochs: Sequence[int]) -> None:
    """A ring on the first epoch of the best held-out accuracy, and its value in the title."""
    values = np.array(panel.lines["held out"])
    if np.isnan(values).all():
        return
    best = int(np.nanargmax(values))
    axes.plot(epochs[best], values[best], marker="o", markersize=8, color=INK, linestyle="", markerfacecolor="none")
    title = f"{panel.title}: best {100 * values[best]:.2f} % at epoch {epochs[best]}"
    axes.set_title(title, color=INK, fontsize=TITLE_SIZE, loc="left")


def _draw_picture(axes: Axes, picture: Image | np.ndarray, title: str, *, is_right: bool) -> None:
    pixels = np.asarray(picture) if isinstance(picture, np.ndarray) else np.asarray(picture.convert("RGB"))
    # Few pixels are shown as they are; of many, several share a dot, and nearest would skip some.
    axes.imshow(pixels, interpolation="nearest" if max(pixels.shape[:2]) <= _SMALL_SIDE else None)
    axes.set_xticks([])
    axes.set_yticks([])
    colour = INK if is_right else WRONG
    axes.spines[:].set_color(colour)
    axes.spines[:].set_linewidth(0.8 if is_right else 2.5)
    words = textwrap.fill(title if is_right else f"✗ {title}", 16, max_lines=3, placeholder="…")
    weight = "normal" if is_right else "bold"
    axes.set_title(words, color=colour, fontsize=TEXT_SIZE, fontweight=weight, parse_math=False)


def _draw_shares(axes: Axes, shares: np.ndarray, *, faint: bool) -> None:
    """Cells from nothing to blue; faint where numbers are written on them, in the ink of a light or a dark page."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgba

    ends = [to_rgba(LINES[0], 0.0), to_rgba(LINES[0], 0.5 if faint else 1.0)]
    # By the square root of the share: a class that is seldom taken for another shows, too.
    axes.imshow(shares, cmap=LinearSegmentedColormap.from_list("shares", ends), norm=PowerNorm(0.5, vmin=0, vmax=1))


def _write_counts(axes: Axes, counts: np.ndarray) -> None:
    """A number in each cell; a zero steps back."""
    for (truth, predicted), count in np.ndenumerate(counts):
        words = axes.text(predicted, truth, f"{count}", ha="center", va="center", color=INK, fontsize=TEXT_SIZE)
        words.set_alpha(1.0 if count else 0.4)


def _name_classes(axes: Axes, labels: Sequence[str]) -> None:
    """Labels at both axes; where they are too many, the numbers of some classes."""
    from matplotlib.ticker import MaxNLocator

    if len(labels) > _MOST_LABELS:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        return
    shown = [textwrap.shorten(label, 20, placeholder="…") for label in labels]
    upright = max(map(len, shown), default=0) > 3
    axes.set_xticks(range(len(labels)), shown, rotation=90 if upright else 0, parse_math=False)
    axes.set_yticks(range(len(labels)), shown, parse_math=False)
