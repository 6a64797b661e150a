"""A map as a matrix: im2col, so that a convolution with computed kernels is a batched matmul.

*Rows* `(B, g, positions, depth)` have a position of the output in each row, the channels of a group at all taps side
by side; *columns* `(B, g, depth, positions)` are their transpose.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from dyx.exporter.folded.constants import SharedConstants, constant
from dyx.exporter.folded.factors import as_factor, gathered, to_rows, with_one
from dyx.exporter.folded.tiles import Tiles
from dyx.nn.framework import Layer, paddle
from dyx.nn.geometry import Geometry

_NARROW = 4
"""Inputs of so few channels are unfolded by a dense convolution: gathering rows of a few bytes each costs more, and
its table of positions would be large beside such a network."""


class Rows(Layer):
    """Rows of a map: im2col as one gather of whole positions, channels last.

    It measured faster than one-hot convolutions and than slices on all backends, and pads without a padding operator.
    Of a 1×1 kernel they are the map itself, turned.

    Args:
        geometry: How the convolution walks.
        size: Of the maps that it will see; others are possible in eager mode, and slower.
        shared: Holds the table of positions, and says whether answers are turned last.
        kernels_left: Whether kernels are to be the left factor of a product with them.
        taps_first: Whether each tap makes rows of its own. Only with one group.
    """

    by_rows = True

    def __init__(
        self,
        geometry: Geometry,
        size: tuple[int, ...],
        shared: SharedConstants,
        *,
        kernels_left: bool = False,
        taps_first: bool = False,
    ) -> None:
        super().__init__()
        self.geometry, self.size, self.kernels_left, self.taps_first = geometry, size, kernels_left, taps_first
        self.gathers, self.channels_last = moves(geometry), shared.channels_last and geometry.groups == 1
        if self.gathers:
            walk = f"{geometry.kernel} {geometry.stride} {geometry.padding} {geometry.dilation} of {size}"
            order = "taps first" if taps_first else "taps"
            shared.give(self, "table", f"{order} {walk}", lambda: self._table(size))

    def forward(self, x: Any) -> Any:
        """`(B, g, H'·W', taps · C/g)` of `(B, C, H, W)`; `(B, taps, H'·W', C)` with taps first."""
        (channels, *size), rows = x.shape[1:], to_rows(x)
        taps = self._taps(rows, tuple(size)) if self.gathers else rows
        groups, count = self.geometry.groups, prod(self.geometry.kernel)
        if groups == 1:
            positions = prod(output_size(self.geometry, tuple(size)))
            first, last = (count, channels) if self.taps_first else (1, count * channels)
            return as_factor(taps, [-1, first, positions, last])
        split = taps.reshape([0, taps.shape[2] // count, count, groups, channels // groups])
        return split.transpose([0, 3, 1, 2, 4]).flatten(3)

    def _taps(self, rows: Any, size: tuple[int, ...]) -> Any:
        """Rows `(B, 1, H'·W'·taps, C)` of rows `(B, 1, H·W, C)`."""
        # The table is a parameter like any other, so it has their dtype.
        table = self.table if size == self.size else paddle.to_tensor(self._table(size))
        return gathered(rows, table, beyond=any(self.geometry.padding))

    def _table(self, size: tuple[int, ...]) -> np.ndarray:
        table = tap_table(self.geometry, size)
        return (table.T if self.taps_first else table).reshape(-1)


class Columns(Layer):
    """Columns of a map: the map itself where a kernel is 1×1, else unfolded by one convolution with one-hot kernels.

    Args:
        geometry: How the convolution walks.
        channels: Of the input, in one group unless the kernel is 1×1.
        ones: Whether a row of ones comes last, for a bias that is the last column of kernels. Only with one group.
    """

    by_rows, kernels_left, channels_last = False, True, False

    def __init__(self, geometry: Geometry, channels: int, *, ones: bool = False) -> None:
        super().__init__()
        self.geometry, self.unfolds, self.ones = geometry, moves(geometry), ones
        if self.unfolds:
            taps = prod(geometry.kernel)
            one_hot = np.eye(taps * channels).reshape(taps * channels, taps, channels).swapaxes(1, 2)
            constant(self, "one_hot", one_hot.reshape(taps * channels, channels, *geometry.kernel))

    def forward(self, x: Any) -> Any:
        """`(B, g, taps · C/g, H'·W')` of `(B, C, H, W)`; a row more with ones."""
        if self.unfolds:
            x = self.geometry.convolve(x, self.one_hot)
        groups, (channels, *size) = self.geometry.groups, x.shape[1:]
        columns = x.reshape([0, groups, channels // groups, prod(size)])
        return with_one(columns, axis=2) if self.ones else columns


Matrix = Rows | Columns | Tiles
"""What a map becomes for kernels per sample."""


def matrix_of(
    geometry: Geometry, channels: int, size: tuple[int, ...], shared: SharedConstants, channels_out: int = 0
) -> Rows | Columns:
    """What makes rows or columns of a map, whichever is faster.

    Kernels are to stand on the left of it where they are the larger factor, or always with columns: runtimes repack
    what stands on the right. Without `channels_out` rows never stand there.
    """
    if unfolds_by_convolution(geometry, channels):
        return Columns(geometry, channels)
    if not moves(geometry):
        rows = shared.channels_last and geometry.groups == 1
        return Rows(geometry, size, shared) if rows else Columns(geometry, channels)
    positions = prod(output_size(geometry, size))
    return Rows(geometry, size, shared, kernels_left=positions < channels_out // geometry.groups)


def unfolds_by_convolution(geometry: Geometry, channels: int) -> bool:
    """Whether a map of so many channels is unfolded by a dense convolution instead of gathering its positions."""
    return channels <= _NARROW and geometry.groups == 1 and moves(geometry)


def lying_for(matrix: Matrix, weight: np.ndarray) -> np.ndarray:
    """Kernels `(K, C_out, C/g, h, w)` as the factors that a matrix wants, flat: `(K, n)`, to be mixed."""
    experts, channels_out, channels_in = weight.shape[:3]
    groups = matrix.geometry.groups
    split = weight.reshape(experts, groups, channels_out // groups, channels_in, -1)
    return split.transpose((0, 1, 2, 4, 3) if matrix.kernels_left else (0, 1, 4, 3, 2)).reshape(experts, -1)


def kernel_shape(matrix: Matrix, weight: np.ndarray) -> list[int]:
    """Shape of such kernels once they are mixed, samples first."""
    groups = matrix.geometry.groups
    channels, depth = weight.shape[1] // groups, prod(weight.shape[2:])
    return [-1, groups, *((channels, depth) if matrix.kernels_left else (depth, channels))]


def applied(matrix: Matrix, x: Any, kernels: Any, scale: Any = None) -> Any:
    """The map `(B, C_out, H', W')` that kernels, one per sample, make of a map.

    Args:
        matrix: Makes rows, columns or tiles of the map.
        x: The map.
        kernels: `(B, g, C_out/g, taps · C/g)` where the matrix wants them on its left, else the last two exchanged.
        scale: A factor for each tap and channel, `(B, g, taps · C/g)`, or None.
    """
    left = matrix.kernels_left
    if scale is not None and scales_kernel(matrix, x, kernels):
        kernels, scale = scaled_along(kernels, scale, last=left), None
    if isinstance(matrix, Tiles):
        return matrix.applied(x, kernels)
    size, inputs = output_size(matrix.geometry, tuple(x.shape[2:])), matrix(x)
    groups, channels = kernels.shape[1], kernels.shape[2 if left else 3]
    if scale is not None:
        inputs = scaled_along(inputs, scale, last=matrix.by_rows)
    if left:
        y = paddle.matmul(kernels, inputs, transpose_y=matrix.by_rows)
    else:
        y = paddle.matmul(inputs, kernels)
        if matrix.channels_last:
            return map_of_rows(y, size)
        y = y.transpose([0, 1, 3, 2])
    # With -1 for the batch and not 0: Paddle's oneDNN then takes a transpose before it along.
    return y.reshape([-1, groups * channels, *size])


def map_of_rows(y: Any, size: tuple[int, ...]) -> Any:
    """The map `(B, C, H', W')` of rows `(B, 1, H'·W', C)`: turned last of all, for the next layer to turn it back."""
    return y.reshape([-1, *size, y.shape[3]]).transpose([0, 3, 1, 2])


def scales_kernel(matrix: Matrix, x: Any, kernels: Any) -> bool:
    """Whether factors of taps and channels go into kernels, or onto rows or columns where those are fewer."""
    channels = kernels.shape[2 if matrix.kernels_left else 3]
    return isinstance(matrix, Tiles) or prod(output_size(matrix.geometry, tuple(x.shape[2:]))) >= channels


def scaled_along(x: Any, scale: Any, *, last: bool) -> Any:
    """Matrices `(B, g, m, n)` times `g · n` factors a sample, in any shape, along the last axis; or the one before.

    Sizes are read off the matrices: Paddle knows those, and may not know those of factors.
    """
    groups, count = x.shape[1], x.shape[3 if last else 2]
    if last:
        return x * scale.reshape([0, groups, 1, count])
    # In 3-D: Paddle's oneDNN takes fifty times as long for this broadcast of four axes.
    flat = x.reshape([-1, groups * count, x.shape[3]]) * scale.reshape([-1, groups * count, 1])
    return as_factor(flat, [-1, groups, count, x.shape[3]])


class LinearRows(Layer):
    """Rows of a linear layer's input."""

    by_rows = True

    def forward(self, x: Any) -> Any:
        """`(B, 1, positions, C)` of `(B, …, C)`."""
        return x.reshape([0, 1, prod(x.shape[1:-1]), x.shape[-1]])


def output_size(geometry: Geometry, size: tuple[int, ...]) -> tuple[int, ...]:
    """Spatial size of what a convolution makes of a map."""
    return tuple(_walk(geometry, axis, n)[0] for axis, n in enumerate(size))


def _walk(geometry: Geometry, axis: int, size: int) -> tuple[int, int, int]:
    """Outputs along an axis, zeros before its first input, gap between two taps; words mean what Paddle does."""
    kernel, stride, gap = geometry.kernel[axis], geometry.stride[axis], geometry.gaps[axis]
    if geometry.pads_to_same:
        count = -(-size // stride)
        return count, max((count - 1) * stride + kernel - size, 0) // 2, gap
    before = 0 if isinstance(geometry.padding, str) else int(geometry.padding[axis])
    return (size + 2 * before - gap * (kernel - 1) - 1) // stride + 1, before, gap


def tap_table(geometry: Geometry, size: tuple[int, ...]) -> np.ndarray:
    """`(H'·W', taps)`: which position of a map each tap reads; `H·W`, one past the last, where it reads padding."""
    height, width = size
    rows, columns = (_reads(geometry, axis, n) for axis, n in enumerate(size))
    inside = (rows >= 0) & (rows < height)
    inside = inside[:, None, :, None] & ((columns >= 0) & (columns < width))[None, :, None, :]
    positions = rows[:, None, :, None] * width + columns[None, :, None, :]
    table: np.ndarray = np.where(inside, positions, height * width).reshape(-1, prod(geometry.kernel))
    return table


def _reads(geometry: Geometry, axis: int, size: int) -> np.ndarray:
    """`(count, taps)`: the coordinates that an axis of the kernel reads for each coordinate of the output."""
    count, before, gap = _walk(geometry, axis, size)
    start = np.arange(count) * geometry.stride[axis] - before
    reads: np.ndarray = start[:, None] + np.arange(geometry.kernel[axis]) * gap
    return reads


def one_hot_reads(geometry: Geometry, axis: int, size: int) -> np.ndarray:
    """`(count, taps, size)`: 1 where an axis of the kernel reads a coordinate, for each of the output; else 0."""
    one_hot: np.ndarray = (_reads(geometry, axis, size)[..., None] == np.arange(size)).astype(np.float64)
    return one_hot


def moves(geometry: Geometry) -> bool:
    """Whether a convolution reads other positions than those that it writes."""
    return prod(geometry.kernel) * prod(geometry.stride) > 1 or any(geometry.padding)
