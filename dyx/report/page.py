"""A page made of titled sections, as one HTML file; what stands in it is data, never markup."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from dyx.errors import PackageMissing
from dyx.folder import write_file_whole

NOTHING = "–"
_WORDS = (("_", " "), ("held out", "held-out"), ("images per s", "images/s"))
_TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Details:
    """What stands in a cell behind a few words, until a reader opens it.

    Attributes:
        summary: The words.
        lines: What is behind them.
    """

    summary: str
    lines: Sequence[str]


Cell = str | Details


@dataclass(frozen=True)
class Table:
    """A table; wide ones scroll inside their own box.

    Attributes:
        caption: What it shows.
        headings: One per column. The first column names the rows.
        rows: Cells, as many as there are headings.
        numbers: Headings of the columns that hold numbers.
        strong: Which row stands out, if any.
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: Sequence[str] = ()
    strong: int | None = None


@dataclass(frozen=True)
class Photo:
    """A PNG that stands in the page itself.

    Attributes:
        png: The file's bytes.
        words: What it shows, for those who do not see it.
    """

    png: bytes
    words: str

    @property
    def address(self) -> str:
        """The picture as a `data:` address."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"


@dataclass(frozen=True)
class Section:
    """A part of a page; one that holds nothing is left out.

    Attributes:
        title: Its heading.
        text: Paragraphs.
        drawings: SVG that `dyx.figures.as_svg` made; it alone goes into the page as it is.
        photos: Pictures.
        tables: Tables.
    """

    title: str
    text: Sequence[str] = ()
    drawings: Sequence[str] = ()
    photos: Sequence[Photo] = ()
    tables: Sequence[Table] = ()

    @property
    def holds_something(self) -> bool:
        """Whether there is anything to show; a table without rows is not."""
        return bool(self.text or self.drawings or self.photos or any(table.rows for table in self.tables))


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: Its heading.
        lead: What matters most, in a sentence.
        sections: From top to bottom.
        parts: Pages that stand in this one, beneath its own sections, each under a heading of its own.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    parts: Sequence[Page] = ()


def render(page: Page) -> str:
    """The page as HTML. Raises PackageMissing."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ModuleNotFoundError as error:
        raise PackageMissing("jinja2", "plot") from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = files("dyx.report").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(page=page)


def write_page(html: str, path: Path) -> None:
    """Write a page, whole or not at all. Raises OutputUnwritable."""
    write_file_whole(path, html.encode("utf-8"))


def facts_table(caption: str, facts: Mapping[str, Any]) -> Table:
    """A row per fact; facts within facts get a row each, under both names."""
    return Table(caption, ("what", "value"), [(name, told(value)) for name, value in flat(facts)])


def flat(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every fact that holds no others, under its full name in words: `cores` of `cpu` is "cpu cores"."""
    for key, value in facts.items():
        name = in_words(str(key))
        listed = {str(place): entry for place, entry in enumerate(value, 1)} if _holds_facts(value) else value
        if isinstance(listed, Mapping) and listed:
            yield from ((f"{name} {inner}", fact) for inner, fact in flat(listed))
        else:
            yield name, value


def in_words(key: str) -> str:
    """A key of a record as people write it."""
    for written, said in _WORDS:
        key = key.replace(written, said)
    return key


def _holds_facts(value: Any) -> bool:
    """Whether a value is a list of facts, such as one entry per GPU."""
    return isinstance(value, Sequence) and any(isinstance(entry, Mapping) for entry in value)


def told(value: Any) -> str:
    """A JSON value for people: four figures of a number, a dash for nothing."""
    if value is None or value in ({}, []):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str):
        return value
    return ", ".join(map(told, value))


def listed(names: Sequence[str], most: int = 20) -> str:
    """How many there are, and the first of them."""
    return f"{len(names):,}: {', '.join(names[:most])}{' …' if len(names) > most else ''}"


def percent(share: float | None) -> str:
    """A share of one in percent, two decimals."""
    return NOTHING if share is None else f"{100 * share:.2f} %"
