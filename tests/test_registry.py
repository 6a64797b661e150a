from __future__ import annotations

import pytest

from dyx.errors import UnknownName
from dyx.registry import Registry, resolve

NAMES = Registry("colour", {"red": "math:pi", "green": "no.such.module:thing"})


def test_names_are_resolved_when_asked_for() -> None:
    assert resolve("math:tau") > 6
    assert NAMES.get("red") > 3
    assert NAMES.names == ("red", "green")
    with pytest.raises(ModuleNotFoundError):
        NAMES.get("green")


@pytest.mark.parametrize(("name", "nearest"), [("rad", "red"), ("greem", "green"), ("zzz", None)])
def test_unknown_name_offers_the_nearest(name: str, nearest: str | None) -> None:
    with pytest.raises(UnknownName, match=f"there is no colour named '{name}'") as caught:
        NAMES.get(name)
    assert caught.value.nearest == nearest
    assert "known: red, green" in caught.value.hint
