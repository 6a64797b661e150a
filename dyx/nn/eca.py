"""Efficient channel attention: a channel's gate depends on the means of its neighbours."""

from __future__ import annotations

from typing import Any

from dyx.nn.framework import Layer, functional, nn


class ECA(Layer):
    """`y = x · sigmoid(conv1d_k(GAP x))`, the convolution running over the channels.

    Source: Wang et al., "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", CVPR 2020, in
    the articles' form: zero padding, no bias; k = 3 for 48 and 128 channels, 5 for 192.

    Args:
        channels: Channels C.
        k_size: Channels that a gate depends on, k; odd.
    """

    def __init__(self, channels: int, k_size: int = 3) -> None:
        super().__init__()
        self.channels, self.k_size = channels, k_size
        self.avgpool = nn.AdaptiveAvgPool2D(1)
        self.conv = nn.Conv1D(1, 1, k_size, padding=(k_size - 1) // 2, bias_attr=False)

    def gate(self, x: Any) -> Any:
        """Factors `(B, C, 1, 1)` in (0, 1)."""
        means = self.avgpool(x).reshape([0, 1, self.channels])
        return functional.sigmoid(self.conv(means)).reshape([0, self.channels, 1, 1])

    def forward(self, x: Any) -> Any:
        """`(B, C, H, W)` of the same shape."""
        return x * self.gate(x)
