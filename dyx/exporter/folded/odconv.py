"""Static layers for ODConv: its four attentions, and a kernel or a mixture that they scale."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from dyx.exporter.folded.constants import constant
from dyx.exporter.folded.factors import as_factor
from dyx.exporter.folded.gates import logistic
from dyx.exporter.folded.rows import Matrix, applied, kernel_shape, lying_for, scaled_along, scales_kernel
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


class Scaled(Layer):
    """What every fold of an ODConv layer holds; abstract.

    Args:
        attention: A FoldedOdAttention.
        offset: `(C_out,)` or None.
    """

    def __init__(self, attention: Any, offset: np.ndarray | None) -> None:
        super().__init__()
        self.attention, self.offset = attention, None
        if offset is not None:
            constant(self, "offset", offset.reshape(1, -1, 1, 1))

    def add_offset(self, y: Any) -> Any:
        """`y + offset`, for y `(B, C_out, H, W)`."""
        return y if self.offset is None else y + self.offset


class ScaledMixture(Scaled):
    """`filters · inner(channel · x, kernel) + offset`: of a 1×1 kernel, which has no spatial attention.

    Args:
        attention: A FoldedOdAttention.
        inner: A mixture that is handed its weights, or a static convolution.
        offset: `(C_out,)` or None.
    """

    def __init__(self, attention: Any, inner: Any, offset: np.ndarray | None) -> None:
        super().__init__(attention, offset)
        self.inner = inner

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')`."""
        channel, filters, _, kernel = self.attention(x)
        y = self.inner(x * channel, kernel)
        return self.add_offset(y if filters is None else y * filters)


class ScaledKernel(Scaled):
    """A kernel per sample, mixed by one matmul and applied to rows, columns or tiles by others.

    Channel and spatial attention are one factor per tap and input channel, filter attention one per output channel.
    Either goes where there is less to multiply: into the kernel, or onto the map.

    Args:
        attention: A FoldedOdAttention.
        weight: `(K, C_out, C_in/g, h, w)`.
        offset: `(C_out,)` or None.
        matrix: What makes rows, columns or tiles of the map.
        filters_kernel: Whether the filter attention goes into the kernel.
    """

    def __init__(
        self,
        attention: Any,
        weight: np.ndarray,
        offset: np.ndarray | None,
        matrix: Matrix,
        *,
        filters_kernel: bool,
    ) -> None:
        super().__init__(attention, offset)
        self.matrix, self.filters_kernel, self.kernel_shape = matrix, filters_kernel, kernel_shape(matrix, weight)
        constant(self, "weight", lying_for(matrix, weight))

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')`."""
        channel, filters, spatial, kernel = self.attention(x)
        kernels, scale = as_factor(mixed(self.weight, kernel), self.kernel_shape), None
        taps = tap_factors(channel, spatial, self.matrix.geometry)
        inner, outer = (filters, None) if self.filters_kernel else (None, filters)
        if kernel is None and scales_kernel(self.matrix, x, kernels):
            kernels = self._scaled_alone(kernels, taps, inner)
        else:
            scale = taps
            if inner is not None:
                kernels = scaled_along(kernels, inner, last=not self.matrix.kernels_left)
        y = applied(self.matrix, x, kernels, scale)
        return self.add_offset(y if outer is None else y * outer)

    def _scaled_alone(self, kernels: Any, taps: Any, filters: Any) -> Any:
        """A single expert `(1, g, m, n)` times factors of each tap and channel, and of each output where there are any.

        All factors of a sample are made first, as an outer product: Paddle's oneDNN takes fifty times as long for a
        product of which both sides are broadcast.
        """
        groups, rows, columns = self.kernel_shape[1:]
        depth, count = (columns, rows) if self.matrix.kernels_left else (rows, columns)
        taps = taps.reshape([-1, groups, depth, 1])
        # In 2-D: of a matmul of four axes and a batch of one Paddle thinks that its batch is one, too.
        each = paddle.ones([1, count], taps.dtype) if filters is None else filters.reshape([-1, groups, 1, count])
        factors = paddle.matmul(taps, each)
        return kernels * (factors.transpose([0, 1, 3, 2]) if self.matrix.kernels_left else factors)


class ScaledDepthwise(Scaled):
    """The same for a depthwise convolution: its kernel is small, so all is scaled there.

    Args:
        attention: A FoldedOdAttention.
        weight: `(K, C, 1, h, w)`.
        offset: `(C,)` or None.
        geometry: How the convolution walks.
        depthwise: What applies the kernels; see `depthwise_per_sample`.
    """

    def __init__(
        self, attention: Any, weight: np.ndarray, offset: np.ndarray | None, geometry: Geometry, depthwise: Any
    ) -> None:
        super().__init__(attention, offset)
        self.geometry, self.depthwise = geometry, depthwise
        constant(self, "weight", weight.reshape(len(weight), -1))

    def forward(self, x: Any) -> Any:
        """`(B, C, H', W')`."""
        channel, filters, spatial, kernel = self.attention(x)
        channel = channel if filters is None else channel * filters
        factors = tap_factors(channel, spatial, self.geometry).reshape([0, self.weight.shape[1]])
        return self.add_offset(self.depthwise(x, mixed(self.weight, kernel) * factors))


def mixed(weight: Any, kernel: Any) -> Any:
    """Kernels `(B, n)` of experts `(K, n)` by their attention `(B, K)`; a single expert `(1, n)` as it is."""
    return weight if kernel is None else paddle.matmul(kernel, weight)


def tap_factors(channel: Any, spatial: Any, geometry: Geometry) -> Any:
    """`(B, g, taps · C/g)`: channel attention `(B, C, 1, 1)` times spatial attention `(B, taps)`, None of one tap."""
    channels, groups, taps = channel.shape[1], geometry.groups, prod(geometry.kernel)
    factor = channel.reshape([0, 1, channels])
    if spatial is not None:
        factor = paddle.matmul(spatial.reshape([0, taps, 1]), factor)
    if groups > 1:
        factor = factor.reshape([0, taps, groups, channels // groups]).transpose([0, 2, 1, 3])
    return factor.reshape([0, groups, taps * channels // groups])
