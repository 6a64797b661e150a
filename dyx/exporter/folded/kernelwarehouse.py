"""Static layers for KernelWarehouse: shared cells, and what they are mixed into.

Cells lie as `(n, taps, C_in, C_out)`, and mixtures are counted `(out, spatial, in)`: a kernel mixed from them is then,
as it lies, the right factor of a product, whatever the grid. Where it is much larger than the map it is the left factor
instead, tap by tap: cells lie as `(n, 1, C_out, C_in)`, and mixtures are counted `(in, spatial, out)`. Kernels are
transposed only where layers that share cells disagree.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from dyx.exporter.folded.constants import SharedConstants, constant
from dyx.exporter.folded.factors import as_factor, gathered, with_zero
from dyx.exporter.folded.kw_attention import ContrastAttention
from dyx.exporter.folded.rows import (
    Columns,
    LinearRows,
    Matrix,
    Rows,
    map_of_rows,
    moves,
    output_size,
    tap_table,
)
from dyx.exporter.folded.tiles import Tiles
from dyx.nn.framework import Layer, functional, paddle
from dyx.nn.kw_parameters import KwParameters

_LARGE, _PAGE, _WIDE = 65536, 1024, 16
"""In floats, and inputs. Cells as large and wide that are whole pages of 4 KiB get an input of zeros each: mixing reads
the same place of all cells and writes that of all mixtures, and places whole pages apart share a few lines of each
cache. 27 cells of 512 × 512 for 72 mixtures took 37 ms on Paddle Inference, and take 18; onnxruntime packs them anyhow.
Maps of fewer inputs are unfolded by a convolution, which takes no channel more. Cells that lie as left factors get an
output of zeros instead.
"""
_OUTPUTS_PER_POSITION = 8
"""Cells lie as left factors where they have so many outputs for each position of a map. 512 at 7 × 7, batch 8, with the
cells mixed: 37 against 42 ms on onnxruntime, 40 against 38 on OpenVINO, 48 against 50 on Paddle Inference; at 4 × 4 and
batch 64 204 against 301, 192 against 217, 214 against 249. 256 at 7 × 7 lost on all three.
"""


def rows_of(layer: KwParameters, size: tuple[int, ...], shared: SharedConstants) -> Any:
    """What makes rows of a layer's inputs."""
    return LinearRows() if layer.linear else Rows(layer.geometry, size, shared)


class FoldedCells(Layer):
    """What every fold of a KernelWarehouse layer holds; abstract.

    Args:
        layer: With its attention folded, and in the order of this module.
    """

    def __init__(self, layer: KwParameters) -> None:
        super().__init__()
        self.attention = ContrastAttention(layer)
        self.linear, self.geometry, self.grid = layer.linear, layer.geometry, layer.grid
        self.channels_out, (self.cell_count, self.cell_out, self.cell_in) = layer.channels_out, layer.cells.shape[:3]
        self.bias = None
        if layer.bias is not None:
            constant(self, "bias", layer.bias)

    def of_rows(self, y: Any, x: Any) -> Any:
        """The output of `(B, blocks, positions, channels)`, for an input x."""
        if not self.linear:
            return self.of_columns(y.transpose([0, 1, 3, 2]), x)
        blocks, positions = y.shape[1:3]
        if blocks > 1 and positions > 1:
            # In two steps: Paddle's oneDNN makes one of a matmul, the transpose [0, 2, 1, 3], a reshape and a bias,
            # and adds the bias wrongly.
            y = y.transpose([0, 1, 3, 2]).reshape([-1, self.channels_out, positions]).transpose([0, 2, 1])
        return self.with_bias(y.reshape([0, *x.shape[1:-1], self.channels_out]))

    def of_columns(self, y: Any, x: Any) -> Any:
        """The output of `(B, blocks, channels, positions)`, for an input x."""
        # With -1 for the batch and not 0: Paddle's oneDNN then takes a transpose before it along.
        size = output_size(self.geometry, x.shape[2:])
        return self.with_bias(y.reshape([-1, self.channels_out, *size]))

    def with_bias(self, y: Any) -> Any:
        """An output and the bias. It is added after the reshape: fused into a matmul, Paddle's oneDNN is slow."""
        if self.bias is None:
            return y
        return y + (self.bias if self.linear else self.bias.reshape([1, -1, 1, 1]))


class MixedCells(Layer):
    """The blocks of kernels, mixed by one matmul for every sample.

    Args:
        layer: As in FoldedCells.
        shared: Holds the cells.
        left: Whether cells lie as left factors; the same for all layers that share them.
    """

    def __init__(self, layer: KwParameters, shared: SharedConstants, *, left: bool) -> None:
        super().__init__()
        self.left, self.count, self.zeros = left, layer.experts, zeros_of(layer)
        # With an axis of one in front, onnxruntime keeps no second, packed copy of the cells for every layer.
        shared.give(self, "cells", f"cells {layer.cells.name}", lambda: self._lying(layer))

    def _lying(self, layer: KwParameters) -> np.ndarray:
        cells = lying(layer).swapaxes(2, 3) if self.left else lying(layer)
        return np.pad(cells, ((0, 0), (0, 0), (0, self.zeros), (0, 0))).reshape(1, self.count, -1)

    def forward(self, alpha: Any) -> Any:
        """`(1, B · m, numbers of a cell)` of α `(B, m, n)`."""
        return paddle.matmul(alpha.reshape([1, -1, self.count]), self.cells)


class RightKernels(Layer):
    """Kernels mixed for every sample, as right factors, however the cells lie.

    Args:
        layer: As in FoldedCells.
        shared: Holds the cells.
        left: Whether its cells lie as left factors.
    """

    def __init__(self, layer: KwParameters, shared: SharedConstants, *, left: bool) -> None:
        super().__init__()
        self.mixed, self.grid, self.linear = MixedCells(layer, shared, left=left), layer.grid, layer.linear
        _, self.cell_out, self.cell_in, *cell = layer.cells.shape
        self.zeros = 0 if left else self.mixed.zeros
        self.cell_taps, self.cell_size = prod(cell), self.cell_out * (self.cell_in + self.zeros)
        depth = prod(layer.kernel_shape[1:]) // self.cell_in * (self.cell_in + self.zeros)
        self.shape = [-1, layer.grid.out, depth, self.cell_out]

    def widened(self, x: Any) -> Any:
        """A layer's input, with channels of zeros where kernels have such inputs."""
        if not self.zeros:
            return x
        axis = x.ndim - 1 if self.linear else 1
        before, after = x.shape[1:axis], x.shape[axis + 1 :]
        blocks = x.reshape([-1, *before, x.shape[axis] // self.cell_in, self.cell_in, *after])
        wide = with_zero(blocks, axis=axis + 1)
        return wide.reshape([-1, *before, wide.shape[axis] * wide.shape[axis + 1], *after])

    def forward(self, alpha: Any) -> Any:
        """`(B, out, taps · in, C_out / out)`, yet to be reshaped to `shape`, of α `(B, m, n)`; in: C_in/g and zeros."""
        blocks = self.mixed(alpha)
        if self.mixed.left:
            outputs = self.cell_out + self.mixed.zeros
            blocks = blocks.reshape([-1, outputs, self.cell_in])[:, : self.cell_out].transpose([0, 2, 1])
        if self.cell_taps > 1 and self.grid.in_ > 1:
            blocks = blocks.reshape([-1, self.grid.in_, self.cell_taps, self.cell_size]).transpose([0, 2, 1, 3])
        return blocks


class KernelPerSample(FoldedCells):
    """A kernel per sample, applied to rows, columns or tiles by batched matmuls.

    Args:
        layer: As in FoldedCells.
        matrix: What makes rows, columns or tiles of the input.
        shared: Holds the cells.
        left: Whether its cells lie as left factors.
    """

    def __init__(
        self, layer: KwParameters, matrix: Matrix | LinearRows, shared: SharedConstants, *, left: bool
    ) -> None:
        super().__init__(layer)
        self.kernels, self.matrix = RightKernels(layer, shared, left=left), matrix
        self.channels_last = isinstance(matrix, Rows) and matrix.channels_last
        self.whole = layer.geometry.groups > 1 or (layer.grid.out > 1 and self._wants_whole(matrix))

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')` of a map, `(B, …, C_out)` of a linear layer's input."""
        kernels, wide = self._factor(self.kernels(self.attention(x))), self.kernels.widened(x)
        if isinstance(self.matrix, Tiles):
            return self.with_bias(self.matrix.applied(wide, kernels))
        matrix = self.matrix(wide)
        if not self.matrix.by_rows:
            return self.of_columns(paddle.matmul(kernels, matrix), x)
        y = paddle.matmul(matrix, kernels)
        return self._turned_last(y, x) if self.channels_last else self.of_rows(y, x)

    def _wants_whole(self, matrix: Matrix | LinearRows) -> bool:
        """Whether blocks of a kernel are put together: for tiles, or where a map's blocks would cost more."""
        if isinstance(matrix, Rows) and matrix.channels_last:
            return prod(output_size(self.geometry, matrix.size)) > self.kernels.shape[2]
        return isinstance(matrix, Tiles)

    def _turned_last(self, y: Any, x: Any) -> Any:
        """The output of rows `(B, blocks, positions, channels)` whose turn the next layer undoes."""
        y = y.transpose([0, 2, 1, 3]).reshape([-1, 1, y.shape[2], self.channels_out]) if y.shape[1] > 1 else y
        return self.with_bias(map_of_rows(y, output_size(self.geometry, tuple(x.shape[2:]))))

    def _factor(self, mixed: Any) -> Any:
        """`(B, blocks, depth, C_out / blocks)`, or transposed where the map comes as columns.

        Blocks are those of the grid; groups where there are several, since blocks and groups may cut across; or one.
        """
        groups, transposed = self.geometry.groups, not self.matrix.by_rows
        if not self.whole:
            return as_factor(mixed, self.kernels.shape, transposed=transposed)
        whole = mixed.reshape(self.kernels.shape).transpose([0, 2, 1, 3])
        split = whole.reshape([0, whole.shape[1], groups, self.channels_out // groups])
        return split.transpose([0, 2, 3, 1] if transposed else [0, 2, 1, 3])


class LeftKernelPerSample(FoldedCells):
    """A kernel per sample as left factors, one for each tap and block of inputs, whose products are summed.

    Args:
        layer: With its attention folded, mixtures in the order `(in, spatial, out)`, and one group. Its cells lie as
            left factors.
        size: Spatial size of the input.
        shared: Holds the cells and the table of positions.
    """

    def __init__(self, layer: KwParameters, size: tuple[int, ...], shared: SharedConstants) -> None:
        super().__init__(layer)
        self.mixed = MixedCells(layer, shared, left=True)
        walk = layer.geometry
        self.matrix = Rows(walk, size, shared, taps_first=True) if moves(walk) else Columns(walk, self.cell_in)
        self.taps = self.grid.in_ * self.grid.spatial

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')` of a map."""
        outputs = self.cell_out + self.mixed.zeros
        kernels = as_factor(self.mixed(self.attention(x)), [-1, self.taps, self.grid.out * outputs, self.cell_in])
        y = paddle.matmul(kernels, self._inputs(x), transpose_y=self.matrix.by_rows)
        blocks = (y.sum(1) if self.taps > 1 else y).reshape([-1, self.grid.out, outputs, y.shape[3]])
        return self.of_columns(blocks[:, :, : self.cell_out] if self.mixed.zeros else blocks, x)

    def _inputs(self, x: Any) -> Any:
        """Rows `(B, in · spatial, positions, channels of a cell)`, or columns, with the last two exchanged."""
        if self.grid.in_ == 1:
            return self.matrix(x)
        matrix = self.matrix(x.reshape([-1, self.cell_in, *x.shape[2:]]))
        return matrix.reshape([-1, self.taps, *matrix.shape[2:]])


class DepthwiseKernelPerSample(FoldedCells):
    """A kernel per sample and channel.

    Args:
        layer: As in FoldedCells; it has as many groups as inputs and outputs.
        shared: Holds the cells.
        depthwise: What applies the kernels; see `depthwise_per_sample`.
    """

    def __init__(self, layer: KwParameters, shared: SharedConstants, depthwise: Any) -> None:
        super().__init__(layer)
        self.kernels = RightKernels(layer, shared, left=False)
        self.depthwise = depthwise

    def forward(self, x: Any) -> Any:
        """`(B, C, H', W')` of `(B, C, H, W)`."""
        kernels = self.kernels(self.attention(x)).reshape(self.kernels.shape).transpose([0, 1, 3, 2])
        return self.with_bias(self.depthwise(x, kernels.reshape([-1, self.channels_out * kernels.shape[3]])))


class MixedTaps(FoldedCells):
    """The taps mixed before they meet the cells: `y = Σ_j E_j (Σ_i α_ij x_i)`, one matmul with a constant.

    Args:
        layer: As in FoldedCells; its cells are 1×1.
        size: Spatial size of the input.
        shared: Holds the table of positions.
    """

    def __init__(self, layer: KwParameters, size: tuple[int, ...], shared: SharedConstants) -> None:
        super().__init__(layer)
        constant(self, "cells", lying(layer).reshape(-1, self.cell_out))
        self.rows = rows_of(layer, size, shared)

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')` of a map, `(B, …, C_out)` of a linear layer's input."""
        rows, grid = self.rows(x), self.grid
        positions, taps = rows.shape[2], grid.spatial * grid.in_
        alpha = self.attention(x).reshape([0, grid.out, 1, taps, self.cell_count])
        mixed = paddle.matmul(alpha, rows.reshape([0, 1, positions, taps, self.cell_in]), transpose_x=True)
        y = paddle.matmul(mixed.reshape([-1, self.cell_count * self.cell_in]), self.cells)
        return self.of_rows(y.reshape([-1, grid.out, positions, self.cell_out]), x)


class CellsFirst(FoldedCells):
    """Every cell as a static 1×1 convolution of every input block, then α over the results, then the walk.

    Args:
        layer: As in FoldedCells; its cells are 1×1.
        size: Spatial size of the input.
    """

    def __init__(self, layer: KwParameters, size: tuple[int, ...]) -> None:
        super().__init__(layer)
        constant(self, "cells", lying(layer)[:, 0].swapaxes(0, 1).reshape(self.cell_in, -1))
        self.size, self.moves = size, moves(layer.geometry)
        if self.moves:
            constant(self, "table", self._positions(size))

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')` of a map, `(B, …, C_out)` of a linear layer's input."""
        alpha, grid = self.attention(x), self.grid
        rows = x if self.linear else x.flatten(2).transpose([0, 2, 1])
        positions = prod(rows.shape[1:-1])
        made = paddle.matmul(rows.reshape([-1, self.cell_in]), self.cells)
        made = made.reshape([-1, positions, grid.in_, self.cell_count, self.cell_out]).transpose([0, 2, 3, 1, 4])
        made = made.reshape([-1, grid.in_ * self.cell_count, positions * self.cell_out])
        alpha = alpha.reshape([0, grid.out * grid.spatial, grid.in_ * self.cell_count])
        taps = paddle.matmul(alpha, made).reshape([0, grid.out, grid.spatial * positions, self.cell_out])
        return self.of_rows(self._walk(taps, tuple(x.shape[2:])) if self.moves else taps, x)

    def _walk(self, taps: Any, size: tuple[int, ...]) -> Any:
        """Sums `(B, blocks, positions', C_out)` of what taps `(B, blocks, taps · positions, C_out)` give."""
        table = self.table if size == self.size else paddle.to_tensor(self._positions(size))
        moved, spatial = gathered(taps, table, beyond=True), self.grid.spatial
        return moved.reshape([0, self.grid.out, spatial, moved.shape[2] // spatial, self.cell_out]).sum(2)

    def _positions(self, size: tuple[int, ...]) -> np.ndarray:
        """`(taps · positions',)`: where each tap finds what it made, `taps · positions` where there is nothing."""
        table, seen = tap_table(self.geometry, size), prod(size)
        taps = table.shape[1]
        return np.where(table == seen, taps * seen, table + np.arange(taps) * seen).T.reshape(-1)


class StaticLinear(Layer):
    """An ordinary linear layer.

    Args:
        weight: `(C_out, C_in)`.
        bias: `(C_out,)`.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        constant(self, "weight", weight.T)
        constant(self, "bias", bias)

    def forward(self, x: Any) -> Any:
        """`(B, …, C_out)` of `(B, …, C_in)`."""
        return functional.linear(x, self.weight, self.bias)


def lie_left(layer: KwParameters, positions: int, shared: SharedConstants) -> bool:
    """Whether the cells of a layer lie as left factors; the first of the layers that share them decides for all.

    Args:
        layer: Whose cells are asked about.
        positions: Of its output.
        shared: Knows what was decided.
    """
    _, out, in_, *cell = layer.cells.shape
    dense = not layer.linear and layer.geometry.groups == 1 and prod(cell) == 1 and in_ >= _WIDE
    wanted = dense and out >= _OUTPUTS_PER_POSITION * positions
    return shared.agreed(f"left {layer.cells.name}", wanted)


def zeros_of(layer: KwParameters) -> int:
    """How many inputs, or outputs, of zeros each cell gets, 0 or 1; cells alone decide, which other layers share."""
    size = prod(layer.cells.shape[1:])
    return int(layer.cells.shape[2] >= _WIDE and size >= _LARGE and size % _PAGE == 0)


def lying(layer: KwParameters) -> np.ndarray:
    """A layer's cells `(n, taps, C_in, C_out)`."""
    cells = layer.cells.read()
    return cells.reshape(*cells.shape[:3], -1).transpose(0, 3, 2, 1)
