"""Convolutions with a kernel per sample, in the forms that they can be trained in.

All forms of a layer have the same value and the same gradients. Which is the fastest depends on the shapes and on the
machine.

- `grouped`, the definition: the batch moves into the channels, for one convolution with `groups · B` groups.
- `columns`: im2col, then a product of matrices for each sample and group.
- `mix-outputs`, where whole experts are mixed: `Σ_k a_k (W_k * x)`, all K outputs made by one ordinary convolution.
"""

from __future__ import annotations

from math import prod
from typing import Any

from dyx.nn.framework import Layer, functional, paddle
from dyx.nn.geometry import per_axis


class PerSampleConv(Layer):
    """A convolution with a kernel per sample; abstract. It keeps stride, padding, dilation and groups as attributes.

    Attributes:
        form: The form that its forward takes; no parameter, and in no state dict. `dyx.nn.adapters.set_form` sets it.
    """

    form = "grouped"

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms that it can take, the definition first; im2col does not know paddings in words ("SAME")."""
        return ("grouped",) if isinstance(self.padding, str) else ("grouped", "columns")


class ExpertsConv(PerSampleConv):
    """A PerSampleConv that mixes whole experts, `weight (K, C_out, C_in / groups, k, k)`; abstract.

    Its `bias` is `(K, C_out)`, or None.
    """

    @property
    def forms(self) -> tuple[str, ...]:
        return (*super().forms, "mix-outputs")


def conv_of_experts(layer: ExpertsConv, x: Any, weights: Any) -> Any:
    """`conv(x_b, Σ_k a_bk W_k) + Σ_k a_bk b_k`, `(B, C_out, H', W')`, in the layer's form.

    Args:
        layer: Whose experts are mixed.
        x: `(B, C_in, H, W)`.
        weights: a, `(B, K)`; their sum may be anything.
    """
    bias = None if layer.bias is None else paddle.matmul(weights, layer.bias)
    if layer.form == "mix-outputs":
        return _add_bias(_mix_outputs(layer, x, weights), bias)
    mixed = paddle.matmul(weights, layer.weight.flatten(1))
    return conv_per_sample(layer, x, mixed.reshape([-1, *layer.weight.shape[1:]]), bias)


def conv_per_sample(layer: PerSampleConv, x: Any, kernels: Any, bias: Any = None) -> Any:
    """`(B, C_out, *size')`: each sample of `x (B, C_in, *size)` convolved with a kernel of its own.

    Args:
        layer: Whose `stride`, `padding`, `dilation` and `groups` hold, and whose form is taken: in columns where it
            says so and has them, else grouped.
        x: The input, of one or two spatial axes.
        kernels: `(B, C_out, C_in / groups, *kernel)`.
        bias: `(B, C_out)`, or None.
    """
    in_columns = layer.form == "columns" and not isinstance(layer.padding, str)
    return (_by_columns if in_columns else _by_groups)(layer, x, kernels, bias)


def _by_groups(layer: PerSampleConv, x: Any, kernels: Any, bias: Any) -> Any:
    batch, _, *size = x.shape
    convolve = functional.conv1d if len(size) == 1 else functional.conv2d
    y = convolve(
        x.reshape([1, -1, *size]),
        kernels.flatten(0, 1),
        None if bias is None else bias.flatten(),
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups * batch,
    )
    return y.reshape([batch, -1, *y.shape[2:]])


def _by_columns(layer: PerSampleConv, x: Any, kernels: Any, bias: Any) -> Any:
    batch, channels, *shape = kernels.shape
    kernel = tuple(shape[1:])
    walk = [kernel, *(per_axis(layer, name, len(kernel)) for name in ("stride", "padding", "dilation"))]
    columns = _columns(x, walk).reshape([batch, layer.groups, prod(shape), -1])
    y = paddle.matmul(kernels.reshape([batch, layer.groups, channels // layer.groups, -1]), columns)
    return _add_bias(y.reshape([batch, channels, *_size_out(x.shape[2:], walk)]), bias)


def _columns(x: Any, walk: list[tuple[int, ...]]) -> Any:
    """`(B, C · taps, positions)` of `x (B, C, *size)`, all taps of a channel side by side.

    Args:
        x: The input.
        walk: Kernel, stride, padding and dilation.
    """
    kernel, stride, padding, _ = walk
    if max(kernel) == max(stride) == 1 and max(padding) == 0:
        return x.flatten(2)
    if len(kernel) == 1:
        walk = [(still, *numbers) for still, numbers in zip((1, 1, 0, 1), walk, strict=True)]
        x = x.unsqueeze(2)
    return functional.unfold(x, *walk)


def _size_out(size: list[int], walk: list[tuple[int, ...]]) -> list[int]:
    """Positions along each spatial axis."""
    return [
        (length + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
        for length, taps, stride, padding, dilation in zip(size, *walk, strict=True)
    ]


def _mix_outputs(layer: ExpertsConv, x: Any, weights: Any) -> Any:
    """`Σ_k a_bk (W_k * x_b)`, without biases."""
    (experts, channels, *kernel), groups = layer.weight.shape, layer.groups
    # Experts stand inside each group, so that a grouped convolution still reads the right inputs.
    kernels = layer.weight.reshape([experts, groups, -1]).transpose([1, 0, 2]).reshape([experts * channels, *kernel])
    y = functional.conv2d(x, kernels, None, layer.stride, layer.padding, layer.dilation, groups)
    size = y.shape[2:]
    mixed = paddle.matmul(weights.reshape([-1, 1, 1, experts]), y.reshape([len(x), groups, experts, -1]))
    return mixed.reshape([-1, channels, *size])


def _add_bias(y: Any, bias: Any) -> Any:
    """`y (B, C_out, *size)` plus a bias `(B, C_out)`, or None."""
    return y if bias is None else y + bias.reshape([*bias.shape, *(1 for _ in y.shape[2:])])
