"""Reading a page as a browser would, and the leaves of a record."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from typing import Any

import pytest

VOID = {"meta", "link", "img", "path", "use", "image"}


class Seen(HTMLParser):
    """What a browser would find: tags with their attributes, words, and whether every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] or "" for _, attributes in self.tags if attribute in attributes]

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def leaves_of(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves_of(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves_of(inner, name)
    else:
        yield name, value


@pytest.fixture
def read() -> type[Seen]:
    """Parse a page."""
    return Seen


@pytest.fixture
def leaves() -> Callable[[Any], Iterator[tuple[str, Any]]]:
    """Name and value of everything in a record."""
    return leaves_of


@pytest.fixture
def read_whole() -> Callable[[str], Seen]:
    """Parse a page that must need nothing from elsewhere, have every tag closed, and no id twice."""

    def read(html: str) -> Seen:
        seen = Seen(html)
        assert seen.open == []
        assert html.lower().startswith("<!doctype html>")
        assert not seen.count("script")
        for attribute in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
            assert all(value.startswith(("#", "data:")) for value in seen.values(attribute)), attribute
        assert not re.search(r"https?://|src=[\"']?//|@import|url\((?!#)", html)
        ids = seen.values("id")
        assert len(ids) == len(set(ids))
        links = {value[1:] for value in (*seen.values("href"), *seen.values("xlink:href")) if value.startswith("#")}
        assert links | set(seen.values("aria-labelledby")) <= set(ids)
        assert seen.count("table") == seen.count("caption")
        return seen

    return read
