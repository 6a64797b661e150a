"""A map as a matrix: im2col, so that a convolution with computed kernels is a batched matmul.

*Rows* `(B, g, positions, depth)` have a position of the output in each row, the channels of a group at all taps side
by side; *columns* `(B, g, depth, positions)` are their transpose.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from dyx.exporter.folded.constants import SharedConstants, constant
from dyx.nn.framework import Layer, paddle
from dyx.nn.geometry import Geometry

_NARROW = 4
"""Inputs of so few channels are unfolded by a dense convolution: gathering rows of a few bytes each costs more, and
its table of positions would be large beside such a network."""


class Rows(Layer):
    """Rows of a map: im2col as one gather of whole positions, channels last.

    It measured faster than one-hot convolutions and than slices on all backends, and pads without a padding operator.

    Args:
        geometry: How the convolution walks.
        size: Of the maps that it will see; others are possible in eager mode, and slower.
        shared: Holds the table of positions.
    """

    by_rows = True

    def __init__(self, geometry: Geometry, size: tuple[int, ...], shared: SharedConstants) -> None:
        super().__init__()
        self.geometry, self.size = geometry, size
        self.gathers = moves(geometry)
        if self.gathers:
            key = f"taps {geometry.kernel} {geometry.stride} {geometry.padding} {geometry.dilation} of {size}"
            shared.give(self, "table", key, lambda: tap_table(geometry, size).reshape(-1))

    def forward(self, x: Any) -> Any:
        """`(B, g, H'·W', taps · C/g)` of `(B, C, H, W)`."""
        channels, *size = x.shape[1:]
        rows = x.transpose([0, 2, 3, 1]).reshape([-1, 1, prod(size), channels])
        taps = self._taps(rows, tuple(size)) if self.gathers else rows
        groups, count = self.geometry.groups, prod(self.geometry.kernel)
        if groups == 1:
            return as_factor(taps, [-1, 1, prod(output_size(self.geometry, tuple(size))), count * channels])
        split = taps.reshape([0, taps.shape[2] // count, count, groups, channels // groups])
        return split.transpose([0, 3, 1, 2, 4]).flatten(3)

    def _taps(self, rows: Any, size: tuple[int, ...]) -> Any:
        """Rows `(B, 1, H'·W'·taps, C)` of rows `(B, 1, H·W, C)`."""
        if any(self.geometry.padding):
            rows = paddle.concat([rows, paddle.zeros_like(rows[:, :, :1])], axis=2)
        # The table is a parameter like any other, so it has their dtype.
        table = self.table if size == self.size else paddle.to_tensor(tap_table(self.geometry, size).reshape(-1))
        return paddle.gather(rows, table.astype("int32"), axis=2)


def as_factor(x: Any, shape: list[int], *, transposed: bool = False) -> Any:
    """A tensor reshaped to three or four axes, and perhaps the last two exchanged, to be a factor of a matmul.

    Paddle's oneDNN copies at a reshape, unless a transpose follows it and a matmul follows that: then both are strides
    to it. So there always is a transpose; one that changes nothing is gone from the ONNX file. Never for what a
    convolution gives: its channels may lie in blocks, which those strides would not see, and the answer is wrong.
    """
    axes = list(range(len(shape)))
    return x.reshape(shape).transpose([*axes[:-2], axes[-1], axes[-2]] if transposed else axes)


class Columns(Layer):
    """Columns of a map: the map itself where a kernel is 1×1, else unfolded by one convolution with one-hot kernels.

    Args:
        geometry: How the convolution walks.
        channels: Of the input, in one group unless the kernel is 1×1.
    """

    by_rows = False

    def __init__(self, geometry: Geometry, channels: int) -> None:
        super().__init__()
        self.geometry, self.unfolds = geometry, moves(geometry)
        if self.unfolds:
            taps = prod(geometry.kernel)
            one_hot = np.eye(taps * channels).reshape(taps * channels, taps, channels).swapaxes(1, 2)
            constant(self, "one_hot", one_hot.reshape(taps * channels, channels, *geometry.kernel))

    def forward(self, x: Any) -> Any:
        """`(B, g, taps · C/g, H'·W')` of `(B, C, H, W)`."""
        if self.unfolds:
            x = self.geometry.convolve(x, self.one_hot)
        groups, (channels, *size) = self.geometry.groups, x.shape[1:]
        return x.reshape([0, groups, channels // groups, prod(size)])


def matrix_of(geometry: Geometry, channels: int, size: tuple[int, ...], shared: SharedConstants) -> Rows | Columns:
    """What makes rows or columns of a map, whichever is faster."""
    narrow = channels <= _NARROW and geometry.groups == 1
    by_columns = narrow or not moves(geometry)
    return Columns(geometry, channels) if by_columns else Rows(geometry, size, shared)


def lying_in_rows(weight: np.ndarray, groups: int) -> np.ndarray:
    """Kernels `(K, C_out, C/g, h, w)` as `(K, g · taps · C/g · C_out/g)`: as rows have them, to be mixed."""
    experts, channels_out, channels_in = weight.shape[:3]
    split = weight.reshape(experts, groups, channels_out // groups, channels_in, -1)
    return split.transpose(0, 1, 4, 3, 2).reshape(experts, -1)


def applied(matrix: Rows | Columns, x: Any, kernels: Any) -> Any:
    """The map `(B, C_out, H', W')` that kernels `(B, g, taps · C/g, C_out/g)`, one per sample, make of a map."""
    groups, channels, size = kernels.shape[1], kernels.shape[3], output_size(matrix.geometry, tuple(x.shape[2:]))
    if matrix.by_rows:
        y = paddle.matmul(matrix(x), kernels).transpose([0, 1, 3, 2])
    else:
        y = paddle.matmul(kernels.transpose([0, 1, 3, 2]), matrix(x))
    # With -1 for the batch and not 0: Paddle's oneDNN then takes a transpose before it along.
    return y.reshape([-1, groups * channels, *size])


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
    kernel, stride = geometry.kernel[axis], geometry.stride[axis]
    if isinstance(geometry.padding, str) and geometry.padding.upper() == "SAME":
        count = -(-size // stride)
        return count, max((count - 1) * stride + kernel - size, 0) // 2, 1  # it forgets a dilation
    before = 0 if isinstance(geometry.padding, str) else int(geometry.padding[axis])
    gap = geometry.dilation[axis]
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


def moves(geometry: Geometry) -> bool:
    """Whether a convolution reads other positions than those that it writes."""
    return prod(geometry.kernel) * prod(geometry.stride) > 1 or any(geometry.padding)
