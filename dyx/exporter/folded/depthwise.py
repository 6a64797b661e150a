"""A depthwise convolution with kernels of their own for every sample, whatever they were computed from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from dyx.exporter.folded.constants import SharedConstants, constant
from dyx.exporter.folded.rows import one_hot_reads, output_size
from dyx.nn.framework import Layer, paddle
from dyx.nn.geometry import Geometry

_BANDED = 56
"""Lines and columns of the largest map that bands make."""


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


def in_bands(geometry: Geometry, size: tuple[int, ...]) -> bool:
    """Whether maps of so many lines and columns are convolved by bands: their arithmetic grows with the output's."""
    return max(output_size(geometry, size)) <= _BANDED


def depthwise_per_sample(
    geometry: Geometry, size: tuple[int, ...], shared: SharedConstants, *, scan: bool = False
) -> DepthwiseBands | DepthwiseCopies | DepthwiseScan:
    """What convolves every channel of every sample with a kernel of its own, for maps of such a size.

    Args:
        geometry: How the convolution walks; it has as many groups as channels.
        size: Of the maps that it will see.
        shared: Holds what layers of like maps have in common.
        scan: Whether an ONNX file convolves one sample after the other.
    """
    plain = DepthwiseBands(geometry, size, shared) if in_bands(geometry, size) else DepthwiseCopies(geometry)
    return DepthwiseScan(geometry, plain) if scan else plain


class DepthwiseScan(Layer):
    """`y_bc = x_bc * w_bc` as an ordinary depthwise convolution of one sample after the other: an ONNX `Scan`.

    A `Scan` over the samples keeps the batch free, where a single convolution would need `B · C` groups. Paddle has no
    such operator, and its oneDNN keeps the kernel of a convolution's first call. So in its programs the layer is
    another; `sample_by_sample` makes what the converter is given, and `scan.py` makes the loop.

    Args:
        geometry: How the convolution walks; it has C groups.
        otherwise: What computes the same without a loop.
    """

    def __init__(self, geometry: Geometry, otherwise: DepthwiseBands | DepthwiseCopies) -> None:
        super().__init__()
        self.geometry, self.otherwise, self.of_one_sample = geometry, otherwise, False

    def forward(self, x: Any, kernels: Any) -> Any:
        """`(B, C, H', W')` of `x (B, C, H, W)` and `kernels (B, C · taps)`, all taps of a channel side by side."""
        if not self.of_one_sample:
            return self.otherwise(x, kernels)
        first = kernels[:1].reshape([x.shape[1], 1, *self.geometry.kernel])
        return self.geometry.convolve(x, first)


@contextmanager
def sample_by_sample(network: Any) -> Iterator[list[str]]:
    """Inside the block every `DepthwiseScan` convolves with the first sample's kernels; gives their paths."""
    found = {path: layer for path, layer in network.named_sublayers() if isinstance(layer, DepthwiseScan)}
    for layer in found.values():
        layer.of_one_sample = True
    try:
        yield list(found)
    finally:
        for layer in found.values():
            layer.of_one_sample = False


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


class DepthwiseBands(Layer):
    """`y_bc = x_bc * w_bc` as three matmuls, of small maps.

    A kernel's taps are spread to a banded matrix, which takes the lines of a map to those of the output, once for each
    column of the kernel. A constant matrix then shifts and adds what the columns gave.

    Strides, dilations and padding are zeros of these matrices. Beside shifted copies it does up to `lines / kernel`
    times the arithmetic, as products of matrices. docs/speed.md has what it measured.

    Args:
        geometry: How the convolution walks; it has C groups.
        size: Of the maps that it will see; others are possible in eager mode, and slower.
        shared: Holds the matrices.
    """

    def __init__(self, geometry: Geometry, size: tuple[int, ...], shared: SharedConstants) -> None:
        super().__init__()
        self.geometry, self.size = geometry, size
        for name, make in (("spread", self._spread), ("across", self._across)):
            shared.give(self, name, f"{name} {replace(geometry, groups=1)} of {size}", partial(make, size))

    def forward(self, x: Any, kernels: Any) -> Any:
        """`(B, C, H', W')` of `x (B, C, H, W)` and `kernels (B, C · taps)`, all taps of a channel side by side."""
        channels, size = x.shape[1], tuple(x.shape[2:])
        columns, taps = self.geometry.kernel[1], prod(self.geometry.kernel)
        lines, width = output_size(self.geometry, size)
        spread, across = self._matrices(size)
        bands = paddle.matmul(kernels.reshape([-1, channels, taps]), spread)
        # The map is a factor after a reshape alone: what a convolution gives may lie in blocks of channels, which
        # Paddle's oneDNN then reads wrongly.
        rows = paddle.matmul(bands.reshape([-1, lines * columns, size[0]]), x.reshape([-1, *size]))
        # A reshape stands between the last product and what is added to each channel: OpenVINO and Paddle's oneDNN
        # would take both as one, which the former cannot do and the latter needs 20 times as long for.
        y = paddle.matmul(rows.reshape([-1, channels * lines, columns * size[1]]), across)
        return y.reshape([-1, channels, lines, width])

    def _matrices(self, size: tuple[int, ...]) -> tuple[Any, Any]:
        if size == self.size:
            return self.spread, self.across
        made = (self._spread(size), self._across(size))
        return tuple(paddle.to_tensor(matrix, dtype=self.spread.dtype) for matrix in made)

    def _spread(self, size: tuple[int, ...]) -> np.ndarray:
        """`(taps, H' · columns · H)`: where each tap of a kernel stands in its bands."""
        reads, columns = one_hot_reads(self.geometry, 0, size[0]), np.eye(self.geometry.kernel[1])
        bands: np.ndarray = np.einsum("oti,cd->tcodi", reads, columns)
        return bands.reshape(prod(self.geometry.kernel), -1)

    def _across(self, size: tuple[int, ...]) -> np.ndarray:
        """`(columns · W, W')`: which column of a map each column of the kernel reads for each of the output."""
        reads = one_hot_reads(self.geometry, 1, size[1])
        return reads.transpose(1, 2, 0).reshape(-1, len(reads))


class DepthwiseCopies(Layer):
    """`y_bc = x_bc * w_bc`: shifted copies, a batched matmul that mixes them, and a sum over the kernel's rows.

    Shifts along a line are one convolution with one-hot kernels, which pads by itself. A matmul then gives, for each
    of the kernel's rows, what that row makes of every line; the rows' parts meet shifted by whole lines, as slices.
    Against patches of all taps this measured 1.3 to 2.3 times as fast for 3×3 kernels on onnxruntime, OpenVINO and
    Paddle, 2.7 to 5 times for 5×5 and 3.4 to 10 times for 7×7; a multiplied slice for each tap came between. With a
    stride of 2 a 3×3 kernel goes as patches of all taps.

    Args:
        geometry: How the convolution walks; it has C groups.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.channels, self.geometry = geometry.groups, geometry
        self.rows, walk = row_split(geometry)
        self.columns = prod(walk.kernel)
        self.copies = Patches(geometry.groups, walk)

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
