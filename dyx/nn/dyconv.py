"""Dynamic convolution as it is trained: one kernel per sample, mixed from K experts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dyx.nn.attention import Routing, RoutingAttention, check_routing, read_routing
from dyx.nn.experts import Experts, check_experts, check_kernels
from dyx.nn.framework import nn
from dyx.nn.geometry import read_geometry
from dyx.nn.per_sample import ExpertsConv, conv_of_experts
from dyx.nn.reading import LayerAdapter, Scores, array_of, attribute, optional_array_of


class DYConv2D(ExpertsConv):
    """`y_b = conv(x_b, Σ_k a_bk W_k) + Σ_k a_bk b_k` with `a = softmax(routing(x) / T)`.

    Source: Chen et al., CVPR 2020. This is the definition; what dyx exports is a fold of it. Kernels are
    `weight (K, C_out, C_in / groups, k, k)`, biases `bias (K, C_out)`.
    """

    def __init__(  # noqa: PLR0913 - the articles' signature, which their users know
        self,
        inplanes: int,
        outplanes: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias_attr: bool | None = None,
        num_experts: int = 4,
    ) -> None:
        super().__init__()
        self.inplanes, self.outplanes, self.kernel_size = inplanes, outplanes, kernel_size
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.num_experts = num_experts
        shape = [num_experts, outplanes, inplanes // groups, kernel_size, kernel_size]
        fan_in = inplanes // groups * kernel_size**2
        kaiming = nn.initializer.Normal(0.0, (2.0 / fan_in) ** 0.5)
        self.weight = self.create_parameter(shape, default_initializer=kaiming)
        self.bias = None
        if bias_attr is not False:
            self.bias = self.create_parameter([num_experts, outplanes], is_bias=True)
        self.routing = RoutingAttention(inplanes, num_experts)

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')` of `(B, C_in, H, W)`."""
        return conv_of_experts(self, x, self.routing(x))


@dataclass(frozen=True)
class DyConvParameters(Experts):
    """A K-expert convolution with softmax routing.

    Attributes:
        routing: Where the K weights come from.
    """

    routing: Routing

    def at(self, temperature: float) -> DyConvParameters:
        """The same layer at another temperature."""
        return replace(self, routing=replace(self.routing, temperature=temperature))


def read_dyconv(layer: Any) -> DyConvParameters:
    """The parameters of a `DYConv2D` written as the articles write it. Raises LayerUnreadable."""
    name = type(layer).__name__
    routing = read_routing(attribute(layer, "routing"), name)
    return parameters_of(layer, routing)


def parameters_of(layer: Any, routing: Routing) -> DyConvParameters:
    """The parameters of a layer with `weight` and `bias`, given its routing. Raises LayerUnreadable."""
    name = type(layer).__name__
    weight = check_kernels(array_of(layer, "weight"), name)
    geometry = read_geometry(layer, weight.shape[3:])
    parameters = DyConvParameters(weight, optional_array_of(layer, "bias"), geometry, routing)
    check_experts(parameters, name)
    check_routing(routing, parameters.experts, parameters.channels_in, name)
    return parameters


def _set_temperature(layer: Any, temperature: float) -> None:
    layer.routing.temperature = temperature


def _scores(layer: Any) -> tuple[Scores]:
    return (Scores(list(layer.routing.net)[-1], COMPETITION, competing=True),)


def _attention(layer: Any, x: Any) -> tuple[Any]:
    return (layer.routing(x),)


COMPETITION = 1.5
"""Deviation of score differences between experts: attention then spreads over about .03 … .97."""

DYCONV = LayerAdapter("dyconv", read_dyconv, _scores, _set_temperature, attention=_attention)
"""The articles' dynamic convolution."""
