"""Temperature while training: high at first, so that every expert learns, then down to where the network is used.

Each method says how: `max(final, start − drop · t)`, with t the epochs behind, in whole epochs or step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from dyx.nn.adapters import dynamic_layers


@dataclass(frozen=True)
class Annealing:
    """How the temperature of a kind of layer falls.

    Attributes:
        start: In the first epoch.
        drop: Per epoch.
        final: Where it stays.
        per_step: Whether it falls with every step, the coming one counted, or after each epoch.
    """

    start: float
    drop: float
    final: float
    per_step: bool = False

    def at(self, epoch: int, step: int, steps: int) -> float:
        """The temperature of a step, both counted from 0, in an epoch of `steps` steps."""
        behind = epoch + (step + 1) / steps if self.per_step else epoch
        return max(self.final, self.start - self.drop * behind)

    def within(self, epochs: float) -> Annealing:
        """The same fall, spread over so many epochs."""
        return replace(self, drop=self.start / epochs)


_OF_KIND: Mapping[str, Annealing] = {
    "dyconv": Annealing(30.0, 3.0, 1.0),  # the articles: 30, 27 … 3, then 1
    "odconv": Annealing(30.0, 2.9, 1.0, per_step=True),  # official code: 1 + 29 (N - c) / N, N = 10 epochs
    "kw": Annealing(1.0, 1 / 20, 0.0, per_step=True),  # official code: (N - c) / N, N = 20 epochs
}
_OF_CLASS: Mapping[str, Annealing] = dict.fromkeys(
    ("DynamicConv2D", "Dynamic_conv2d"),
    Annealing(34.0, 3.0, 1.0),  # kaijieshi7: 34, 31 … 4, 1
)


@dataclass(frozen=True)
class Annealed:
    """A layer whose temperature falls.

    Attributes:
        kind: Of layer.
        way: How it falls.
        set: Sets the layer's temperature.
    """

    kind: str
    way: Annealing
    set: Callable[[float], None]


def annealed_layers(network: Any, epochs: float | None = None) -> tuple[Annealed, ...]:
    """Every layer of a network that has a temperature and a known way down.

    Args:
        network: A Paddle Layer.
        epochs: Spread every fall over so many; None for what each method says.
    """
    found = []
    for layer, adapter in dynamic_layers(network).values():
        way = _OF_CLASS.get(type(layer).__name__) or _OF_KIND.get(adapter.kind)
        if adapter.set_temperature is not None and way is not None:
            way = way if epochs is None else way.within(epochs)
            found.append(Annealed(adapter.kind, way, partial(adapter.set_temperature, layer)))
    return tuple(found)


def anneal(layers: Sequence[Annealed], epoch: int, step: int, steps: int) -> dict[str, float]:
    """Set the temperature of every layer for a step, and tell it by kind."""
    for layer in layers:
        layer.set(layer.way.at(epoch, step, steps))
    return {layer.kind: layer.way.at(epoch, step, steps) for layer in layers}
