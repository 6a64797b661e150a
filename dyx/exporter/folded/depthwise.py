"""A depthwise convolution with kernels of their own for every sample, whatever they were computed from."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from dyx.exporter.folded.constants import constant
from dyx.nn.framework import Layer, paddle
from dyx.nn.geometry import Geometry


def row_split(geometry: Geometry) -> tuple[int, Geometry]:
    """Into how many rows a depthwise kernel is best cut, and the walk of one of them; one row is the whole kernel.

    All taps as patches take `kh · kw` times the output. Row by row it is `kw` shifted copies and `kh` partial sums,
    but at every line of the input, also where a stride leaves lines out.
    """
    taps, rows = prod(geometry.kernel), geometry.kernel[0]
    # A word pads one line at a time otherwise than the whole kernel.
    if isinstance(geometry.padding, str) or (rows + geometry.kernel[1]) * geometry.stride[0] >= taps:
        return 1, geometry
    walk = replace(
        geometry,
        kernel=(1, geometry.kernel[1]),
        stride=(1, geometry.stride[1]),
        dilation=(1, geometry.dilation[1]),
    )
    return rows, walk


def depthwise_work(geometry: Geometry, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> tuple[int, int]:
    """What `DepthwisePerSample` does to one image: multiply-accumulates, and floats read and written.

    Args:
        geometry: The whole walk.
        input_shape: `(C, H, W)`.
        output_shape: `(C, H', W')`.
    """
    rows, walk = row_split(geometry)
    columns = prod(walk.kernel)
    lines = output_shape[1] if rows == 1 else input_shape[1] + 2 * int(walk.padding[0])
    points = output_shape[0] * lines * output_shape[2]
    sums = 0 if rows == 1 else 2 * rows * points
    return (columns + rows) * columns * points, prod(input_shape) + 2 * columns * points + sums + prod(output_shape)


class Patches(Layer):
    """im2col by a grouped convolution with one-hot kernels: one node that knows stride, padding and dilation.

    Beside slices and `unfold` it measured fastest on onnxruntime and within about a tenth elsewhere. Above all it needs
    no padding operator: paddle2onnx 2.1 leaves pad3d's fill value uninitialised, and Paddle's oneDNN padding writes
    past its buffer.

    Args:
        channels: Of the input.
        geometry: How the convolution walks.
    """

    def __init__(self, channels: int, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = replace(geometry, groups=channels)
        taps = int(np.prod(geometry.kernel))
        one_hot = np.eye(taps).reshape(taps, 1, *geometry.kernel)
        constant(self, "one_hot", np.tile(one_hot, (channels, 1, 1, 1)))

    def forward(self, x: Any) -> Any:
        """`(B, C · taps, H', W')`, all taps of a channel side by side."""
        return self.geometry.convolve(x, self.one_hot)


class DepthwisePerSample(Layer):
    """`y_bc = x_bc * w_bc`: shifted copies, a batched matmul that mixes them, and a sum over the kernel's rows.

    Shifts along a line are one convolution with one-hot kernels, which pads by itself. A matmul then gives, for each
    of the kernel's rows, what that row makes of every line; the rows' parts meet shifted by whole lines, as slices.
    Against patches of all taps this measured 1.3 to 2.3 times as fast for 3×3 kernels on onnxruntime, OpenVINO and
    Paddle, 2.7 to 5 times for 5×5 and 3.4 to 10 times for 7×7; a multiplied slice for each tap came between. With a
    stride of 2 a 3×3 kernel goes as patches of all taps.

    Args:
        channels: C.
        geometry: How the convolution walks; it has C groups.
    """

    def __init__(self, channels: int, geometry: Geometry) -> None:
        super().__init__()
        self.channels, self.geometry = channels, geometry
        self.rows, walk = row_split(geometry)
        self.columns = prod(walk.kernel)
        self.copies = Patches(channels, walk)

    def forward(self, x: Any, kernels: Any) -> Any:
        """`(B, C, H', W')` of `x (B, C, H, W)` and `kernels (B, C · taps)`, all taps of a channel side by side."""
        copies = self.copies(x)
        lines, width = copies.shape[2:]
        copies = copies.reshape([0, self.channels, self.columns, lines * width])
        parts = paddle.matmul(kernels.reshape([0, self.channels, self.rows, self.columns]), copies)
        if self.rows == 1:
            return parts.reshape([0, self.channels, lines, width])
        return self._sum_of_rows(parts.reshape([0, self.channels, self.rows * lines, width]), lines)

    def _sum_of_rows(self, parts: Any, lines: int) -> Any:
        """Row i of the kernel begins `i · dilation` lines further down."""
        stride, dilation = self.geometry.stride[0], self.geometry.dilation[0]
        last = (lines - dilation * (self.rows - 1) - 1) // stride * stride
        starts = [row * lines + row * dilation for row in range(self.rows)]
        total, *others = [parts[:, :, start : start + last + 1 : stride] for start in starts]
        for part in others:
            total = total + part
        return total
