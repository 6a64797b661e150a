"""Who looks on while a network trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Watch(Protocol):
    """What a training run tells, as it happens."""

    def doing(self, text: str) -> None:
        """This is being done before, between or after epochs."""

    def note(self, text: str) -> None:
        """The user should hear this."""

    def step(self, text: str, share: float) -> None:
        """A step is behind, and so much of the whole run."""

    def epoch(self, row: Mapping[str, Any], epochs: int) -> None:
        """An epoch is behind, of so many; its figures are those of run.json."""


class Silent:
    """A Watch that looks away."""

    def doing(self, text: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def step(self, text: str, share: float) -> None:
        """Nothing."""

    def epoch(self, row: Mapping[str, Any], epochs: int) -> None:
        """Nothing."""
