"""Squeeze and excitation: a channel's gate depends on the means of all channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dyx.errors import LayerUnreadable
from dyx.nn.framework import Layer, functional, nn
from dyx.nn.gate import GateParameters, gate_adapter
from dyx.nn.reading import Scores, attribute, matrix_of

if TYPE_CHECKING:
    import numpy as np


class SqueezeExcite(Layer):
    """`y = x · hardsigmoid(fc2(relu(fc1(GAP x))))`, both layers 1×1 convolutions with biases.

    Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, with the hard sigmoid `relu6(s + 3) / 6` of Howard
    et al., "Searching for MobileNetV3", ICCV 2019. A gate may be exactly 0 or 1, and is never negative.

    Args:
        channels: Channels C.
        hidden: Channels between the two layers.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.channels, self.hidden = channels, hidden
        self.avgpool = nn.AdaptiveAvgPool2D(1)
        self.fc1 = nn.Conv2D(channels, hidden, 1)
        self.fc2 = nn.Conv2D(hidden, channels, 1)

    def gate(self, x: Any) -> Any:
        """Factors `(B, C, 1, 1)` in [0, 1]."""
        scores = self.fc2(functional.relu(self.fc1(self.avgpool(x))))
        # Paddle's hardsigmoid multiplies by .1666667, which is wrong from the seventh digit on.
        return functional.relu6(scores + 3) / 6

    def forward(self, x: Any) -> Any:
        """`(B, C, H, W)` of the same shape."""
        return x * self.gate(x)


@dataclass(frozen=True)
class SeParameters(GateParameters):
    """The gate `relu6(fc2 · relu(fc1 · GAP x + b1) + b2 + 3) / 6`.

    Attributes:
        fc1_weight: `(h, C)`.
        fc1_bias: `(h,)`.
        fc2_weight: `(C, h)`.
        fc2_bias: `(C,)`.
    """

    fc1_weight: np.ndarray
    fc1_bias: np.ndarray
    fc2_weight: np.ndarray
    fc2_bias: np.ndarray

    @property
    def channels_in(self) -> int:
        """C."""
        return int(self.fc1_weight.shape[1])


def read_se(layer: Any) -> SeParameters:
    """The parameters of a `SqueezeExcite`: `fc1` and `fc2` are 1×1 convolutions. Raises LayerUnreadable."""
    name = type(layer).__name__
    fc1, fc2 = (matrix_of(attribute(layer, part), name) for part in ("fc1", "fc2"))
    if fc2[0].shape != fc1[0].shape[::-1]:
        reason = f"its fc2 has shape {list(fc2[0].shape)}, where {list(fc1[0].shape[::-1])} fits its fc1"
        raise LayerUnreadable(name, reason)
    return SeParameters(*fc1, *fc2)


def _factors(layer: Any, x: Any) -> Any:
    return SqueezeExcite.gate(layer, x).flatten(1)


def _scores(layer: Any) -> tuple[Scores]:
    return (Scores(layer.fc2, SPREAD, CENTRE),)


SPREAD, CENTRE = 1.5, 1.0
"""Deviation of a score over inputs, and of the scores' means: some gates then are closed, and some open."""

SE_GATE = gate_adapter(read_se, _factors, _scores)
"""Squeeze and excitation."""
