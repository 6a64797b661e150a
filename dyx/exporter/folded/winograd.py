"""Convolutions in a transform domain, on maps whose positions come first.

A map `(B, C, H, W)` is held as *positions* `(H · W, B, C)`: transforms along an axis are then products with a constant
matrix from the left, every product of the domain is a matmul over the whole batch, and what is mixed per sample is a
product with `(1, B, 1)`. Layers that follow each other keep that form between them.
"""

from __future__ import annotations

from functools import reduce
from math import prod
from typing import Any

import numpy as np

from dyx.exporter.folded.constants import SharedConstants, constant
from dyx.exporter.folded.factors import as_factor, averaged
from dyx.exporter.winograd import Axis
from dyx.nn.framework import Layer, functional, paddle


def to_positions(x: Any) -> Any:
    """`(H · W, B, C)` of a map `(B, C, H, W)`."""
    return x.flatten(2).transpose([2, 0, 1])


def from_positions(x: Any, size: tuple[int, ...]) -> Any:
    """The map `(B, C, H, W)` of positions `(H · W, B, C)`."""
    return x.transpose([1, 2, 0]).reshape([0, x.shape[2], *size])


class PositionsPool(Layer):
    """Max pooling without padding along both axes, one after the other.

    A map comes in `order`: along each axis first the positions that begin a stride, then those one further, and so on.
    What a window's k-th places hold is then one piece of memory for all windows.

    Args:
        size: Of the map that it reads.
        kernel: Of its windows, per axis.
        stride: Per axis.
    """

    def __init__(self, size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.order = tuple(_by_phase(n, s) for n, s in zip(size, stride, strict=True))
        self.size = tuple((n - k) // s + 1 for n, k, s in zip(size, kernel, stride, strict=True))

    def forward(self, x: Any) -> Any:
        """`(H', W', …)` of `(H, W, …)`."""
        for axis in (0, 1):
            starts = [self.order[axis].index(place) for place in range(self.kernel[axis])]
            x = reduce(
                paddle.maximum, [paddle.slice(x, [axis], [start], [start + self.size[axis]]) for start in starts]
            )
        return x


def _by_phase(size: int, stride: int) -> list[int]:
    return sorted(range(size), key=lambda place: place % stride)


class Winograd(Layer):
    """`Σ_k a_k (W_k * x + b_k) + t`, then maybe ReLU and max pooling, computed from products in a transform domain.

    Args:
        routing: What makes the weights `(B, K)`; None where they come beside x, or there are none to make.
        factors: `(K, R_h, R_w, C_in, C_out)`, of `winograd.kernel_factors`.
        bias: `(K, C_out)` or None.
        offset: t, `(C_out,)`, or None.
        axes: Of the map, down and across.
        shared: Holds the transforms.
        gathered: Whether all tiles of a map stand in the rows of one product, which takes a copy before and after.
            Otherwise those down a column have products of their own, each with its copy of the factors.
        competing: Whether weights sum to one: then the last expert is not scaled, the others are differences to it.
        relu: Whether a ReLU follows.
        pool: The pooling that follows, or None.

    Attributes:
        reads_positions: Whether x comes as positions.
        gives_positions: Whether the answer goes as positions.
    """

    def __init__(  # noqa: PLR0913 - what one layer does, and nothing else
        self,
        routing: Any,
        factors: np.ndarray,
        bias: np.ndarray | None,
        offset: np.ndarray | None,
        axes: tuple[Axis, Axis],
        shared: SharedConstants,
        *,
        gathered: bool = False,
        competing: bool = False,
        relu: bool = False,
        pool: PositionsPool | None = None,
    ) -> None:
        super().__init__()
        self.routing, self.relu, self.pool = routing, relu, pool
        self.reads_positions = self.gives_positions = False
        self.experts, (self.channels_in, self.channels_out) = len(factors), factors.shape[3:]
        self.scaled = self.experts - 1 if competing else self.experts
        self.points, self.products_across = tuple(len(axis.read) for axis in axes), axes[1].products
        self.read_size = (axes[0].read.shape[1], axes[1].read.shape[1])
        self.size = tuple(len(axis.write) for axis in axes)
        if self.experts > self.scaled:
            factors = np.concatenate([factors[:-1] - factors[-1:], factors[-1:]])
        self.tiles_down = axes[0].tiles
        self.gathered = gathered and self.tiles_down > 1
        for number, factor in enumerate(factors):
            # Once for each tile down a column: Paddle's oneDNN is slow at a broadcast of five axes.
            repeated = factor if self.gathered else np.repeat(factor, self.tiles_down, axis=0)
            constant(self, f"factor{number}", repeated.reshape(-1, *factor.shape[2:]))
        for number, (name, axis) in enumerate(zip("hw", axes, strict=True)):
            self._give(shared, f"read_{name}", axis.read)
            self._give(shared, f"write_{name}", axis.write if pool is None else axis.write[pool.order[number]])
        self.bias = self.offset = None
        if bias is not None:
            constant(self, "bias", bias)
        if offset is not None:
            constant(self, "offset", offset[None, None])

    def _give(self, shared: SharedConstants, name: str, matrix: np.ndarray) -> None:
        shared.give(self, name, f"{matrix.shape} {matrix.tobytes().hex()}", lambda: matrix)

    def forward(self, x: Any, attention: Any = None) -> Any:
        """`(B, C_out, H', W')` of `(B, C_in, H, W)`, either as positions where that was agreed on."""
        x = x if self.reads_positions else to_positions(x)
        if self.routing is not None:
            attention = self.routing.of_means(position_means(x, self.read_size))
        points = self._read(x)
        products = self._multiplied(self._gathered(points) if self.gathered else points, attention)
        y = self._written(self._scattered(products) if self.gathered else products)
        # Max pooling and ReLU commute, and both with what is added to a whole channel: the smaller map comes first.
        y = y if self.pool is None else self.pool(y)
        size = self.size if self.pool is None else self.pool.size
        y = self._with_bias(y.reshape([prod(size), -1, self.channels_out]), attention)
        y = functional.relu(y) if self.relu else y
        return y if self.gives_positions else from_positions(y, size)

    def _read(self, x: Any) -> Any:
        """Positions to factors `(points, B, C_in)`."""
        rows = paddle.matmul(self.read_h, as_factor(x, [1, 1, self.read_size[0], -1]))
        factors = paddle.matmul(self.read_w, as_factor(rows, [1, self.points[0], self.read_size[1], -1]))
        return factors.reshape([prod(self.points), -1, self.channels_in])

    def _gathered(self, x: Any) -> Any:
        """Factors whose tiles down a column stand beside those across."""
        rows, columns = self.points
        # Of each point: products down, tiles down, products across, and tiles across with what is of each.
        parts = x.reshape([rows // self.tiles_down, self.tiles_down, self.products_across, -1])
        return parts.transpose([0, 2, 1, 3]).reshape([rows * columns, -1, self.channels_in])

    def _scattered(self, products: Any) -> Any:
        """Products in the order of factors that were not gathered."""
        parts = products.reshape([self.points[0] // self.tiles_down, self.products_across, self.tiles_down, -1])
        return parts.transpose([0, 2, 1, 3])

    def _multiplied(self, x: Any, attention: Any) -> Any:
        """Factors to products, mixed."""
        found = None
        for number in range(self.experts):
            one = x
            if number < self.scaled:
                # In 3-D: Paddle's oneDNN takes fifty times as long for a broadcast of more axes.
                one = x * attention[:, number].reshape([1, -1, 1])
            factor = getattr(self, f"factor{number}")
            product = paddle.matmul(as_factor(one, [factor.shape[0], -1, self.channels_in]), factor)
            found = product if found is None else found + product
        return found

    def _written(self, products: Any) -> Any:
        """Products to outputs `(H', W', B · C_out)`."""
        columns = paddle.matmul(self.write_w, as_factor(products, [1, *self.points, -1]))
        y = paddle.matmul(self.write_h, as_factor(columns, [1, 1, self.points[0], -1]))
        return y.reshape([*self.size, -1])

    def _with_bias(self, y: Any, attention: Any) -> Any:
        if self.bias is not None:
            y = y + paddle.matmul(attention, self.bias).reshape([1, -1, self.channels_out])
        return y if self.offset is None else y + self.offset


def position_means(x: Any, size: tuple[int, int]) -> Any:
    """Means `(B, C, 1, 1)` over the positions `(H · W, B, C)` of a map of some size."""
    height, width = size
    return averaged(averaged(x, [height, -1]), [width, -1]).reshape([-1, x.shape[2], 1, 1])
