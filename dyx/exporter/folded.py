"""The static layers that folds build: standard operators, constant weights, a free batch size.

Layers are built from float64 arrays in Paddle's default dtype, so that a fold can be checked in float64 first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dyx.nn.adapters import Routing
from dyx.nn.framework import Layer, functional, nn, paddle


@dataclass(frozen=True)
class Geometry:
    """How a convolution walks: stride, padding (numbers or a word), dilation and groups."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int

    def convolve(self, x: Any, weight: Any, bias: Any = None) -> Any:
        """An ordinary convolution of `x (B, C, H, W)`."""
        padding = self.padding if isinstance(self.padding, str) else list(self.padding)
        return functional.conv2d(x, weight, bias, list(self.stride), padding, list(self.dilation), self.groups)


def constant(layer: Any, name: str, array: np.ndarray) -> None:
    """Give a layer a parameter with these values, in Paddle's default dtype."""
    values = nn.initializer.Assign(np.ascontiguousarray(array))
    setattr(layer, name, layer.create_parameter(list(array.shape), default_initializer=values))


class FoldedRouting(Layer):
    """Softmax routing with the temperature already in the last layer: GAP, two 1×1 convolutions, softmax.

    Args:
        routing: At temperature 1; see `algebra.fold_temperature`.
    """

    def __init__(self, routing: Routing) -> None:
        super().__init__()
        self.experts = len(routing.fc2_bias)
        self.pool = nn.AdaptiveAvgPool2D(1)
        for name, array in (("fc1", routing.fc1_weight), ("fc2", routing.fc2_weight)):
            constant(self, f"{name}_weight", array[:, :, None, None])
        constant(self, "fc1_bias", routing.fc1_bias)
        constant(self, "fc2_bias", routing.fc2_bias)

    def forward(self, x: Any) -> Any:
        """Weights `(B, K)`."""
        hidden = functional.relu(functional.conv2d(self.pool(x), self.fc1_weight, self.fc1_bias))
        scores = functional.conv2d(hidden, self.fc2_weight, self.fc2_bias)
        return functional.softmax(scores.reshape([0, self.experts]), axis=-1)


class MixOutputs(Layer):
    """`Σ_k a_k y_k` of one convolution with K · C_out outputs."""

    def __init__(self, routing: Routing, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry) -> None:
        super().__init__()
        self.routing = FoldedRouting(routing)
        self.geometry = geometry
        constant(self, "weight", weight)
        self.bias = None
        if bias is not None:
            constant(self, "bias", bias)

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')`. The mixture is a matmul: runtimes do that well, and 5-D broadcasts badly."""
        experts, groups = self.routing.experts, self.geometry.groups
        y = self.geometry.convolve(x, self.weight, self.bias)
        height, width = y.shape[2:]
        channels = self.weight.shape[0] // experts
        row = [0, 1, experts] if groups == 1 else [0, 1, 1, experts]
        split = [0, experts, channels * height * width]
        split = split if groups == 1 else [0, groups, experts, channels // groups * height * width]
        mixed = paddle.matmul(self.routing(x).reshape(row), y.reshape(split))
        return mixed.reshape([0, channels, height, width])


class MixInputs(Layer):
    """One convolution on `[a_1 x ‖ … ‖ a_K x]`; experts stand inside each group of channels."""

    def __init__(self, routing: Routing, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry) -> None:
        super().__init__()
        self.routing = FoldedRouting(routing)
        self.geometry = geometry
        constant(self, "weight", weight)
        self.bias = None
        if bias is not None:
            constant(self, "bias", bias)

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')`; the scaled copies are an outer product, again a matmul."""
        experts, groups = self.routing.experts, self.geometry.groups
        channels, height, width = x.shape[1:]
        attention = self.routing(x)
        column = [0, experts, 1] if groups == 1 else [0, 1, experts, 1]
        rows = [0, 1, channels * height * width]
        rows = rows if groups == 1 else [0, groups, 1, channels // groups * height * width]
        copies = paddle.matmul(attention.reshape(column), x.reshape(rows))
        y = self.geometry.convolve(copies.reshape([0, experts * channels, height, width]), self.weight)
        return y if self.bias is None else y + mixed_bias(attention, self.bias)


class AggregateKernel(Layer):
    """A kernel per sample, mixed by one matmul and applied by im2col and a batched matmul."""

    def __init__(self, routing: Routing, rows: np.ndarray, bias: np.ndarray | None, geometry: Geometry) -> None:
        super().__init__()
        self.routing = FoldedRouting(routing)
        self.geometry = geometry
        constant(self, "rows", rows)
        self.bias = None
        if bias is not None:
            constant(self, "bias", bias)

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')`."""
        groups = self.geometry.groups
        columns, (height, width) = self._columns(x)
        depth = columns.shape[-2]
        channels = self.rows.shape[1] // depth
        attention = self.routing(x)
        kernels = paddle.matmul(attention, self.rows)
        shape = [0, channels, depth] if groups == 1 else [0, groups, channels // groups, depth]
        y = paddle.matmul(kernels.reshape(shape), columns).reshape([0, channels, height, width])
        # The bias is added in 4-D, after the reshape: fused into the 3-D matmul, Paddle's oneDNN takes 200 × as long.
        return y if self.bias is None else y + mixed_bias(attention, self.bias)

    def _columns(self, x: Any) -> tuple[Any, tuple[int, int]]:
        """Patches `(B, taps · C_in, H' · W')` by shifted slices, `(B, g, taps · C_in/g, …)` with groups."""
        walk = self.geometry
        channels = x.shape[1]
        assert not isinstance(walk.padding, str)  # the rule refuses words
        rows, columns = walk.padding
        padded = functional.pad(x, [columns, columns, rows, rows]) if rows or columns else x
        height, width = (
            (padded.shape[2 + axis] - walk.dilation[axis] * (walk.kernel[axis] - 1) - 1) // walk.stride[axis] + 1
            for axis in (0, 1)
        )
        slices = [
            _strided(padded, (row * walk.dilation[0], column * walk.dilation[1]), (height, width), walk.stride)
            for row in range(walk.kernel[0])
            for column in range(walk.kernel[1])
        ]
        if walk.groups == 1:
            return paddle.concat(slices, 1).reshape([0, len(slices) * channels, height * width]), (height, width)
        per_group = [piece.reshape([0, walk.groups, channels // walk.groups, height * width]) for piece in slices]
        return paddle.concat(per_group, 2), (height, width)


class ComputedKernel(Layer):
    """For a batch of exactly one: the kernel is mixed, then an ordinary convolution takes it."""

    def __init__(self, routing: Routing, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry) -> None:
        super().__init__()
        self.routing = FoldedRouting(routing)
        self.geometry = geometry
        self.kernel_shape = list(weight.shape[1:])
        constant(self, "rows", weight.reshape(len(weight), -1))
        self.bias = None
        if bias is not None:
            constant(self, "bias", bias)

    def forward(self, x: Any) -> Any:
        """`(1, C_out, H', W')`."""
        attention = self.routing(x)
        kernel = paddle.matmul(attention, self.rows).reshape(self.kernel_shape)
        y = self.geometry.convolve(x, kernel)
        return y if self.bias is None else y + mixed_bias(attention, self.bias)


def mixed_bias(attention: Any, bias: Any) -> Any:
    """`Σ_k a_k b_k` as `(B, C_out, 1, 1)`."""
    return paddle.matmul(attention, bias).reshape([0, bias.shape[1], 1, 1])


def _strided(x: Any, start: tuple[int, int], size: tuple[int, int], stride: tuple[int, ...]) -> Any:
    """Every `stride`-th pixel from `start`, `size` of them per axis."""
    ends = [start[axis] + stride[axis] * (size[axis] - 1) + 1 for axis in (0, 1)]
    return x[:, :, start[0] : ends[0] : stride[0], start[1] : ends[1] : stride[1]]
