"""The static layers that folds build: standard operators, constant weights, a free batch size.

Layers are built from float64 arrays in Paddle's default dtype, so that a fold can be checked in float64 first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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


class FoldedExperts(Layer):
    """What every fold of a K-expert convolution holds; abstract.

    Args:
        routing: At temperature 1.
        weight: Experts' kernels, in the order that the fold needs.
        bias: Experts' biases, in that order, or None.
        geometry: How the convolution walks.
    """

    def __init__(self, routing: Routing, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry) -> None:
        super().__init__()
        self.routing = FoldedRouting(routing)
        self.geometry = geometry
        constant(self, "weight", weight)
        self.bias = None
        if bias is not None:
            constant(self, "bias", bias)

    def add_mixed_bias(self, y: Any, attention: Any) -> Any:
        """`y + Σ_k a_k b_k`, for y `(B, C_out, H, W)` and biases `(K, C_out)`."""
        if self.bias is None:
            return y
        return y + paddle.matmul(attention, self.bias).reshape([0, self.bias.shape[1], 1, 1])


class MixOutputs(FoldedExperts):
    """`Σ_k a_k y_k` of one convolution with K · C_out outputs; weight and bias as `algebra.experts_as_outputs`."""

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


class MixInputs(FoldedExperts):
    """One convolution on `[a_1 x ‖ … ‖ a_K x]`; weight as `algebra.experts_as_inputs`, bias `(K, C_out)`."""

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
        return self.add_mixed_bias(y, attention)


class AggregateKernel(FoldedExperts):
    """A kernel per sample, mixed by one matmul and applied by im2col and a batched matmul.

    Patches are taken by a grouped convolution with one-hot kernels: one node that knows stride, padding and dilation.
    Beside slices and `unfold` it measured fastest on onnxruntime and within about a tenth elsewhere. Above all it needs
    no padding operator: paddle2onnx 2.1 leaves pad3d's fill value uninitialised, and Paddle's oneDNN padding writes
    past its buffer.

    Args:
        routing: At temperature 1.
        weight: `(K, C_out, C_in/g, h, w)`.
        bias: `(K, C_out)` or None.
        geometry: How the convolution walks.
    """

    def __init__(self, routing: Routing, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry) -> None:
        super().__init__(routing, weight.reshape(len(weight), -1), bias, geometry)
        channels_in, taps = weight.shape[2] * geometry.groups, int(np.prod(weight.shape[3:]))
        self.patches = replace(geometry, groups=channels_in)
        self.channels_out, self.depth = weight.shape[1], weight.shape[2] * taps
        one_hot = np.eye(taps).reshape(taps, 1, *weight.shape[3:])
        constant(self, "one_hot", np.tile(one_hot, (channels_in, 1, 1, 1)))

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')`."""
        columns = self.patches.convolve(x, self.one_hot)
        height, width = columns.shape[2:]
        attention = self.routing(x)
        kernels = paddle.matmul(attention, self.weight).reshape([0, *self._per_group(self.channels_out), self.depth])
        depth = self.depth * self.geometry.groups
        columns = columns.reshape([0, *self._per_group(depth), height * width])
        y = paddle.matmul(kernels, columns).reshape([0, self.channels_out, height, width])
        # The bias is added in 4-D, after the reshape: fused into the 3-D matmul, Paddle's oneDNN takes 200 × as long.
        return self.add_mixed_bias(y, attention)

    def _per_group(self, size: int) -> tuple[int, ...]:
        groups = self.geometry.groups
        return (size,) if groups == 1 else (groups, size // groups)


class ComputedKernel(FoldedExperts):
    """For a batch of exactly one: the kernel is mixed, then an ordinary convolution takes it.

    Args:
        routing: At temperature 1.
        weight: `(K, C_out, C_in/g, h, w)`.
        bias: `(K, C_out)` or None.
        geometry: How the convolution walks.
    """

    def __init__(self, routing: Routing, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry) -> None:
        super().__init__(routing, weight.reshape(len(weight), -1), bias, geometry)
        self.kernel_shape = list(weight.shape[1:])

    def forward(self, x: Any) -> Any:
        """`(1, C_out, H', W')`."""
        attention = self.routing(x)
        kernel = paddle.matmul(attention, self.weight).reshape(self.kernel_shape)
        return self.add_mixed_bias(self.geometry.convolve(x, kernel), attention)
