"""Tensors as factors of matmuls, in forms that no runtime copies more often than it must."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dyx.nn.framework import paddle


def as_factor(x: Any, shape: list[int], *, transposed: bool = False) -> Any:
    """A tensor reshaped to three or four axes, and perhaps the last two exchanged, to be a factor of a matmul.

    Paddle's oneDNN copies at a reshape, unless a transpose follows it and a matmul follows that: then both are strides
    to it. So there always is a transpose; one that changes nothing is gone from the ONNX file. Never for what a
    convolution gives: its channels may lie in blocks, which those strides would not see, and the answer is wrong.
    """
    axes = list(range(len(shape)))
    return x.reshape(shape).transpose([*axes[:-2], axes[-1], axes[-2]] if transposed else axes)


def to_rows(x: Any) -> Any:
    """A map `(B, C, H, W)` with a position in each row, `(B, 1, H · W, C)`."""
    channels, height, width = x.shape[1:]
    return x.transpose([0, 2, 3, 1]).reshape([-1, 1, height * width, channels])


def averaged(x: Any, shape: list[int]) -> Any:
    """Means of a tensor, read in some shape, over its last axis but one, which stays with a size of 1.

    As a product with a constant: Paddle's oneDNN leaves a reduction over other axes than the last to a plain kernel. Of
    a map, one axis after the other: runtimes add up a product term by term. Of 56 × 56 equal positions that lost 1.8e-5
    of the mean, and loses 1e-6 so.
    """
    weight = paddle.full([1, shape[-2]], 1.0 / shape[-2], x.dtype)
    return paddle.matmul(weight, x.reshape(shape))


def row_means(rows: Any, size: tuple[int, ...]) -> Any:
    """Means `(B, C, 1, 1)` over the rows `(B, 1, H · W, C)` of a map of some size."""
    (height, width), channels = size, rows.shape[3]
    columns = averaged(rows, [-1, height, width * channels])
    return averaged(columns, [-1, width, channels]).reshape([-1, channels, 1, 1])


def gathered(rows: Any, table: Any, *, beyond: bool) -> Any:
    """Rows `(B, 1, n, C)` by a table of their numbers, in any order and number; `beyond`: n stands for zeros."""
    if beyond:
        rows = with_zero(rows, axis=2)
    return paddle.gather(rows, table.astype("int32"), axis=2)


def with_zero(x: Any, *, axis: int) -> Any:
    """A tensor with one place of zeros more at the end of an axis."""
    return _with_last(x, axis, paddle.zeros_like)


def with_one(x: Any, *, axis: int) -> Any:
    """A tensor with one place of ones more at the end of an axis."""
    return _with_last(x, axis, paddle.ones_like)


def _with_last(x: Any, axis: int, filled_like: Callable[[Any], Any]) -> Any:
    return paddle.concat([x, filled_like(paddle.slice(x, [axis], [0], [1]))], axis=axis)
