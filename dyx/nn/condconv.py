"""Conditionally parameterised convolution: a kernel per sample, mixed with weights that do not sum to one."""

from __future__ import annotations

from typing import Any

from dyx.nn.experts import Experts, check_experts, check_kernels
from dyx.nn.framework import Layer, functional, nn
from dyx.nn.geometry import read_geometry
from dyx.nn.per_sample import ExpertsConv, conv_of_experts
from dyx.nn.reading import LayerAdapter, Scores, array_of, optional_array_of


class CondRouting(Layer):
    """The routing of a block: `sigmoid(fc(GAP x))`, each expert's weight by itself. It has no temperature.

    Source: Yang et al., "CondConv: Conditionally Parameterized Convolutions for Efficient Inference", NeurIPS 2019.

    Args:
        channels: Channels C of the block's input.
        num_experts: How many weights, E.
    """

    def __init__(self, channels: int, num_experts: int) -> None:
        super().__init__()
        self.channels, self.num_experts = channels, num_experts
        self.avgpool = nn.AdaptiveAvgPool2D(1)
        self.fc = nn.Linear(channels, num_experts)

    def forward(self, x: Any) -> Any:
        """Weights `(B, E)`, each in (0, 1), of an input `(B, C, H, W)`."""
        return functional.sigmoid(self.fc(self.avgpool(x).flatten(1)))


class CondConv2D(ExpertsConv):
    """`y_b = conv(x_b, Σ_e r_be W_e) + Σ_e r_be b_e`; the weights r come from the block, which shares them.

    Source: Yang et al., NeurIPS 2019. Kernels are `weight (E, C_out, C_in / groups, k, k)`, biases `bias (E, C_out)`.
    Every expert starts as a convolution of its own would in PyTorch: uniform within `±1 / sqrt(fan_in)`, biases too.
    """

    def __init__(  # noqa: PLR0913 - the signature of d-li14's condconv.pytorch, which its users know
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | str = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        num_experts: int = 1,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.num_experts = num_experts
        shape = [num_experts, out_channels, in_channels // groups, kernel_size, kernel_size]
        bound = (in_channels // groups * kernel_size**2) ** -0.5
        uniform = nn.initializer.Uniform(-bound, bound)
        self.weight = self.create_parameter(shape, default_initializer=uniform)
        self.bias = None
        if bias:
            self.bias = self.create_parameter([num_experts, out_channels], default_initializer=uniform)

    def forward(self, x: Any, routing_weights: Any) -> Any:
        """`(B, C_out, H', W')` of `x (B, C_in, H, W)` and `routing_weights (B, E)`."""
        return conv_of_experts(self, x, routing_weights)


def read_condconv(layer: Any) -> Experts:
    """The experts of a `CondConv2D`; its weights come beside the input. Raises LayerUnreadable."""
    name = type(layer).__name__
    weight = check_kernels(array_of(layer, "weight"), name)
    experts = Experts(weight, optional_array_of(layer, "bias"), read_geometry(layer, weight.shape[3:]))
    check_experts(experts, name)
    return experts


def _scores(_layer: Any) -> tuple[Scores, ...]:
    """None of its own: the block's router makes them."""
    return ()


def _attention(_layer: Any, _x: Any, routing_weights: Any) -> tuple[Any]:
    return (routing_weights,)


CONDCONV = LayerAdapter("condconv", read_condconv, _scores, attention=_attention)
"""Convolutions whose experts are weighted by a router that the block shares."""
