"""Routing: which expert a sample wants, as weights that sum to one."""

from __future__ import annotations

from typing import Any

from dyx.nn.framework import Layer, functional, nn


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
