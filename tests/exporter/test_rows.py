"""Rows and columns of a map: what a convolution with any walk reads, words for its padding included."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import paddle
import pytest

from dyx.exporter.apply import default_dtype
from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.folded.rows import Columns, Rows, applied, lying_in_rows, matrix_of
from dyx.nn.geometry import Geometry

SIZE = (7, 8)


def walks() -> list[Geometry]:
    kernels, strides, dilations = [(3, 3), (2, 2), (1, 3), (1, 1)], [(1, 1), (2, 2), (2, 1)], [(1, 1), (2, 2)]
    paddings = ["SAME", "VALID", (0, 0), (1, 2)]
    return [Geometry(*walk, 1) for walk in product(kernels, strides, paddings, dilations)]


def convolved(x: np.ndarray, weight: np.ndarray, walk: Geometry) -> np.ndarray:
    y = walk.convolve(paddle.to_tensor(x), paddle.to_tensor(weight))
    return np.asarray(y.numpy())


@pytest.mark.parametrize("walk", walks(), ids=str)
@pytest.mark.parametrize(("channels", "groups"), [(6, 1), (6, 2), (3, 1)])
def test_a_kernel_on_rows_or_columns_is_the_convolution(walk: Geometry, channels: int, groups: int) -> None:
    random = np.random.default_rng(0)
    walk = Geometry(walk.kernel, walk.stride, walk.padding, walk.dilation, groups)
    x = random.standard_normal((2, channels, *SIZE))
    weight = random.standard_normal((2, 4, channels // groups, *walk.kernel))
    with default_dtype("float64"):
        matrix: Any = matrix_of(walk, channels, SIZE, SharedConstants())
        depth = weight[0].size // 4
        kernels = paddle.to_tensor(lying_in_rows(weight, groups)).reshape([2, groups, depth, 4 // groups])
        got = applied(matrix, paddle.to_tensor(x), kernels).numpy()
    wanted = np.concatenate([convolved(x[[row]], weight[row], walk) for row in range(2)])
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() < 1e-12 * np.abs(wanted).max()


def test_narrow_maps_and_kernels_of_one_tap_are_columns() -> None:
    shared = SharedConstants()
    for kernel, channels, groups, wanted in (
        ((3, 3), 64, 1, Rows),
        ((3, 3), 4, 1, Columns),
        ((3, 3), 4, 2, Rows),
        ((1, 1), 64, 1, Columns),
    ):
        walk = Geometry(kernel, (1, 1), (0, 0), (1, 1), groups)
        assert isinstance(matrix_of(walk, channels, SIZE, shared), wanted)
