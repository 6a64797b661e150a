"""Squeeze and excitation: a channel's gate depends on the means of all channels."""

from __future__ import annotations

from typing import Any

from dyx.nn.framework import Layer, functional, nn


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
