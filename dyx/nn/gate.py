"""Channel gates `y = x · g(x)`, one factor that is not negative per sample and channel: what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dyx.nn.reading import LayerAdapter, Scores

_LEAST = 1e-30
"""Added to sums that may be zero."""


@dataclass(frozen=True)
class GateParameters:
    """What every gate is read into, whatever else its kind holds: no experts, any channels, any map."""

    @property
    def experts(self) -> None:
        """None are mixed."""

    @property
    def channels_in(self) -> int | None:
        """Channels, or None where any number will do."""
        return None

    @property
    def smallest_side(self) -> int:
        """One position is enough."""
        return 1


def gate_adapter(read: Callable[[Any], GateParameters]) -> LayerAdapter:
    """The adapter of a gate. Gates have no temperature, and vary enough as they are drawn."""
    return LayerAdapter("gate", read, _no_scores, attention=_gates)


def _no_scores(_layer: Any) -> tuple[Scores, ...]:
    return ()


def _gates(layer: Any, x: Any) -> tuple[Any]:
    """Factors `(B, C)`, from what the layer makes of an input: `Σ |g x| / Σ |x| = g`, as g is not negative."""
    return (layer(x).abs().sum([2, 3]) / (x.abs().sum([2, 3]) + _LEAST),)
