"""Dynamic convolution as it is trained: one kernel per sample, mixed from K experts."""

from __future__ import annotations

from typing import Any

from dyx.nn.attention import RoutingAttention
from dyx.nn.framework import Layer, functional, nn, paddle


class DYConv2D(Layer):
    """`y_b = conv(x_b, Σ_k a_bk W_k) + Σ_k a_bk b_k` with `a = softmax(routing(x) / T)`.

    Source: Chen et al., CVPR 2020. This is the definition, with the batch moved into the channels; what dyx exports
    is a fold of it. Kernels are `weight (K, C_out, C_in / groups, k, k)`, biases `bias (K, C_out)`.
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
        """`(B, C_out, H', W')` of `(B, C_in, H, W)`, by one convolution with `groups · B` groups."""
        batch, _, height, width = x.shape
        attention = self.routing(x)
        mixed = paddle.matmul(attention, self.weight.reshape([self.num_experts, -1]))
        kernels = mixed.reshape([batch * self.outplanes, -1, self.kernel_size, self.kernel_size])
        bias = None
        if self.bias is not None:
            bias = paddle.matmul(attention, self.bias).reshape([-1])
        y = functional.conv2d(
            x.reshape([1, -1, height, width]),
            kernels,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups * batch,
        )
        return y.reshape([batch, self.outplanes, *y.shape[2:]])
