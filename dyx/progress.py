"""How long work tells where it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Called with each step's name when it begins."""


def silent(_step: str) -> None:
    """Progress that nobody watches."""
