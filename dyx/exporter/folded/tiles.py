"""A map in overlapping tiles, for a kernel per sample: fewer products in a transform domain.

The other fold by tiles, `folded/winograd.py`, keeps all samples of a map beside each other, since they meet the same
factors. Here each sample has factors of its own, so samples come first, and a gather cuts whole tiles: their transforms
are then products with one small constant, whatever the map's size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.folded.factors import as_factor, gathered, to_rows
from dyx.exporter.winograd import tile
from dyx.nn.framework import Layer, paddle
from dyx.nn.geometry import Geometry


class TransformedMap(Layer):
    """What stands before and behind the products of tiles with factors of each sample: `read · x` and `write · z`.

    Args:
        geometry: Of a square kernel of stride 1, in one group.
        inputs: Of a tile along either axis; see `winograd.FACTORS`.
        size: Of the maps that it will see; others are possible in eager mode, and slower.
        shared: Holds the transforms and the tables of positions.
    """

    def __init__(self, geometry: Geometry, inputs: int, size: tuple[int, ...], shared: SharedConstants) -> None:
        super().__init__()
        part = tile(inputs, geometry.kernel[0])
        self.geometry, self.inputs, self.size = geometry, inputs, size
        self.key = f"tiles of {inputs} for {geometry.kernel}"
        # Both axes at once: more products than one after the other, and fewer bytes.
        shared.give(self, "read", f"read {self.key}", lambda: np.kron(part.read, part.read))
        shared.give(self, "write", f"write {self.key}", lambda: np.kron(part.write, part.write))
        cut, place = tables(geometry, inputs, size)
        shared.give(self, "cut", f"cut {self.key} {geometry.padding} {size}", lambda: cut)
        shared.give(self, "place", f"place {self.key} {geometry.padding} {size}", lambda: place)

    @property
    def count(self) -> int:
        """How many tiles there are of a map of the expected size."""
        return int(self.cut.shape[0]) // self.inputs**2

    def transformed(self, rows: Any, size: tuple[int, ...]) -> Any:
        """`read · x`, `(B, points, tiles · C)` of a map of some size as rows `(B, 1, H · W, C)`."""
        reads, (cut, _) = self.read.shape[1], self._tables(size)
        inputs = gathered(rows, cut, beyond=True)
        return paddle.matmul(self.read, as_factor(inputs, [-1, reads, cut.shape[0] // reads * rows.shape[3]]))

    def outputs(self, products: Any, size: tuple[int, ...], *, turned: bool = False) -> Any:
        """The map `(B, C_out, H', W')` of products `(B, points, tiles, C_out)`, for inputs of such a size.

        Turned, the last two axes of products are exchanged.
        """
        points, *matrix = products.shape[1:]
        tiles, channels = reversed(matrix) if turned else matrix
        _, place = self._tables(size)
        written = paddle.matmul(self.write, as_factor(products, [-1, points, tiles * channels]))
        outputs = self.write.shape[0]
        if turned:
            written = written.reshape([-1, outputs, channels, tiles]).transpose([0, 1, 3, 2])
        rows = gathered(written.reshape([-1, 1, outputs * tiles, channels]), place, beyond=False)
        height, width = (outputs_of(self.geometry, axis, n) for axis, n in enumerate(size))
        # Last, so that runtimes can take it past what follows, to meet the transpose of another such layer.
        return rows.reshape([-1, height, width, channels]).transpose([0, 3, 1, 2])

    def _tables(self, size: tuple[int, ...]) -> tuple[Any, Any]:
        if size == self.size:
            return self.cut, self.place
        cut, place = tables(self.geometry, self.inputs, size)
        return paddle.to_tensor(cut), paddle.to_tensor(place)


class Tiles(TransformedMap):
    """Applies a kernel per sample: `y = write · ((kernel · w) ⊙ (read · x))` for each tile of the map."""

    by_rows, kernels_left = True, False

    def __init__(self, geometry: Geometry, inputs: int, size: tuple[int, ...], shared: SharedConstants) -> None:
        super().__init__(geometry, inputs, size, shared)
        kernel = tile(inputs, geometry.kernel[0]).kernel
        shared.give(self, "kernel", f"kernel {self.key}", lambda: np.kron(kernel, kernel))

    def applied(self, x: Any, kernels: Any) -> Any:
        """The map `(B, C_out, H', W')` of a map and kernels `(B, 1, taps · C, C_out)`."""
        (points, taps), channels, channels_out = self.kernel.shape, x.shape[1], kernels.shape[3]
        size = tuple(x.shape[2:])
        read = self.transformed(to_rows(x), size)
        read = as_factor(read, [-1, points, read.shape[2] // channels, channels])
        factors = paddle.matmul(self.kernel, as_factor(kernels, [-1, taps, channels * channels_out]))
        products = paddle.matmul(read, as_factor(factors, [-1, points, channels, channels_out]))
        return self.outputs(products, size)


def outputs_of(geometry: Geometry, axis: int, size: int) -> int:
    """How many outputs a convolution of stride 1 has along an axis of so many inputs."""
    return size + 2 * int(geometry.padding[axis]) - geometry.kernel[axis] + 1


def tiles_along(geometry: Geometry, axis: int, inputs: int, size: int) -> int:
    """How many tiles of so many inputs an axis is cut into."""
    return -(-outputs_of(geometry, axis, size) // (inputs + 1 - geometry.kernel[axis]))


def tables(geometry: Geometry, inputs: int, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Which positions stand in which tile, and where each output stands in what tiles write.

    Returns:
        `(n · n · tiles,)`, place in a tile by tile: positions of the map, H · W for zeros beyond it.
        `(H' · W',)`: places in `(m · m · tiles,)`.
    """
    (rows, columns), (height, width) = (_cut(geometry, axis, inputs, n) for axis, n in enumerate(size)), size
    inside = _pairs((rows >= 0) & (rows < height), (columns >= 0) & (columns < width), np.logical_and)
    cut = np.where(inside, _pairs(rows * width, columns, np.add), height * width)
    outputs = inputs + 1 - geometry.kernel[0]
    down, across = (np.arange(outputs_of(geometry, axis, n)) for axis, n in enumerate(size))
    in_tile = _pairs((down % outputs)[None] * outputs, (across % outputs)[None], np.add)
    of_tile = _pairs((down // outputs)[None] * columns.shape[1], (across // outputs)[None], np.add)
    return cut.reshape(-1), (in_tile * (rows.shape[1] * columns.shape[1]) + of_tile).reshape(-1)


def _cut(geometry: Geometry, axis: int, inputs: int, size: int) -> np.ndarray:
    """`(n, tiles)`: the coordinates that tiles read along an axis."""
    outputs = inputs + 1 - geometry.kernel[axis]
    starts = np.arange(tiles_along(geometry, axis, inputs, size)) * outputs - int(geometry.padding[axis])
    return np.arange(inputs)[:, None] + starts[None]


def _pairs(down: np.ndarray, across: np.ndarray, by: np.ufunc) -> np.ndarray:
    """`(n, n', tiles, tiles')` of `(n, tiles)` and `(n', tiles')`."""
    found: np.ndarray = by(down[:, None, :, None], across[None, :, None, :])
    return found
