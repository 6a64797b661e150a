"""Pictures of a training run: curves, pictures with predictions, confusion; drawn by matplotlib, without a display.

Text, axes and frames are drawn in one ink, which `as_svg` turns into the text colour of the page around the figure.
Words that come from outside are shown as they are: a dollar sign begins no formula.
"""

from __future__ import annotations

import hashlib
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from dyx.errors import InvalidOption, PackageMissing
from dyx.folder import write_file_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from PIL.Image import Image

History = Sequence[Mapping[str, Any]]
"""One entry per epoch, as `run.json` keeps them."""

SUFFIXES = (".png", ".svg", ".pdf")

# Neither black, which matplotlib leaves out of an SVG, nor the colour of anything else.
_INK = "#1a1c21"
_WRONG = "#c81e1e"
# Blue, purple, orange of the same lightness: each stands out from white and from near-black.
_LINES = ("#2f7fd6", "#a45fc4", "#d9680a")
_DASHES = ("-", "--", "-.", ":")
_DPI = 160
_TITLE_SIZE, _TEXT_SIZE = 9, 8
_PANEL_WIDTH, _PANEL_HEIGHT = 3.4, 2.5
_PANELS_A_ROW, _PICTURES_A_ROW = 3, 6
_MOST_MARKERS, _MOST_NAMES = 30, 6
_MOST_NUMBERS, _MOST_LABELS = 20, 40
_SMALL_SIDE = 96
_REFERENCE = re.compile(r'(?:url\(#|href="#)([^)"]+)')
_DRAWN = ("g", "defs")
_FONT = re.compile(r"(font-family: |font: [^;]*?px )[^;]*")
_NO_DATE = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


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
        return _words("No epoch has ended yet.")
    columns = min(len(panels), _PANELS_A_ROW)
    rows = ceil(len(panels) / columns)
    figure = _figure(columns * _PANEL_WIDTH, rows * _PANEL_HEIGHT, "Learning curves by epoch")
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
        figures.append(_figure(_PANEL_WIDTH, _PANEL_HEIGHT, f"{panel.title} by epoch"))
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
        return _words("No pictures.")
    columns = min(len(pictures), _PICTURES_A_ROW)
    rows = ceil(len(pictures) / columns)
    figure = _figure(columns * 1.35, rows * 1.65, "Pictures with prediction and, in brackets, truth")
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
    figure = _figure(side, side, "Confusion: a row is a truth, a column a prediction")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    _draw_shares(axes, shares, faint=len(labels) <= _MOST_NUMBERS)
    axes.tick_params(colors=_INK, labelsize=_TEXT_SIZE)
    axes.spines[:].set_color(_INK)
    axes.set_xlabel("predicted", color=_INK, fontsize=_TITLE_SIZE)
    axes.set_ylabel("truth", color=_INK, fontsize=_TITLE_SIZE)
    _name_classes(axes, labels)
    if len(labels) <= _MOST_NUMBERS:
        _write_counts(axes, counts)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as its file's suffix says: PNG, SVG or PDF; whole or not at all, and without a date.

    Raises InvalidOption for another suffix, OutputUnwritable.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidOption("the picture's file", str(path), f"one that ends in {', '.join(SUFFIXES)}")
    write_file_whole(path, _rendered(figure, suffix))


def as_png(figure: Figure) -> bytes:
    """A figure as PNG on white."""
    return _rendered(figure, ".png")


def as_svg(figure: Figure) -> str:
    """A figure as an `<svg>` to stand in an HTML page: same figure, same text.

    Its ink is the page's text colour, its background the page's own, its width for the page to choose. Ids that are
    referred to begin with a hash of the figure, so that different figures can stand in one page; others are left out.
    """
    drawn = _rendered(figure, ".svg", inline=True)
    mark = hashlib.sha256(drawn).hexdigest()[:8]
    ids = {name: f"f{mark}-{name}" for name in _REFERENCE.findall(drawn.decode("utf-8"))}
    source = ElementTree.fromstring(drawn)  # noqa: S314 - matplotlib wrote it just now
    root = ElementTree.Element("svg", viewBox=source.attrib["viewBox"], role="img")
    root.set("aria-label", str(figure.get_label()))
    # matplotlib says this in a <style> that would hold for every element of the page.
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    root.extend(_inlined(child, ids) for child in source if _bare(child.tag) in _DRAWN)
    return ElementTree.tostring(root, encoding="unicode")


def _figure(width: float, height: float, label: str) -> Figure:
    """An empty figure, in inches. Raises PackageMissing."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise PackageMissing("matplotlib", "plot") from error
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    figure.set_label(label)
    return figure


def _words(text: str) -> Figure:
    """A figure that only says something."""
    figure = _figure(_PANEL_WIDTH, 1.0, text)
    figure.text(0.5, 0.5, text, ha="center", va="center", color=_INK, fontsize=_TITLE_SIZE)
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

    axes.set_title(panel.title, color=_INK, fontsize=_TITLE_SIZE, loc="left")
    _draw_lines(axes, panel.lines, epochs)
    axes.set_xlabel("epoch", color=_INK, fontsize=_TEXT_SIZE)
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.tick_params(colors=_INK, labelsize=_TEXT_SIZE)
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)
    axes.grid(axis="y", color=_INK, alpha=0.15)
    if panel.whole:
        axes.set_ylim(-0.03, 1.03)
    if panel.percent:
        axes.yaxis.set_major_formatter(lambda share, _place: f"{100 * share:.4g} %")
        _mark_best(axes, panel, epochs)


def _draw_lines(axes: Axes, lines: Mapping[str, Sequence[float]], epochs: Sequence[int]) -> None:
    """A line each, first to last from blue to orange; of many, only some are named."""
    named = set(np.linspace(0, len(lines) - 1, min(len(lines), _MOST_NAMES)).round().astype(int))
    marker = "o" if len(epochs) <= _MOST_MARKERS else ""
    handles, names = [], []
    for place, (name, values) in enumerate(lines.items()):
        dash = _DASHES[place] if len(lines) <= len(_DASHES) else "-"
        colour = _line_colours()(place / max(len(lines) - 1, 1))
        (handle,) = axes.plot(epochs, values, color=colour, linestyle=dash, linewidth=1.4, marker=marker, markersize=3)
        if name and place in named:
            handles.append(handle)
            names.append(textwrap.shorten(name, 28, placeholder="…"))
    if handles:
        legend = axes.legend(handles, names, fontsize=_TEXT_SIZE - 1, labelcolor=_INK, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)


def _line_colours() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("lines", _LINES)


def _mark_best(axes: Axes, panel: _Panel, epochs: Sequence[int]) -> None:
    """A ring on the first epoch of the best held-out accuracy, and its value in the title."""
    values = np.array(panel.lines["held out"])
    if np.isnan(values).all():
        return
    best = int(np.nanargmax(values))
    axes.plot(epochs[best], values[best], marker="o", markersize=8, color=_INK, linestyle="", markerfacecolor="none")
    title = f"{panel.title}: best {100 * values[best]:.2f} % at epoch {epochs[best]}"
    axes.set_title(title, color=_INK, fontsize=_TITLE_SIZE, loc="left")


def _draw_picture(axes: Axes, picture: Image | np.ndarray, title: str, *, is_right: bool) -> None:
    pixels = np.asarray(picture) if isinstance(picture, np.ndarray) else np.asarray(picture.convert("RGB"))
    # Few pixels are shown as they are; of many, several share a dot, and nearest would skip some.
    axes.imshow(pixels, interpolation="nearest" if max(pixels.shape[:2]) <= _SMALL_SIDE else None)
    axes.set_xticks([])
    axes.set_yticks([])
    colour = _INK if is_right else _WRONG
    axes.spines[:].set_color(colour)
    axes.spines[:].set_linewidth(0.8 if is_right else 2.5)
    words = textwrap.fill(title if is_right else f"✗ {title}", 16, max_lines=3, placeholder="…")
    weight = "normal" if is_right else "bold"
    axes.set_title(words, color=colour, fontsize=_TEXT_SIZE, fontweight=weight, parse_math=False)


def _draw_shares(axes: Axes, shares: np.ndarray, *, faint: bool) -> None:
    """Cells from nothing to blue; faint where numbers are written on them, in the ink of a light or a dark page."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgba

    ends = [to_rgba(_LINES[0], 0.0), to_rgba(_LINES[0], 0.5 if faint else 1.0)]
    # By the square root of the share: a class that is seldom taken for another shows, too.
    axes.imshow(shares, cmap=LinearSegmentedColormap.from_list("shares", ends), norm=PowerNorm(0.5, vmin=0, vmax=1))


def _write_counts(axes: Axes, counts: np.ndarray) -> None:
    """A number in each cell; a zero steps back."""
    for (truth, predicted), count in np.ndenumerate(counts):
        words = axes.text(predicted, truth, f"{count}", ha="center", va="center", color=_INK, fontsize=_TEXT_SIZE)
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


def _rendered(figure: Figure, suffix: str, *, inline: bool = False) -> bytes:
    """The figure as a file of that suffix; `inline` keeps text as text and draws no background."""
    import matplotlib

    # Laying out a figure a second time moves everything by a hair, and the file would differ.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "dyx", "svg.fonttype": "none" if inline else "path"}):
        figure.savefig(file, format=suffix[1:], dpi=_DPI, transparent=inline, metadata=_NO_DATE.get(suffix))
    return file.getvalue()


def _bare(name: str) -> str:
    """A name without its namespace, which HTML knows by itself."""
    return name.rpartition("}")[2]


def _inlined(element: ElementTree.Element, ids: Mapping[str, str]) -> ElementTree.Element:
    """An element of matplotlib's SVG, and all in it, as it can stand in a page; `ids`: old to new."""
    values = {_bare(name): _inlined_value(value, ids) for name, value in element.attrib.items()}
    if "id" in values:
        del values["id"]
        if element.attrib["id"] in ids:
            values["id"] = ids[element.attrib["id"]]
    copy = ElementTree.Element(_bare(element.tag), values)
    copy.text = element.text if element.text and element.text.strip() else None
    copy.extend(_inlined(child, ids) for child in element if _bare(child.tag) != "style")
    return copy


def _inlined_value(value: str, ids: Mapping[str, str]) -> str:
    """An attribute's value, with the new ids and the page's ink and font."""
    if value.startswith("#") and value[1:] in ids:
        return f"#{ids[value[1:]]}"
    value = re.sub(r"(?<=url\(#)[^)]+", lambda found: ids[found[0]], value)
    return _FONT.sub(r"\1system-ui, sans-serif", value.replace(_INK, "currentColor"))
