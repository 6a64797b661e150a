"""Static layers for channel gates, and static layers with a constant gate inside."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from dyx.exporter.folded.constants import constant
from dyx.nn.eca import EcaParameters
from dyx.nn.framework import Layer, functional, nn, paddle
from dyx.nn.na import EPSILON, NaParameters
from dyx.nn.se import SeParameters

_WIDEST = 512
"""Channels up to which ECA's convolution over channels is a full matrix: it grows with their square."""


class EcaGate(Layer):
    """ECA's factors: the convolution over channels as one 1×1 convolution with a banded matrix, no axis moved.

    Args:
        layer: As it was read.
        channels: C.
    """

    def __init__(self, layer: EcaParameters, channels: int) -> None:
        super().__init__()
        self.pool, self.channels = nn.AdaptiveAvgPool2D(1), channels
        self.reach = len(layer.kernel) // 2
        offsets = range(-self.reach, self.reach + 1)
        if channels <= _WIDEST:
            bands = [tap * np.eye(channels, k=offset) for tap, offset in zip(layer.kernel, offsets, strict=True)]
            constant(self, "weight", np.sum(bands, axis=0)[:, :, None, None])
        else:
            constant(self, "weight", layer.kernel[None, None])

    def forward(self, x: Any) -> Any:
        """Factors `(B, C, 1, 1)`."""
        means = self.pool(x)
        if self.channels <= _WIDEST:
            return functional.sigmoid(functional.conv2d(means, self.weight))
        scores = functional.conv1d(means.reshape([0, 1, self.channels]), self.weight, padding=self.reach)
        return functional.sigmoid(scores).reshape([0, self.channels, 1, 1])


class SeGate(Layer):
    """The factors of squeeze and excitation.

    Args:
        layer: As it was read.
    """

    def __init__(self, layer: SeParameters) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2D(1)
        for name, array in (("fc1", layer.fc1_weight), ("fc2", layer.fc2_weight)):
            constant(self, f"{name}_weight", array[:, :, None, None])
        constant(self, "fc1_bias", layer.fc1_bias)
        constant(self, "fc2_bias", layer.fc2_bias)

    def forward(self, x: Any) -> Any:
        """Factors `(B, C, 1, 1)`."""
        hidden = functional.relu(functional.conv2d(self.pool(x), self.fc1_weight, self.fc1_bias))
        return functional.relu6(functional.conv2d(hidden, self.fc2_weight, self.fc2_bias) + 3) / 6


class NaGate(Layer):
    """NANet's factors. Means over channels are products with a constant: runtimes do that well, and reductions badly.

    Args:
        layer: As it was read.
        channels: C.
    """

    def __init__(self, layer: NaParameters, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2D(1)
        constant(self, "average", np.full((1, channels, 1, 1), 1 / channels))
        constant(self, "shares", np.full((channels, 1), 1 / channels))
        # The unbiased variance is the mean of squares times this.
        self.unbiased = channels / (channels - 1)
        self.scale, self.shift = layer.scale, layer.shift

    def forward(self, x: Any) -> Any:
        """Factors `(B, C, 1, 1)`."""
        channels, height, width = x.shape[1:]
        means = functional.conv2d(x, self.average)
        distance = (means - self.pool(means)).abs().reshape([0, height * width])
        closeness = functional.softmax(-distance, axis=-1).reshape([0, height * width, 1])
        context = paddle.matmul(x.reshape([0, channels, height * width]), closeness).reshape([0, channels])
        centred = context - paddle.matmul(context, self.shares)
        deviation = (paddle.matmul(centred * centred, self.shares) * self.unbiased).sqrt() + EPSILON
        return functional.sigmoid(centred / deviation * self.scale + self.shift).reshape([0, channels, 1, 1])


def gate_of(layer: Any, channels: int) -> Any:
    """The static layer that makes the factors of a gate."""
    if isinstance(layer, EcaParameters):
        return EcaGate(layer, channels)
    return SeGate(layer) if isinstance(layer, SeParameters) else NaGate(layer, channels)


class Gated(Layer):
    """`then(x) · gate(x)`: the factors are those of x, and meet it where it is small.

    Args:
        gate: Makes `(B, C, 1, 1)`.
        then: Static layers that a positive factor may pass.
    """

    def __init__(self, gate: Any, *then: Any) -> None:
        super().__init__()
        self.gate, self.then = gate, nn.Sequential(*then)

    def forward(self, x: Any) -> Any:
        """`(B, C, H', W')`."""
        return self.then(x) * self.gate(x)


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
    channels = len(layer.bias if layer.bias is not None else layer.weight)
    factor = np.broadcast_to(factor, channels)
    weight = np.ones(channels) if layer.weight is None else layer.weight.numpy()
    constant(copied, "weight", weight * factor.reshape(-1, *(1,) * (weight.ndim - 1)))
    if layer.bias is not None:
        constant(copied, "bias", layer.bias.numpy() * factor)
    return copied
