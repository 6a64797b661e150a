"""Dynamic convolution in the form that ImageNet backbones are trained with: its routing is half without biases."""

from __future__ import annotations

from typing import Any

from dyx.nn.attention import Routing, temperature_of
from dyx.nn.dyconv import COMPETITION, DyConvParameters, parameters_of
from dyx.nn.framework import Layer, functional, nn
from dyx.nn.per_sample import ExpertsConv, conv_of_experts
from dyx.nn.reading import LayerAdapter, Scores, attribute, matrix_of

PICTURE_CHANNELS = 3
"""An input of so many channels is a picture: its routing has K hidden channels."""


class DynamicConvAttention(Layer):
    """The attention of a dynamic convolution: `softmax(fc2(relu(fc1(GAP x))) / T)`, fc1 without a bias.

    Source: Chen et al., CVPR 2020, in the form of kaijieshi7's Dynamic-convolution-Pytorch; there is no official code.

    Args:
        in_planes: Input channels C.
        ratio: Hidden channels are `int(C · ratio) + 1`, or K for a picture.
        num_experts: How many weights, K.
        temperature: T. It is no parameter: a state dict does not carry it.
    """

    def __init__(self, in_planes: int, ratio: float, num_experts: int, temperature: float) -> None:
        super().__init__()
        hidden = num_experts if in_planes == PICTURE_CHANNELS else int(in_planes * ratio) + 1
        self.avgpool = nn.AdaptiveAvgPool2D(1)
        self.fc1 = nn.Conv2D(in_planes, hidden, 1, weight_attr=_kaiming_normal(hidden), bias_attr=False)
        self.fc2 = nn.Conv2D(hidden, num_experts, 1, weight_attr=_kaiming_normal(num_experts))
        self.temperature = temperature

    def forward(self, x: Any) -> Any:
        """Weights `(B, K)`, which sum to one, of an input `(B, C, H, W)`."""
        scores = self.fc2(functional.relu(self.fc1(self.avgpool(x)))).flatten(1)
        return functional.softmax(scores / self.temperature, axis=-1)


class DynamicConv2D(ExpertsConv):
    """`y_b = conv(x_b, Σ_k a_bk W_k) + Σ_k a_bk b_k` with `a = attention(x)`.

    Source: Chen et al., CVPR 2020, in the form of kaijieshi7's Dynamic-convolution-Pytorch. Kernels are
    `weight (K, C_out, C_in / groups, k, k)`, biases `bias (K, C_out)`. Training lowers T from 34 by 3 per epoch to 1; a
    reloaded network stands at 34 again until it is told otherwise.
    """

    def __init__(  # noqa: PLR0913 - the reference's signature, which its users know
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: int,
        ratio: float = 0.25,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        K: int = 4,  # noqa: N803 - the reference's name
        temperature: float = 34,
    ) -> None:
        super().__init__()
        self.in_planes, self.out_planes, self.kernel_size = in_planes, out_planes, kernel_size
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.num_experts = K
        self.attention = DynamicConvAttention(in_planes, ratio, K, temperature)
        shape = [K, out_planes, in_planes // groups, kernel_size, kernel_size]
        bound = (6.0 / (in_planes // groups * kernel_size**2)) ** 0.5
        self.weight = self.create_parameter(shape, default_initializer=nn.initializer.Uniform(-bound, bound))
        self.bias = self.create_parameter([K, out_planes], is_bias=True) if bias else None

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')` of `(B, C_in, H, W)`."""
        return conv_of_experts(self, x, self.attention(x))


def _kaiming_normal(fan_out: int) -> Any:
    return nn.initializer.Normal(0.0, (2.0 / fan_out) ** 0.5)


def read_dynamic_conv(layer: Any) -> DyConvParameters:
    """The parameters of a `DynamicConv2D`: `.attention` has `fc1`, `fc2` and `temperature`. Raises LayerUnreadable."""
    name = type(layer).__name__
    attention = attribute(layer, "attention")
    fc1, fc2 = (matrix_of(attribute(attention, part, name), name) for part in ("fc1", "fc2"))
    return parameters_of(layer, Routing(*fc1, *fc2, temperature_of(attention, name)))


def _set_temperature(layer: Any, temperature: float) -> None:
    layer.attention.temperature = temperature


def _scores(layer: Any) -> tuple[Scores]:
    return (Scores(layer.attention.fc2, COMPETITION, competing=True),)


def _attention(layer: Any, x: Any) -> tuple[Any]:
    return (layer.attention(x),)


DYNAMIC_CONV = LayerAdapter("dyconv", read_dynamic_conv, _scores, _set_temperature, attention=_attention)
"""Dynamic convolution in the reference's form."""
