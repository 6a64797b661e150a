"""Rows and columns of a map: what a convolution with any walk reads, words for its padding included."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import paddle
import pytest

from dyx.exporter.apply import default_dtype
from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.folded.rows import Columns, Rows, applied, kernel_shape, lying_for, matrix_of
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
@pytest.mark.parametrize("channels_out", [4, 200])
@pytest.mark.parametrize("channels_last", [False, True], ids=["first", "last"])
def test_a_kernel_on_rows_or_columns_is_the_convolution(
    walk: Geometry, channels: int, groups: int, channels_out: int, channels_last: bool
) -> None:
    random = np.random.default_rng(0)
    walk = Geometry(walk.kernel, walk.stride, walk.padding, walk.dilation, groups)
    x = random.standard_normal((2, channels, *SIZE))
    weight = random.standard_normal((2, channels_out, channels // groups, *walk.kernel))
    scale = random.standard_normal((2, groups, weight[0].size // channels_out))
    with default_dtype("float64"):
        shared = SharedConstants(channels_last=channels_last)
        matrix: Any = matrix_of(walk, channels, SIZE, shared, channels_out)
        kernels = paddle.to_tensor(lying_for(matrix, weight)).reshape(kernel_shape(matrix, weight))
        got = applied(matrix, paddle.to_tensor(x), kernels).numpy()
        got_scaled = applied(matrix, paddle.to_tensor(x), kernels, paddle.to_tensor(scale)).numpy()
    # Taps before channels, for each group.
    by_tap = scale.reshape(2, groups, 1, *walk.kernel, -1).transpose(0, 1, 2, 5, 3, 4)
    split = weight.reshape(2, groups, channels_out // groups, *weight.shape[2:])
    scaled = (split * by_tap).reshape(weight.shape)
    for answer, kernel in ((got, weight), (got_scaled, scaled)):
        wanted = np.concatenate([convolved(x[[row]], kernel[row], walk) for row in range(2)])
        assert answer.shape == wanted.shape
        assert np.abs(answer - wanted).max() < 1e-12 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("channels_out", "groups", "left"), [(56, 1, False), (57, 1, True), (112, 2, False), (114, 2, True)]
)
def test_kernels_stand_left_of_rows_where_they_are_the_larger_factor(
    channels_out: int, groups: int, left: bool
) -> None:
    walk = Geometry((3, 3), (1, 1), (1, 1), (1, 1), groups)
    assert matrix_of(walk, 8, SIZE, SharedConstants(), channels_out).kernels_left is left
    assert not matrix_of(walk, 8, SIZE, SharedConstants()).kernels_left


def test_narrow_maps_and_kernels_of_one_tap_are_columns() -> None:
    """The latter unless channels are last: then the map is rows as it lies."""
    for kernel, channels, groups, first, last in (
        ((3, 3), 64, 1, Rows, Rows),
        ((3, 3), 4, 1, Columns, Columns),
        ((3, 3), 4, 2, Rows, Rows),
        ((1, 1), 64, 1, Columns, Rows),
        ((1, 1), 64, 2, Columns, Columns),
    ):
        walk = Geometry(kernel, (1, 1), (0, 0), (1, 1), groups)
        for channels_last, wanted in ((False, first), (True, last)):
            shared = SharedConstants(channels_last=channels_last)
            assert isinstance(matrix_of(walk, channels, SIZE, shared), wanted)
