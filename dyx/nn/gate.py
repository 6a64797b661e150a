"""Channel gates `y = x · g(x)`, one factor that is not negative per sample and channel: what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dyx.nn.reading import LayerAdapter, Scores


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


def gate_adapter(
    read: Callable[[Any], GateParameters],
    factors: Callable[[Any, Any], Any],
    scores: Callable[[Any], Sequence[Scores]] = lambda _layer: (),
) -> LayerAdapter:
    """The adapter of a gate; gates have no temperature.

    Args:
        read: A layer's parameters.
        factors: From a layer and its input to `(B, C)`. It must not call the layer: that is being called when it asks.
        scores: The sublayers that make the factors' scores, where they vary too little as they are drawn.
    """
    return LayerAdapter("gate", read, scores, attention=lambda layer, x: (factors(layer, x),))
