"""Figures as files, and as part of a page."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from dyx.errors import InvalidOption
from dyx.figures.canvas import INK, import_figure
from dyx.folder import write_file_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")

_DPI = 160
_REFERENCE = re.compile(r'(?:url\(#|href="#)([^)"]+)')
_DRAWN = ("g", "defs")
_FONT = re.compile(r"(font-family: |font: [^;]*?px )[^;]*")
_NO_DATE = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as its file's suffix says: PNG, SVG or PDF; whole or not at all, and without a date.

    Raises InvalidOption for another suffix, OutputUnwritable.
    """
    write_file_whole(path, _rendered(figure, _suffix(path)))


def check_drawable(path: Path) -> None:
    """Raises what `save_figure` would for a suffix, and PackageMissing: better said before minutes of measuring."""
    _suffix(path)
    import_figure()


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidOption("the picture's file", str(path), f"one that ends in {', '.join(SUFFIXES)}")
    return suffix


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
    return _FONT.sub(r"\1system-ui, sans-serif", value.replace(INK, "currentColor"))
