"""Routing: which expert a sample wants, as weights that sum to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dyx.errors import LayerUnreadable
from dyx.nn.framework import Layer, functional, nn
from dyx.nn.reading import attribute, matrix_of

if TYPE_CHECKING:
    import numpy as np


class RoutingAttention(Layer):
    """The attention of a dynamic convolution: `softmax(fc2(relu(fc1(GAP x))) / T)`.

    Source: Chen et al., "Dynamic Convolution: Attention over Convolution Kernels", CVPR 2020, in the articles' form:
    both layers are 1×1 convolutions with biases, `C // 4` hidden channels.

    Args:
        inplanes: Input channels C.
        num_experts: How many weights, K.
        temperature: T. It is no parameter: a state dict does not carry it.
    """

    def __init__(self, inplanes: int, num_experts: int, temperature: float = 1.0) -> None:
        super().__init__()
        hidden = inplanes // 4
        self.avgpool = nn.AdaptiveAvgPool2D(1)
        self.net = nn.Sequential(nn.Conv2D(inplanes, hidden, 1), nn.ReLU(), nn.Conv2D(hidden, num_experts, 1))
        self.temperature = temperature
        self.num_experts = num_experts

    def forward(self, x: Any) -> Any:
        """Weights `(B, K)` of an input `(B, C, H, W)`."""
        scores = self.net(self.avgpool(x)).reshape([-1, self.num_experts])
        return functional.softmax(scores / self.temperature, axis=-1)


@dataclass(frozen=True)
class Routing:
    """Softmax routing `softmax((fc2 · relu(fc1 · GAP(x) + b1) + b2) / T)`, as float64 arrays.

    Attributes:
        fc1_weight: `(h, C)`.
        fc1_bias: `(h,)`.
        fc2_weight: `(K, h)`.
        fc2_bias: `(K,)`.
        temperature: T.
    """

    fc1_weight: np.ndarray
    fc1_bias: np.ndarray
    fc2_weight: np.ndarray
    fc2_bias: np.ndarray
    temperature: float


def read_routing(routing: Any, owner: str) -> Routing:
    """The parameters of a `RoutingAttention`: `.net` is conv 1×1, ReLU, conv 1×1. Raises LayerUnreadable."""
    net = list(attribute(routing, "net", owner))
    words = [type(layer).__name__ for layer in net]
    if words != ["Conv2D", "ReLU", "Conv2D"]:
        raise LayerUnreadable(owner, f"its routing.net is {', '.join(words)}, not Conv2D, ReLU, Conv2D")
    return Routing(*matrix_of(net[0], owner), *matrix_of(net[2], owner), temperature_of(routing, owner))


def temperature_of(routing: Any, owner: str) -> float:
    """The temperature of a routing. Raises LayerUnreadable where it has none."""
    return float(attribute(routing, "temperature", owner))


def check_routing(routing: Routing, experts: int, channels_in: int, name: str) -> None:
    """Raises LayerUnreadable where routing does not fit the kernels that it mixes."""
    hidden = len(routing.fc1_bias)
    wanted = {
        "routing's first layer": (routing.fc1_weight, (hidden, channels_in)),
        "routing's last layer": (routing.fc2_weight, (experts, hidden)),
    }
    for what, (array, shape) in wanted.items():
        if array.shape != shape:
            reason = f"its {what} has shape {list(array.shape)}, where {list(shape)} fits its weight"
            raise LayerUnreadable(name, reason)
