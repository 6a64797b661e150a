"""Tiles of short convolutions against the definition, and what float32 makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from dyx.exporter.winograd import FACTORS, Axis, axis_of, kernel_factors, rounding_error, tile

TILES = [(inputs, taps) for inputs in FACTORS for taps in range(2, 6) if inputs > taps]
ROUNDS_MOST = (10, 2)
"""The one tile whose error is over 5e-6; rules measure that, and refuse it at the usual tolerance."""


def one_axis(axis: Axis, kernel: np.ndarray, x: np.ndarray) -> np.ndarray:
    """An axis applied to a vector: every tile is multiplied by the same factors of the kernel."""
    products = (axis.read @ x).reshape(axis.products, axis.tiles) * (axis.kernel @ kernel)[:, None]
    return np.asarray(axis.write @ products.reshape(-1))


def convolved(x: np.ndarray, factors: np.ndarray, axes: tuple[Axis, Axis]) -> np.ndarray:
    """`(H', W', C_out)` of a map `(H, W, C_in)`, in the precision that it comes in."""
    rows, columns = axes
    reads, writes = ([getattr(axis, name).astype(x.dtype) for axis in axes] for name in ("read", "write"))
    read = np.einsum("ph,qw,hwc->pqc", *reads, x, optimize=True)
    tiled = read.reshape(rows.products, rows.tiles, columns.products, columns.tiles, -1)
    products = np.einsum("psqtc,pqco->psqto", tiled, factors.astype(x.dtype), optimize=True)
    products = products.reshape(len(rows.read), len(columns.read), -1)
    return np.asarray(np.einsum("hp,wq,pqo->hwo", *writes, products, optimize=True))


def definition(x: np.ndarray, weight: np.ndarray, padding: tuple[int, int]) -> np.ndarray:
    """A stride-1 convolution of a map `(H, W, C_in)` with a kernel `(C_out, C_in, h, w)`."""
    padded = np.pad(x, [(pad, pad) for pad in padding] + [(0, 0)])
    windows = sliding_window_view(padded, weight.shape[2:], axis=(0, 1))
    return np.asarray(np.einsum("hwcij,ocij->hwo", windows, weight, optimize=True))


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize(("inputs", "taps"), TILES)
def test_tile_is_a_correlation(inputs: int, taps: int) -> None:
    random = np.random.default_rng(inputs)
    part = tile(inputs, taps)
    points, quadratics = FACTORS[inputs]
    assert part.outputs == inputs - taps + 1
    assert part.products == len(points) + 3 * len(quadratics) + 1
    assert part.read.shape == (part.products, inputs)
    assert part.kernel.shape == (part.products, taps)
    assert part.write.shape == (part.outputs, part.products)
    for _ in range(5):
        x, kernel = random.standard_normal(inputs), random.standard_normal(taps)
        got = part.write @ ((part.kernel @ kernel) * (part.read @ x))
        np.testing.assert_allclose(got, np.correlate(x, kernel), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("inputs", "taps"), TILES)
def test_products_are_as_few_as_their_factors_allow(inputs: int, taps: int) -> None:
    """One for each point, three for each quadratic factor, one for infinity; the direct way takes m · r."""
    part = tile(inputs, taps)
    assert part.products == inputs + len(FACTORS[inputs][1])
    if part.outputs > 2:
        assert part.products < part.outputs * taps


@pytest.mark.parametrize(("inputs", "taps"), TILES)
def test_factors_of_each_product_are_of_one_size(inputs: int, taps: int) -> None:
    part = tile(inputs, taps)
    sizes = [np.linalg.norm(matrix, axis=1) for matrix in (part.read, part.kernel, part.write.T)]
    np.testing.assert_allclose(sizes[1], sizes[0], rtol=1e-12)
    np.testing.assert_allclose(sizes[2], sizes[0], rtol=1e-12)


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize(("inputs", "taps"), TILES)
def test_axis_is_a_padded_correlation_whatever_its_length(inputs: int, taps: int, padding: int) -> None:
    """One tile and several, tiles that fit and tiles that reach over the end, maps shorter than a tile."""
    random = np.random.default_rng(padding)
    part, kernel = tile(inputs, taps), random.standard_normal(taps)
    lengths = {
        outputs + taps - 1 - 2 * padding for outputs in (1, part.outputs, part.outputs + 1, 3 * part.outputs - 1)
    }
    seen = set()
    for length in (length for length in lengths if length > 0):
        x = random.standard_normal(length)
        axis = axis_of(part, length, padding)
        wanted = np.correlate(np.pad(x, padding), kernel)
        assert axis.tiles == -(-len(wanted) // part.outputs)
        assert axis.read.shape == (part.products * axis.tiles, length)
        assert axis.write.shape == (len(wanted), part.products * axis.tiles)
        assert (axis.products, axis.points) == (part.products, part.products * axis.tiles)
        np.testing.assert_allclose(one_axis(axis, kernel, x), wanted, rtol=1e-9, atol=1e-11)
        seen.add(axis.tiles)
    assert max(seen) == 3 or part.outputs == 1


def test_axis_does_not_read_what_its_kernel_does_not_reach() -> None:
    """A tile over the end reads zeros there: outputs that are kept see nothing of it."""
    axis = axis_of(tile(6, 3), 9, 1)
    assert (axis.tiles, axis.write.shape[0]) == (3, 9)
    effect = axis.write @ (axis.read.reshape(axis.products, axis.tiles, 9) * axis.kernel.sum(1)[:, None, None]).reshape(
        -1, 9
    )
    near = np.abs(np.subtract.outer(np.arange(9), np.arange(9))) <= 1
    np.testing.assert_allclose(effect, near.astype(float), atol=1e-12)


def test_kernel_factors() -> None:
    random = np.random.default_rng(0)
    axes = (axis_of(tile(6, 3), 8, 1), axis_of(tile(8, 2), 9, 0))
    weight = random.standard_normal((2, 5, 4, 3, 2))
    factors = kernel_factors(weight, axes)
    assert factors.shape == (2, axes[0].products, axes[1].products, 4, 5)
    for k, p, q, i, o in ((0, 0, 0, 0, 0), (1, 5, 2, 3, 4), (0, 3, 8, 1, 2)):
        wanted = axes[0].kernel[p] @ weight[k, o, i] @ axes[1].kernel[q]
        np.testing.assert_allclose(factors[k, p, q, i, o], wanted, rtol=1e-12)


@pytest.mark.parametrize("padding", [(0, 0), (1, 2)])
@pytest.mark.parametrize(("inputs", "taps"), TILES)
def test_two_axes_are_a_convolution(inputs: int, taps: int, padding: tuple[int, int]) -> None:
    random = np.random.default_rng(taps)
    size = (2 * (inputs - taps + 1) + taps, taps + 1)
    rows, columns = (axis_of(tile(inputs, taps), n, pad) for n, pad in zip(size, padding, strict=True))
    weight, x = random.standard_normal((1, 3, 2, taps, taps)), random.standard_normal((*size, 2))
    got = convolved(x, kernel_factors(weight, (rows, columns))[0], (rows, columns))
    assert relative(got, definition(x, weight[0], padding)) < 1e-9


@pytest.mark.parametrize(("inputs", "taps"), TILES)
def test_float32_is_as_good_as_is_said(inputs: int, taps: int) -> None:
    """The same on other maps and other kernels: what is measured once is no lucky draw.

    The largest error of one draw varies threefold with the order in which a CPU's BLAS adds up, so it is the usual one.
    """
    said, limit = rounding_error(inputs, taps), 8e-6 if (inputs, taps) == ROUNDS_MOST else 5e-6
    assert 1e-8 < said < limit
    error = float(np.median([float32_error(inputs, taps, seed) for seed in range(5)]))
    assert error < limit
    assert 0.4 < error / said < 2.5


def float32_error(inputs: int, taps: int, seed: int) -> float:
    """The largest error of a seeded map of tiles that reach over its end, as a share of max |y|."""
    random = np.random.default_rng(seed)
    part, channels = tile(inputs, taps), 96
    size, padding = (2 * part.outputs + 1, part.outputs + 1), (taps // 2, 0)
    size = (size[0] + taps - 1 - 2 * padding[0], size[1] + taps - 1)
    rows, columns = (axis_of(part, n, pad) for n, pad in zip(size, padding, strict=True))
    x = np.maximum(random.standard_normal((*size, channels)), 0).astype("float32")
    weight = random.standard_normal((1, 8, channels, taps, taps))
    got = convolved(x, kernel_factors(weight, (rows, columns))[0], (rows, columns))
    assert got.dtype == np.float32
    return relative(got, definition(x.astype(float), weight[0], padding))


def test_tiles_of_three_taps() -> None:
    made = {inputs: (tile(inputs, 3).outputs, tile(inputs, 3).products) for inputs in FACTORS}
    assert made == {4: (2, 4), 6: (4, 6), 8: (6, 9), 9: (7, 10), 10: (8, 11), 12: (10, 14)}
    assert rounding_error(9, 3) < 1.5 * rounding_error(6, 3), "a quadratic factor keeps the larger tile as exact"
