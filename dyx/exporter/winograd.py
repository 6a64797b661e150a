"""Short convolutions with fewer products, after Toom, Cook and Winograd, as float64 matrices.

A polynomial product of degree n - 1 is found modulo the factors of a polynomial of degree n - 1 and, for the leading
coefficient, at infinity. Modulo `x - p` it takes one product, modulo `x² + b x + c` three (Karatsuba). Transposed, the
same algorithm gives m neighbouring outputs of an r-tap convolution from n = m + r - 1 inputs:
`y = write · ((kernel · w) ⊙ (read · x))`.

Source: Winograd, "Arithmetic Complexity of Computations", 1980; Lavin and Gray, CVPR 2016, for convolutional layers;
Barabasz and Gregg, 2019, for quadratic factors. With real points alone float32 errors grow tenfold every other input; a
quadratic factor, whose roots lie on the unit circle, costs one product more and keeps them small. So 7 outputs of a
3-tap kernel are made by 10 products with the error that 4 outputs have with 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

FACTORS: dict[int, tuple[tuple[float, ...], tuple[tuple[float, float], ...]]] = {
    4: ((0, 1, -1), ()),
    6: ((0, 1, -1, 2, -1 / 2), ()),
    8: ((0, 1, -1, 2, -1 / 2), ((0, 1),)),
    9: ((0, 1, -1, 2, 1 / 2, -2 / 3), ((0, 1),)),
    10: ((0, 1, -1, 2, -1 / 2, 1 / 2, -2), ((0, 1),)),
    12: ((0, 1, -1, 2 / 3, 3 / 2, -2 / 3, -4 / 3), ((1, 1), (-1 / 2, 1))),
}
"""Inputs of a tile, n → points p, and (b, c) of quadratic factors; infinity is always one more.

Found by search over small fractions for the smallest float32 error; see docs/speed.md.
"""


@dataclass(frozen=True)
class Tile:
    """m neighbouring outputs of an r-tap convolution.

    Attributes:
        read: `(R, m + r - 1)`: inputs to factors.
        kernel: `(R, r)`: taps to factors.
        write: `(m, R)`: products to outputs.
    """

    read: np.ndarray
    kernel: np.ndarray
    write: np.ndarray

    @property
    def outputs(self) -> int:
        """How many, m."""
        return len(self.write)

    @property
    def products(self) -> int:
        """R."""
        return len(self.kernel)


@lru_cache
def tile(inputs: int, taps: int) -> Tile:
    """The tile with this many inputs, one of `FACTORS`, for a kernel of this many taps."""
    points, quadratics = FACTORS[inputs]
    outputs = inputs + 1 - taps
    kernel, write = (_evaluated(points, quadratics, length) for length in (taps, outputs))
    # Coefficients from residues, residues from products; transposed, that reads the inputs.
    read = np.linalg.solve(_residues(points, quadratics, inputs), _residues_of_products(points, quadratics)).T
    norms = [np.linalg.norm(matrix, axis=1) for matrix in (read, kernel, write)]
    # Each product's three factors are brought to one size: what they are multiplied by cancels.
    even = np.cbrt(np.prod(norms, axis=0))
    read, kernel, write = (
        matrix * (even / norm)[:, None] for matrix, norm in zip((read, kernel, write), norms, strict=True)
    )
    return Tile(read, kernel, write.T)


def _powers(b: float, c: float, length: int) -> np.ndarray:
    """`(length, 2)`: `x^j` modulo `x² + b x + c`, as constant and linear coefficient."""
    found = [np.array([1.0, 0.0])]
    for _ in range(length - 1):
        constant, linear = found[-1]
        found.append(np.array([-c * linear, constant - b * linear]))
    return np.array(found)


def _evaluated(points: tuple[float, ...], quadratics: tuple[tuple[float, float], ...], length: int) -> np.ndarray:
    """`(R, length)`: a polynomial's coefficients to what is multiplied."""
    rows = [np.power(float(point), np.arange(length)) for point in points]
    for b, c in quadratics:
        constant, linear = _powers(b, c, length).T
        rows += [constant, linear, constant + linear]
    return np.array([*rows, np.eye(length)[-1]])


def _residues(points: tuple[float, ...], quadratics: tuple[tuple[float, float], ...], length: int) -> np.ndarray:
    """`(length, length)`: a product's coefficients to its residues."""
    rows = [np.power(float(point), np.arange(length)) for point in points]
    rows += [row for b, c in quadratics for row in _powers(b, c, length).T]
    return np.array([*rows, np.eye(length)[-1]])


def _residues_of_products(points: tuple[float, ...], quadratics: tuple[tuple[float, float], ...]) -> np.ndarray:
    """`(n, R)`: what is multiplied to residues; `(u + v x)(s + t x)` from `us`, `vt` and `(u + v)(s + t)`."""
    blocks = [np.eye(1)] * len(points)
    blocks += [np.array([[1.0, -c, 0.0], [-1.0, -1.0 - b, 1.0]]) for b, c in quadratics]
    blocks.append(np.eye(1))
    matrix = np.zeros((sum(len(block) for block in blocks), sum(block.shape[1] for block in blocks)))
    row = column = 0
    for block in blocks:
        matrix[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    return matrix


@dataclass(frozen=True)
class Axis:
    """One axis of a stride-1 convolution, cut into equal tiles; products stand before tiles.

    Attributes:
        read: `(R · tiles, H)`: padding is left out, and tiles may reach over the end.
        kernel: `(R, r)`.
        write: `(H', R · tiles)`.
        tiles: How many.
    """

    read: np.ndarray
    kernel: np.ndarray
    write: np.ndarray
    tiles: int

    @property
    def products(self) -> int:
        """R, of each tile."""
        return len(self.kernel)

    @property
    def points(self) -> int:
        """R · tiles."""
        return len(self.read)


def axis_of(part: Tile, size: int, padding: int) -> Axis:
    """An axis of `size` inputs with `padding` zeros at both ends, cut into tiles."""
    inputs, taps = part.read.shape[1], part.kernel.shape[1]
    outputs = size + 2 * padding - taps + 1
    tiles = -(-outputs // part.outputs)
    reach = part.outputs * (tiles - 1) + inputs
    read, write = np.zeros((part.products, tiles, reach)), np.zeros((part.outputs * tiles, part.products, tiles))
    for number in range(tiles):
        start = number * part.outputs
        read[:, number, start : start + inputs] = part.read
        write[start : start + part.outputs, :, number] = part.write
    # Tiles past the last output read zeros, or what lies behind the map: nothing there is kept.
    padded = np.zeros((part.products, tiles, max(reach, size + 2 * padding)))
    padded[:, :, :reach] = read
    inside = padded[:, :, padding : padding + size].reshape(-1, size)
    return Axis(inside, part.kernel, write[:outputs].reshape(outputs, -1), tiles)


def kernel_factors(weight: np.ndarray, axes: tuple[Axis, Axis] | tuple[Tile, Tile]) -> np.ndarray:
    """Kernels `(K, C_out, C_in, h, w)` as factors `(K, R_h, R_w, C_in, C_out)`."""
    rows, columns = axes
    factors: np.ndarray = np.einsum("pa,qb,koiab->kpqio", rows.kernel, columns.kernel, weight, optimize=True)
    return factors


_SEEN_CHANNELS = 128


@lru_cache
def rounding_error(inputs: int, taps: int) -> float:
    """How far float32 takes a tile's outputs from exact ones, as a share of max |y|.

    Measured on 128 channels of a seeded map of two tiles on each axis, as ReLU leaves it.
    """
    part, random = tile(inputs, taps), np.random.default_rng(0)
    size, padding = 2 * part.outputs, taps // 2
    axes = (axis_of(part, size + taps - 1 - 2 * padding, padding),) * 2
    x = np.maximum(random.standard_normal((*[axes[0].read.shape[1]] * 2, _SEEN_CHANNELS)), 0)
    factors = kernel_factors(random.standard_normal((1, 16, _SEEN_CHANNELS, taps, taps)), axes)[0]
    exact, rounded = (_convolved(x, factors, axes, dtype) for dtype in ("float64", "float32"))
    return float(np.abs(rounded - exact).max() / np.abs(exact).max())


def _convolved(x: np.ndarray, factors: np.ndarray, axes: tuple[Axis, Axis], dtype: str) -> np.ndarray:
    """`(H', W', C_out)` of a map `(H, W, C_in)`, all of it in one precision."""
    rows, columns = axes
    reads, writes = ([getattr(axis, name).astype(dtype) for axis in axes] for name in ("read", "write"))
    read = np.einsum("ph,qw,hwc->pqc", *reads, x.astype(dtype), optimize=True)
    tiled = read.reshape(rows.products, rows.tiles, columns.products, columns.tiles, -1)
    products = np.matmul(tiled, factors.astype(dtype)[:, None]).reshape(rows.points, columns.points, -1)
    y: np.ndarray = np.einsum("hp,wq,pqc->hwc", *writes, products, optimize=True)
    return y
