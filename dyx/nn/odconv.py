"""Omni-dimensional dynamic convolution: attention over a kernel's inputs, outputs, positions and experts."""

from __future__ import annotations

from typing import Any

from dyx.nn.condconv import conv_per_sample
from dyx.nn.framework import Layer, functional, nn, paddle

MIN_HIDDEN = 16
"""The attention has at least so many hidden channels."""


class ODAttention(Layer):
    """Four attentions on one trunk `v = relu(bn(fc(GAP x)))`; each head is a 1×1 convolution of v, with bias.

    Channel, filter and spatial attention are `sigmoid(head / T)`, kernel attention is `softmax(head / T)`. A head that
    could only repeat another is None: `filter_fc` of a depthwise convolution, `spatial_fc` of a 1×1 kernel,
    `kernel_fc` of a single expert. T is the attribute `temperature`, 1 until it is set; it is no parameter, and a state
    dict does not carry it. Source: Li et al., "Omni-Dimensional Dynamic Convolution", ICLR 2022, and its official
    repository.
    """

    def __init__(
        self, in_planes: int, out_planes: int, kernel_size: int, groups: int, reduction: float, kernel_num: int
    ) -> None:
        super().__init__()
        self.kernel_size, self.temperature = kernel_size, 1.0
        hidden = max(int(in_planes * reduction), MIN_HIDDEN)
        self.avgpool = nn.AdaptiveAvgPool2D(1)
        self.fc = _conv1x1(in_planes, hidden, bias_attr=False)
        self.bn = nn.BatchNorm2D(hidden)
        self.relu = nn.ReLU()
        self.channel_fc = _conv1x1(hidden, in_planes)
        depthwise = groups == in_planes == out_planes
        self.filter_fc = None if depthwise else _conv1x1(hidden, out_planes)
        self.spatial_fc = None if kernel_size == 1 else _conv1x1(hidden, kernel_size**2)
        self.kernel_fc = None if kernel_num == 1 else _conv1x1(hidden, kernel_num)

    def forward(self, x: Any) -> tuple[Any, Any, Any, Any]:
        """Channel `(B, C_in, 1, 1)`, filter `(B, C_out, 1, 1)`, spatial `(B, 1, 1, k, k)` and kernel `(B, K)`.

        Where a head is None, its attention is the number 1.
        """
        v = self.relu(self.bn(self.fc(self.avgpool(x))))
        spatial, kernel = self._sigmoid(self.spatial_fc, v), 1.0
        if self.spatial_fc is not None:
            spatial = spatial.reshape([0, 1, 1, self.kernel_size, self.kernel_size])
        if self.kernel_fc is not None:
            kernel = functional.softmax(self.kernel_fc(v).flatten(1) / self.temperature, axis=-1)
        return self._sigmoid(self.channel_fc, v), self._sigmoid(self.filter_fc, v), spatial, kernel

    def _sigmoid(self, head: Any, v: Any) -> Any:
        return 1.0 if head is None else functional.sigmoid(head(v) / self.temperature)


class ODConv2D(Layer):
    """`y_b = filter_b · conv(channel_b · x_b, spatial_b · Σ_k kernel_bk W_k)`, without bias.

    Source: Li et al., ICLR 2022, and its official repository. Kernels are `weight (K, C_out, C_in / groups, k, k)`.
    A single 1×1 expert has no kernel per sample: it is a plain convolution between the two scalings.
    """

    def __init__(  # noqa: PLR0913 - the official signature, which its users know
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        reduction: float = 0.0625,
        kernel_num: int = 4,
    ) -> None:
        super().__init__()
        self.in_planes, self.out_planes, self.kernel_size = in_planes, out_planes, kernel_size
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.kernel_num = kernel_num
        self.attention = ODAttention(in_planes, out_planes, kernel_size, groups, reduction, kernel_num)
        shape = [kernel_num, out_planes, in_planes // groups, kernel_size, kernel_size]
        self.weight = self.create_parameter(shape, default_initializer=_kaiming_normal(out_planes * kernel_size**2))

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')` of `(B, C_in, H, W)`."""
        channel, filters, spatial, kernel = self.attention(x)
        scaled = x * channel
        if self.kernel_size == 1 and self.kernel_num == 1:
            y = functional.conv2d(scaled, self.weight[0], None, self.stride, self.padding, self.dilation, self.groups)
        else:
            y = conv_per_sample(self, scaled, spatial * self._mixed(kernel))
        return y * filters

    def _mixed(self, kernel: Any) -> Any:
        """`Σ_k kernel_bk W_k`: `(B, C_out, C_in / groups, k, k)`, or `(1, …)` where there is one expert."""
        if self.kernel_num == 1:
            return self.weight
        return paddle.matmul(kernel, self.weight.flatten(1)).reshape([-1, *self.weight.shape[1:]])


def _kaiming_normal(fan_out: int) -> Any:
    """The initial values of the official code: normal, for a ReLU, by the size of the output."""
    return nn.initializer.Normal(0.0, (2.0 / fan_out) ** 0.5)


def _conv1x1(channels_in: int, channels_out: int, bias_attr: bool | None = None) -> Any:
    return nn.Conv2D(channels_in, channels_out, 1, weight_attr=_kaiming_normal(channels_out), bias_attr=bias_attr)
