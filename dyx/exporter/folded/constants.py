"""Constants of static layers, and the convolution that has nothing else.

Layers are built from float64 arrays in Paddle's default dtype, so that a fold can be checked in float64 first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dyx.nn.framework import Layer, nn
from dyx.nn.geometry import Geometry


def constant(layer: Any, name: str, array: np.ndarray) -> None:
    """Give a layer a parameter with these values, in Paddle's default dtype."""
    # Not by Paddle's Assign: it takes thirty times as long, and fifteen times the memory.
    parameter = layer.create_parameter(list(array.shape), default_initializer=nn.initializer.Constant(0.0))
    parameter.set_value(np.ascontiguousarray(array, str(parameter.dtype).rpartition(".")[2]))
    setattr(layer, name, parameter)


class StaticConv(Layer):
    """An ordinary convolution.

    Args:
        weight: `(C_out, C_in/g, h, w)`.
        bias: `(C_out,)` or None.
        geometry: How it walks.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        constant(self, "weight", weight)
        self.bias = None
        if bias is not None:
            constant(self, "bias", bias)

    def forward(self, x: Any, _attention: Any = None) -> Any:
        """`(B, C_out, H', W')`; an attention that the network hands over beside x is not looked at."""
        return self.geometry.convolve(x, self.weight, self.bias)


class SharedConstants:
    """Constants that several layers of one static network use, each held once, and what such layers must agree on.

    Args:
        channels_last: Whether maps are to lie with their channels last between layers, where layers can choose.
    """

    def __init__(self, *, channels_last: bool = False) -> None:
        self.channels_last = channels_last
        self._held: dict[str, Any] = {}
        self._agreed: dict[str, bool] = {}

    def agreed(self, key: str, wanted: bool) -> bool:
        """What the first layer that asked for a key wanted."""
        return self._agreed.setdefault(key, wanted)

    def give(self, layer: Any, name: str, key: str, make: Callable[[], np.ndarray]) -> None:
        """Give a layer the constant of a key as a parameter; `make` is called for the first that asks."""
        if key in self._held:
            setattr(layer, name, self._held[key])
        else:
            constant(layer, name, make())
            self._held[key] = getattr(layer, name)
