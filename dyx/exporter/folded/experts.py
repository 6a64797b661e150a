"""Static layers for K-expert convolutions: mixtures of outputs, of inputs and of kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from dyx.exporter.folded.constants import constant
from dyx.exporter.folded.factors import as_factor, row_means, to_rows
from dyx.exporter.folded.rows import Matrix, applied, kernel_shape, lying_for
from dyx.exporter.folded.tiles import TransformedMap
from dyx.exporter.winograd import kernel_factors, tile
from dyx.nn.attention import Routing
from dyx.nn.framework import Layer, functional, nn, paddle
from dyx.nn.geometry import Geometry

_COLUMNS = 16
"""Of a product that runtimes compute at once: where there are more, but no multiple, the last ones cost as much."""


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
        """Weights `(B, K)` of a map."""
        return self.of_means(self.pool(x))

    def of_means(self, means: Any) -> Any:
        """Weights `(B, K)` of the means `(B, C, 1, 1)` of a map."""
        hidden = functional.relu(functional.conv2d(means, self.fc1_weight, self.fc1_bias))
        scores = functional.conv2d(hidden, self.fc2_weight, self.fc2_bias)
        return functional.softmax(scores.reshape([0, self.experts]), axis=-1)


class FoldedExperts(Layer):
    """What every fold of a K-expert convolution holds; abstract.

    Args:
        routing: What makes the weights `(B, K)` from x, or None where they come beside x.
        weight: Experts' kernels, in the order that the fold needs; None where it holds them in several parts.
        bias: Experts' biases, in that order, or None.
        offset: A bias that is not mixed, `(C_out,)`, or None.
        geometry: How the convolution walks.
    """

    def __init__(
        self,
        routing: Any,
        weight: np.ndarray | None,
        bias: np.ndarray | None,
        offset: np.ndarray | None,
        geometry: Geometry,
    ) -> None:
        super().__init__()
        self.routing = routing
        self.geometry = geometry
        if weight is not None:
            constant(self, "weight", weight)
        self.bias = self.offset = None
        if bias is not None:
            constant(self, "bias", bias)
        if offset is not None:
            constant(self, "offset", offset)

    def attention_of(self, x: Any, given: Any) -> Any:
        """Weights `(B, K)`: the routing's, or those that came beside x."""
        return given if self.routing is None else self.routing(x)

    def add_bias(self, y: Any, attention: Any) -> Any:
        """`y + Σ_k a_k b_k + t`, for y `(B, C_out, H, W)` and biases `(K, C_out)`."""
        if self.bias is not None:
            bias = paddle.matmul(attention, self.bias)
            bias = bias if self.offset is None else bias + self.offset
            # Added in 4-D: fused into a 3-D matmul, Paddle's oneDNN takes 200 × as long.
            return y + bias.reshape([0, self.bias.shape[1], 1, 1])
        return y if self.offset is None else y + self.offset.reshape([1, -1, 1, 1])


class MixOutputs(FoldedExperts):
    """`Σ_k a_k y_k` of one convolution with K · C_out outputs; weight and bias as `algebra.experts_as_outputs`."""

    def forward(self, x: Any, attention: Any = None) -> Any:
        """`(B, C_out, H', W')`. The mixture is a matmul: runtimes do that well, and 5-D broadcasts badly."""
        attention, groups = self.attention_of(x, attention), self.geometry.groups
        experts = attention.shape[1]
        y = self.geometry.convolve(x, self.weight, self.bias)
        height, width = y.shape[2:]
        channels = self.weight.shape[0] // experts
        row = [0, 1, experts] if groups == 1 else [0, 1, 1, experts]
        split = [0, experts, channels * height * width]
        split = split if groups == 1 else [0, groups, experts, channels // groups * height * width]
        mixed = paddle.matmul(attention.reshape(row), y.reshape(split)).reshape([0, channels, height, width])
        return mixed if self.offset is None else mixed + self.offset.reshape([1, channels, 1, 1])


class MixInputs(FoldedExperts):
    """One convolution on `[a_1 x ‖ … ‖ a_K x]`; weight as `algebra.experts_as_inputs`, bias `(K, C_out)`."""

    def forward(self, x: Any, attention: Any = None) -> Any:
        """`(B, C_out, H', W')`; the scaled copies are an outer product, again a matmul."""
        attention, groups = self.attention_of(x, attention), self.geometry.groups
        experts = attention.shape[1]
        channels, height, width = x.shape[1:]
        column = [0, experts, 1] if groups == 1 else [0, 1, experts, 1]
        rows = [0, 1, channels * height * width]
        rows = rows if groups == 1 else [0, groups, 1, channels // groups * height * width]
        copies = paddle.matmul(attention.reshape(column), x.reshape(rows))
        y = self.geometry.convolve(copies.reshape([0, experts * channels, height, width]), self.weight)
        return self.add_bias(y, attention)


class AggregateKernel(FoldedExperts):
    """A kernel per sample, mixed by one matmul and applied to rows or columns of the map by batched matmuls.

    Args:
        routing: What makes the weights, or None.
        weight: `(K, C_out, C_in/g, h, w)`.
        bias: `(K, C_out)` or None.
        offset: `(C_out,)` or None.
        geometry: How the convolution walks.
        matrix: What makes rows or columns of the map.
    """

    def __init__(
        self,
        routing: Any,
        weight: np.ndarray,
        bias: np.ndarray | None,
        offset: np.ndarray | None,
        geometry: Geometry,
        matrix: Matrix,
    ) -> None:
        super().__init__(routing, lying_for(matrix, weight), bias, offset, geometry)
        self.matrix, self.kernel_shape = matrix, kernel_shape(matrix, weight)

    def forward(self, x: Any, attention: Any = None) -> Any:
        """`(B, C_out, H', W')`."""
        attention = self.attention_of(x, attention)
        kernels = as_factor(paddle.matmul(attention, self.weight), self.kernel_shape)
        return self.add_bias(applied(self.matrix, x, kernels), attention)


class AggregateTiles(FoldedExperts):
    """`y = write · ((Σ_k a_k F_k) ⊙ (read · x))`, with factors `F_k` of experts, mixed for each sample.

    The points of the transform domain are taken part by part: what was mixed for all samples then meets their tiles
    while it is still in a cache.

    Args:
        routing: What makes the weights, or None.
        weight: `(K, C_out, C_in, h, w)`.
        bias: `(K, C_out)` or None.
        offset: `(C_out,)` or None.
        tiles: What transforms maps.
        parts: In how many parts of equal size.
    """

    def __init__(
        self,
        routing: Any,
        weight: np.ndarray,
        bias: np.ndarray | None,
        offset: np.ndarray | None,
        tiles: TransformedMap,
        parts: int,
    ) -> None:
        super().__init__(routing, None, bias, offset, tiles.geometry)
        self.tiles, self.parts = tiles, parts
        # On the left, a kernel is not repacked; but runtimes compute so many columns at once.
        self.kernels_left = tiles.count <= _COLUMNS
        factors = kernel_factors(weight, (tile(tiles.inputs, weight.shape[-1]),) * 2)
        factors = factors.reshape(len(weight), -1, *factors.shape[3:])
        factors = factors.swapaxes(2, 3) if self.kernels_left else factors
        self.kernel_shape = list(factors.shape[2:])
        for number, part in enumerate(np.split(factors, parts, axis=1)):
            constant(self, f"factors{number}", part.reshape(len(weight), -1))

    def forward(self, x: Any, attention: Any = None) -> Any:
        """`(B, C_out, H', W')`."""
        rows, size = to_rows(x), tuple(x.shape[2:])
        # Not by a pooling: runtimes then leave a map in rows between two such layers.
        attention = attention if self.routing is None else self.routing.of_means(row_means(rows, size))
        read = self.tiles.transformed(rows, size)
        parts = paddle.split(read, self.parts, axis=1) if self.parts > 1 else [read]
        products = [self._product(part, attention, number) for number, part in enumerate(parts)]
        product = paddle.concat(products, axis=1) if self.parts > 1 else products[0]
        return self.add_bias(self.tiles.outputs(product, size, turned=self.kernels_left), attention)

    def _product(self, read: Any, attention: Any, number: int) -> Any:
        """`(B, points, tiles, C_out)` of one part, the last two exchanged with kernels on the left."""
        points, left = read.shape[1], self.kernels_left
        channels = self.kernel_shape[1 if left else 0]
        read = as_factor(read, [-1, points, read.shape[2] // channels, channels], transposed=left)
        mixed = paddle.matmul(attention, getattr(self, f"factors{number}"))
        kernels = as_factor(mixed, [-1, points, *self.kernel_shape])
        return paddle.matmul(kernels, read) if left else paddle.matmul(read, kernels)


class AggregateDepthwise(FoldedExperts):
    """A kernel per sample and channel, mixed by one matmul.

    Args:
        routing: What makes the weights, or None.
        weight: `(K, C, 1, h, w)`.
        bias: `(K, C)` or None.
        offset: `(C,)` or None.
        geometry: How the convolution walks.
        depthwise: What applies the kernels; see `depthwise_per_sample`.
    """

    def __init__(
        self,
        routing: Any,
        weight: np.ndarray,
        bias: np.ndarray | None,
        offset: np.ndarray | None,
        geometry: Geometry,
        depthwise: Any,
    ) -> None:
        super().__init__(routing, weight.reshape(len(weight), -1), bias, offset, geometry)
        self.depthwise = depthwise

    def forward(self, x: Any, attention: Any = None) -> Any:
        """`(B, C, H', W')`."""
        attention = self.attention_of(x, attention)
        return self.add_bias(self.depthwise(x, paddle.matmul(attention, self.weight)), attention)


class ComputedKernel(FoldedExperts):
    """For a batch of exactly one: the kernel is mixed, then an ordinary convolution takes it.

    Args:
        routing: What makes the weights, or None.
        weight: `(K, C_out, C_in/g, h, w)`.
        bias: `(K, C_out)` or None.
        offset: `(C_out,)` or None.
        geometry: How the convolution walks.
    """

    def __init__(
        self,
        routing: Any,
        weight: np.ndarray,
        bias: np.ndarray | None,
        offset: np.ndarray | None,
        geometry: Geometry,
    ) -> None:
        super().__init__(routing, weight.reshape(len(weight), -1), bias, offset, geometry)
        self.kernel_shape = list(weight.shape[1:])

    def forward(self, x: Any, attention: Any = None) -> Any:
        """`(1, C_out, H', W')`."""
        attention = self.attention_of(x, attention)
        kernel = paddle.matmul(attention, self.weight).reshape(self.kernel_shape)
        return self.add_bias(self.geometry.convolve(x, kernel), attention)
