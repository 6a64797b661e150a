"""Static layers for ODConv: its four attentions, and a kernel or a mixture that they scale."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from dyx.exporter.folded.constants import constant
from dyx.exporter.folded.depthwise import DepthwisePerSample
from dyx.exporter.folded.gates import logistic
from dyx.exporter.folded.rows import Columns, Rows, applied, lying_in_rows
from dyx.nn.framework import Layer, functional, nn, paddle
from dyx.nn.geometry import Geometry
from dyx.nn.odconv import Head


class FoldedOdAttention(Layer):
    """The attentions of an ODConv layer with batch norm and temperature already in their convolutions.

    Args:
        trunk: `v = relu(weight · GAP x + bias)`.
        channel: At temperature 1, as the next three.
        filters: None where skipped, as the next two.
        spatial: Over the taps.
        kernel: Over the experts.
    """

    def __init__(
        self, trunk: Head, channel: Head, filters: Head | None, spatial: Head | None, kernel: Head | None
    ) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2D(1)
        heads = {"trunk": trunk, "channel": channel, "filters": filters, "spatial": spatial, "kernel": kernel}
        self.present = tuple(name for name, head in heads.items() if head is not None)
        for name, head in heads.items():
            if head is not None:
                constant(self, f"{name}_weight", head.weight[:, :, None, None])
                constant(self, f"{name}_bias", head.bias)

    def forward(self, x: Any) -> tuple[Any, Any, Any, Any]:
        """Channel `(B, C_in, 1, 1)`, filters `(B, C_out, 1, 1)`, spatial `(B, taps)`, kernel `(B, K)`, or None."""
        v = functional.relu(self._of("trunk", self.pool(x)))
        channel, filters, spatial = (
            logistic(self._of(name, v)) if name in self.present else None for name in ("channel", "filters", "spatial")
        )
        kernel = None
        if "kernel" in self.present:
            kernel = functional.softmax(self._of("kernel", v).reshape([0, self.kernel_bias.shape[0]]), axis=-1)
        if spatial is not None:
            spatial = spatial.reshape([0, self.spatial_bias.shape[0]])
        return channel, filters, spatial, kernel

    def _of(self, name: str, v: Any) -> Any:
        return functional.conv2d(v, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"))


class ScaledMixture(Layer):
    """`filters · inner(channel · x, kernel) + offset`: of a 1×1 kernel, which has no spatial attention.

    Args:
        attention: A FoldedOdAttention.
        inner: A mixture that is handed its weights, or a static convolution.
        offset: `(C_out,)` or None.
    """

    def __init__(self, attention: Any, inner: Any, offset: np.ndarray | None) -> None:
        super().__init__()
        self.attention, self.inner, self.offset = attention, inner, None
        if offset is not None:
            constant(self, "offset", offset.reshape(1, -1, 1, 1))

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')`."""
        channel, filters, _, kernel = self.attention(x)
        y = self.inner(x * channel, kernel)
        y = y if filters is None else y * filters
        return y if self.offset is None else y + self.offset


class ScaledKernel(Layer):
    """A kernel per sample, mixed by one matmul and scaled along its axes, applied to rows or columns by another.

    Channel and spatial attention are one factor per row of the kernel; filter attention goes where there is less to
    multiply, into the kernel or onto the output.

    Args:
        attention: A FoldedOdAttention.
        weight: `(K, C_out, C_in/g, h, w)`.
        offset: `(C_out,)` or None.
        geometry: How the convolution walks.
        matrix: What makes rows or columns of the map; None for a depthwise convolution.
        filters_kernel: Whether the filter attention goes into the kernel.
    """

    def __init__(
        self,
        attention: Any,
        weight: np.ndarray,
        offset: np.ndarray | None,
        geometry: Geometry,
        matrix: Rows | Columns | None,
        filters_kernel: bool,
    ) -> None:
        super().__init__()
        self.attention, self.geometry, self.filters_kernel = attention, geometry, filters_kernel
        self.channels_out, self.channels_in, self.taps = weight.shape[1], weight.shape[2], prod(weight.shape[3:])
        constant(self, "weight", lying_in_rows(weight, geometry.groups))
        self.offset = None
        if offset is not None:
            constant(self, "offset", offset.reshape(1, -1, 1, 1))
        self.matrix = matrix
        if matrix is None:
            self.depthwise = DepthwisePerSample(geometry.groups, geometry)

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')`."""
        channel, filters, spatial, kernel = self.attention(x)
        kernels = self._scaled(self._mixed(kernel), channel, spatial)
        groups = self.geometry.groups
        if filters is not None and self.filters_kernel:
            kernels = kernels * filters.reshape([0, groups, 1, self.channels_out // groups])
        y = self._applied(x, kernels)
        if filters is not None and not self.filters_kernel:
            y = y * filters
        return y if self.offset is None else y + self.offset

    def _mixed(self, kernel: Any) -> Any:
        """`(B, g, taps · C_in/g, C_out/g)`, or `(1, …)` of a single expert."""
        mixed = self.weight if kernel is None else paddle.matmul(kernel, self.weight)
        groups = self.geometry.groups
        return mixed.reshape([-1, groups, self.taps * self.channels_in, self.channels_out // groups])

    def _scaled(self, kernels: Any, channel: Any, spatial: Any) -> Any:
        """The kernels times one factor per tap and input channel."""
        groups = self.geometry.groups
        factor = channel.reshape([0, 1, groups * self.channels_in])
        if spatial is not None:
            factor = paddle.matmul(spatial.reshape([0, self.taps, 1]), factor)
        if groups > 1:
            count = self.taps if spatial is not None else 1
            factor = factor.reshape([0, count, groups, self.channels_in]).transpose([0, 2, 1, 3])
        if spatial is None and self.taps > 1:
            factor = paddle.tile(factor.reshape([0, groups, 1, self.channels_in]), [1, 1, self.taps, 1])
        return kernels * factor.reshape([0, groups, self.taps * self.channels_in, 1])

    def _applied(self, x: Any, kernels: Any) -> Any:
        if self.matrix is None:
            return self.depthwise(x, kernels.reshape([0, self.channels_out * self.taps]))
        return applied(self.matrix, x, kernels)
