"""Static layers for channel gates, and static layers with a constant gate inside."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from dyx.exporter.folded.constants import constant
from dyx.nn.eca import EcaParameters
from dyx.nn.framework import Layer, functional, paddle
from dyx.nn.na import EPSILON, NaParameters
from dyx.nn.se import SeParameters

WIDEST_MATRIX = 256
"""Channels up to which ECA's convolution over channels is a matrix; it grows with their square."""


def means(x: Any) -> Any:
    """Means over positions, `(B, C, 1, 1)`.

    By pooling, since Paddle's oneDNN is slow at means over axes; and not by global pooling, for which OpenVINO takes
    twice as long. Along rows first: onnxruntime adds up a whole map one by one, which loses five times as much.
    """
    height, width = x.shape[2:]
    rows = functional.avg_pool2d(x, [1, width], stride=1)
    return functional.avg_pool2d(rows, [height, 1], stride=1)


def logistic(scores: Any) -> Any:
    """`1 / (1 + exp(-s))`, written out for runtimes whose own sigmoid has no small values.

    onnxruntime's is 17 % off at -15 and 0 beyond -18. Where every gate of a layer is nearly closed, these small
    factors are all that the next layer sees.
    """
    # A number divided by a tensor makes paddle2onnx abort.
    return paddle.reciprocal(paddle.exp(-scores) + 1.0)


class EcaMatrix(Layer):
    """ECA's factors for few channels: its convolution over channels as one 1×1 convolution, no axis moved.

    Args:
        layer: As it was read.
        channels: C.
    """

    def __init__(self, layer: EcaParameters, channels: int) -> None:
        super().__init__()
        constant(self, "weight", layer.matrix(channels)[:, :, None, None])

    def forward(self, x: Any) -> Any:
        """Factors `(B, C, 1, 1)`."""
        return logistic(functional.conv2d(means(x), self.weight))


class EcaRow(Layer):
    """ECA's factors for many channels: its convolution over channels along a row, `(B, 1, 1, C)`.

    Args:
        layer: As it was read.
        channels: C.
    """

    def __init__(self, layer: EcaParameters, channels: int) -> None:
        super().__init__()
        self.channels, self.reach = channels, len(layer.kernel) // 2
        constant(self, "weight", layer.kernel[None, None, None])

    def forward(self, x: Any) -> Any:
        """Factors `(B, C, 1, 1)`."""
        row = means(x).reshape([0, 1, 1, self.channels])
        scores = functional.conv2d(row, self.weight, padding=[0, self.reach])
        return logistic(scores).reshape([0, self.channels, 1, 1])


class SeGate(Layer):
    """The factors of squeeze and excitation, `relu6(s + 3) / 6 = clip(s / 6 + 1/2, 0, 1)` with 1/6 in the last layer.

    Args:
        layer: As it was read.
    """

    def __init__(self, layer: SeParameters) -> None:
        super().__init__()
        for name, array in (("fc1", layer.fc1_weight), ("fc2", layer.fc2_weight / 6)):
            constant(self, f"{name}_weight", array[:, :, None, None])
        constant(self, "fc1_bias", layer.fc1_bias)
        constant(self, "fc2_bias", layer.fc2_bias / 6)

    def forward(self, x: Any) -> Any:
        """Factors `(B, C, 1, 1)`."""
        hidden = functional.relu(functional.conv2d(means(x), self.fc1_weight, self.fc1_bias))
        return functional.hardsigmoid(functional.conv2d(hidden, self.fc2_weight, self.fc2_bias), slope=1.0, offset=0.5)


class NaNetGate(Layer):
    """NANet's factors, all sums written as means that every runtime is quick at.

    Means over channels are 1×1 convolutions: Paddle's own mean over channels falls back to a slow kernel, and prints
    that it does. A mean in place of a sum over P positions, and a deviation with C in place of C - 1, change a scale;
    the small constant beside the deviation and w make that good.

    Args:
        layer: As it was read.
        channels: C, at least 2.
    """

    def __init__(self, layer: NaParameters, channels: int) -> None:
        super().__init__()
        self.unbias = (channels / (channels - 1)) ** 0.5
        constant(self, "mean", np.full((1, channels, 1, 1), 1 / channels))
        self.scale, self.shift = layer.scale / self.unbias, layer.shift

    def forward(self, x: Any) -> Any:
        """Factors `(B, C, 1, 1)`."""
        positions = prod(x.shape[2:])
        centred = self._centred(means(x * self._closeness(x)))
        deviation = functional.conv2d(centred * centred, self.mean).sqrt()
        standardised = centred / (deviation + EPSILON / positions / self.unbias)
        return logistic(standardised * self.scale + self.shift)

    def _closeness(self, x: Any) -> Any:
        """`softmax_p(-|m_p - mean m|)`, `(B, 1, H, W)`, of the mean m over channels."""
        values = functional.conv2d(x, self.mean)
        distance = (values - means(values)).abs()
        weights = functional.softmax(-distance.reshape([0, prod(x.shape[2:])]), axis=-1)
        return weights.reshape([0, 1, *x.shape[2:]])

    def _centred(self, values: Any) -> Any:
        return values - functional.conv2d(values, self.mean)


def _eca(layer: EcaParameters, channels: int) -> Any:
    return (EcaMatrix if channels <= WIDEST_MATRIX else EcaRow)(layer, channels)


GATES: Mapping[type, Callable[[Any, int], Any]] = {
    EcaParameters: _eca,
    SeParameters: lambda layer, _channels: SeGate(layer),
    NaParameters: NaNetGate,
}
"""What a gate was read into → what builds the layer that makes its factors, given that and the channels."""


class Gated(Layer):
    """`x · gate(x)`.

    Args:
        gate: Makes `(B, C, 1, 1)`.
    """

    def __init__(self, gate: Any) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Any) -> Any:
        """`(B, C, H, W)`."""
        return x * self.gate(x)


class PooledGate(Layer):
    """`relu(pool(x) · gate(x))`: the factors are those of x, and meet it where it is small.

    Args:
        gate: Makes `(B, C, 1, 1)`.
        pool: Max pooling.
        relu: A ReLU, or an identity.
    """

    def __init__(self, gate: Any, pool: Any, relu: Any) -> None:
        super().__init__()
        self.gate, self.pool, self.relu = gate, pool, relu

    def forward(self, x: Any) -> Any:
        """`(B, C, H', W')`. The ReLU comes last: runtimes fuse it into the product, and the map is small by then."""
        return self.relu(self.pool(x) * self.gate(x))


class Scale(Layer):
    """`x · factor`, a constant per channel.

    Args:
        factor: `(C,)`, or `(1,)`.
    """

    def __init__(self, factor: np.ndarray) -> None:
        super().__init__()
        constant(self, "factor", factor.reshape(1, -1, 1, 1))

    def forward(self, x: Any) -> Any:
        """`(B, C, H, W)`."""
        return x * self.factor


def scaled(layer: Any, factor: np.ndarray) -> Any:
    """A copy of a convolution or batch norm whose outputs are multiplied by a factor `(C,)`, or `(1,)`."""
    copied = copy.deepcopy(layer)
    # A batch norm may come without a weight, which then is 1.
    weight = np.ones(layer._mean.shape) if layer.weight is None else layer.weight.numpy()
    constant(copied, "weight", weight * factor.reshape(-1, *(1,) * (weight.ndim - 1)))
    if layer.bias is not None:
        constant(copied, "bias", layer.bias.numpy() * factor)
    return copied
