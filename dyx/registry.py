"""Names that stand for code, imported only when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from dyx.errors import UnknownName


def resolve(target: str) -> Any:
    """The object that `"module:attribute"` names; its module is imported now."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


class Registry:
    """A read-only table from names to `"module:attribute"`.

    Args:
        kind: What the names stand for, as errors say it ("backend").
        targets: Name to `"module:attribute"`, in the order in which they are tried and listed.
    """

    def __init__(self, kind: str, targets: Mapping[str, str]) -> None:
        self.kind = kind
        self._targets = dict(targets)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name, in table order."""
        return tuple(self._targets)

    def check(self, name: str) -> str:
        """The name itself. Raises UnknownName, with the nearest known one, for any other."""
        if name not in self._targets:
            raise UnknownName(self.kind, name, self.names)
        return name

    def get(self, name: str) -> Any:
        """What a name stands for. Raises UnknownName."""
        return resolve(self._targets[self.check(name)])
