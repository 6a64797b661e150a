"""Ways to compute `y = Σ_k a_k (W_k * x + b_k) + t`, whatever the weights `a_k` come from.

- `mix-outputs`: convolution is linear in its kernel, so `y = Σ_k a_k y_k + t` with all `y_k = W_k * x + b_k` from one
  convolution with K · C_out outputs. Arithmetic: K × the static convolution, plus the mixture of outputs.
- `mix-inputs`: `a_k` is a scalar per sample, so `a_k (W_k * x) = W_k * (a_k x)`, and the sum over experts is one
  convolution on `[a_1 x ‖ … ‖ a_K x]`; zero padding stays zero. Arithmetic: K × the static convolution.
- `aggregate-kernel`: the definition itself, `(Σ_k a_k W_k) * x`, with the product over patches written as a batched
  matmul, so that the batch stays free. Arithmetic: 1 × the static convolution, plus mixing K kernels per sample,
  whatever the size of the map; memory for one kernel per sample. For a batch frozen to 1, and ONNX alone, the mixed
  kernel goes into an ordinary convolution instead: Paddle Inference with oneDNN keeps the kernel of its first call for
  all later ones, and answers wrongly from the second image on.
- `aggregate-scan`: of depthwise layers, in ONNX: an ordinary convolution of each sample by its kernel, one after the
  other. Arithmetic: 1 × the static convolution. In Paddle's format it is `aggregate-kernel`.
- `aggregate-winograd`: the same kernel per sample, mixed and applied in a transform domain, where products are fewer;
  see `tiles.py`.
- `winograd`: fewer products in a transform domain, with the mixture inside; see `winograd.py`.
- `mean-attention`: **lossy**. With `ā_k`, the mean of `a_k` over calibration images, in place of `a_k` the kernel
  `Σ_k ā_k W_k` and the bias `Σ_k ā_k b_k + t` are constants of a static convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np

from dyx.exporter import algebra
from dyx.exporter.folded.constants import SharedConstants, StaticConv
from dyx.exporter.folded.depthwise import depthwise_per_sample
from dyx.exporter.folded.experts import (
    AggregateDepthwise,
    AggregateKernel,
    AggregateTiles,
    ComputedKernel,
    MixInputs,
    MixOutputs,
)
from dyx.exporter.folded.rows import Columns, matrix_of, moves, unfolds_by_convolution
from dyx.exporter.folded.tiles import TransformedMap
from dyx.exporter.rule import MEAN_ATTENTION, Cost, FoldRule, Offer, Refusal, Site, Target
from dyx.exporter.rules.depthwise import SCAN_FORM, depthwise_cost, is_depthwise, no_scan
from dyx.exporter.rules.memory import over_memory
from dyx.exporter.rules.tiles import experts_in_tiles
from dyx.exporter.rules.winograd import winograd


@dataclass(frozen=True)
class Mixture:
    """A site as `y = Σ_k a_k (W_k * x + b_k) + t`, the batch norm after it included.

    Attributes:
        routing: What makes the weights `(B, K)` from x; None where the network hands them over beside x.
        weight: `(K, C_out, C_in/g, h, w)`.
        bias: `(K, C_out)` or None.
        offset: t, `(C_out,)`, or None.
    """

    routing: Any
    weight: np.ndarray
    bias: np.ndarray | None
    offset: np.ndarray | None


def expert_rules(kind: str, mixture: Callable[[Site], Mixture], *, competing: bool) -> tuple[FoldRule, ...]:
    """The rules for one kind of layer.

    Args:
        kind: Kind of layer.
        mixture: Reads a site whose `layer` is an `Experts`; called when a fold is built, not before.
        competing: Whether the weights of one sample sum to one.
    """
    strategies: dict[str, Callable[..., Offer | Refusal]] = {
        "mix-outputs": _mix_outputs,
        "mix-inputs": _mix_inputs,
        "aggregate-kernel": _aggregate_kernel,
        "aggregate-scan": _aggregate_scan,
        "aggregate-winograd": _aggregate_winograd,
        "winograd": partial(winograd, competing=competing),
        MEAN_ATTENTION: _mean_attention,
    }

    def rule(name: str, offer: Callable[..., Offer | Refusal]) -> FoldRule:
        return FoldRule(f"{kind}/{name}", kind, lambda site, target: not_planar(site) or offer(site, target, mixture))

    return tuple(rule(name, offer) for name, offer in strategies.items())


def not_planar(site: Site) -> Refusal | None:
    """A refusal of kernels that are not 2-D."""
    axes = len(site.layer.geometry.kernel)
    return None if axes == 2 else Refusal(f"its kernel has {axes} spatial axes; this rule folds 2")


def convolution_macs(site: Site) -> int:
    """Of the static convolution with one expert, per image."""
    return int(prod(site.layer.weight.shape[1:]) * prod(site.output_shape[1:]))


def unfolded_floats(site: Site) -> int:
    """Of a map's rows or columns, per image: its channels at all taps, for each position of the output.

    Nothing is unfolded where a kernel reads the map as it lies, a linear layer's among them.
    """
    geometry = site.layer.geometry
    if not moves(geometry):
        return prod(site.input_shape)
    return int(site.layer.channels_in * prod(geometry.kernel) * prod(site.output_shape[1:]))


def unfolding_macs(site: Site) -> int:
    """Of unfolding a map, per image: none where positions are gathered."""
    layer = site.layer
    if not unfolds_by_convolution(layer.geometry, layer.channels_in):
        return 0
    return unfolded_floats(site) * int(layer.channels_in * prod(layer.geometry.kernel))


def applying_floats(site: Site) -> int:
    """What is moved to apply a kernel per sample that is there, per image: the map, its rows or columns, the output.

    A map that is to be gathered is turned and padded first, and the output of rows is turned back.
    """
    inputs, outputs, geometry = prod(site.input_shape), prod(site.output_shape), site.layer.geometry
    if not moves(geometry):
        return inputs + outputs
    if unfolds_by_convolution(geometry, site.layer.channels_in):
        return inputs + 2 * unfolded_floats(site) + outputs
    return 5 * inputs + 2 * unfolded_floats(site) + 3 * outputs


def applying_cost(site: Site, *, scan: bool = False) -> Cost:
    """Of applying a kernel per sample that is there: to each channel, or to rows or columns of the map."""
    if is_depthwise(site):
        return depthwise_cost(site, scan=scan)
    return Cost.of_floats(convolution_macs(site) + unfolding_macs(site), applying_floats(site))


def widens(site: Site) -> bool:
    """Whether a 1×1 kernel makes so many channels of few that a bias costs less as an input of ones.

    Added to the output it reads and writes what it is added to. At batch 8 16 channels of 112 × 112 became 96 in 7.3
    instead of 9.6 ms on onnxruntime and 11.6 instead of 15.2 on OpenVINO, 64 of 14 × 14 became 384 in 1.10 instead of
    1.24 and 1.7 instead of 2.1; from many channels to few it lost.
    """
    layer = site.layer
    return bool(
        layer.geometry.groups == 1 and not moves(layer.geometry) and layer.channels_out >= 2 * layer.channels_in
    )


def _depthwise_macs(site: Site) -> int:
    """Of K experts in one convolution with one channel of an expert in each of its groups; 0 of others."""
    alone = site.layer.weight.shape[2] == 1 < site.layer.geometry.groups
    return site.layer.experts * convolution_macs(site) if alone else 0


def _bias_floats(site: Site) -> int:
    """What adding a mixed bias moves: the output is read and written once more."""
    return 0 if site.layer.bias is None and site.affine is None else 2 * prod(site.output_shape)


def _mix_outputs(site: Site, target: Target, mixture: Callable[[Site], Mixture]) -> Offer:
    layer, inputs, outputs = site.layer, prod(site.input_shape), prod(site.output_shape)
    macs = layer.experts * (convolution_macs(site) + outputs)
    floats = inputs + (2 * layer.experts + 1) * outputs
    cost = Cost.of_floats(macs, floats, layer.weight.size, depthwise_macs=_depthwise_macs(site))

    def build(_: SharedConstants) -> MixOutputs:
        mixed, groups = mixture(site), layer.geometry.groups
        bias = None if mixed.bias is None else algebra.bias_as_outputs(mixed.bias, groups)
        weight = algebra.experts_as_outputs(mixed.weight, groups)
        return MixOutputs(mixed.routing, weight, bias, mixed.offset, layer.geometry)

    return Offer(cost, "conv of K·C_out outputs, matmul over experts", build, site.norm)


def _mix_inputs(site: Site, target: Target, mixture: Callable[[Site], Mixture]) -> Offer:
    layer, inputs, outputs = site.layer, prod(site.input_shape), prod(site.output_shape)
    macs = layer.experts * (convolution_macs(site) + inputs)
    floats = (2 * layer.experts + 1) * inputs + outputs + _bias_floats(site)
    cost = Cost.of_floats(macs, floats, layer.weight.size, depthwise_macs=_depthwise_macs(site))

    def build(_: SharedConstants) -> MixInputs:
        mixed = mixture(site)
        weight = algebra.experts_as_inputs(mixed.weight, layer.geometry.groups)
        return MixInputs(mixed.routing, weight, mixed.bias, mixed.offset, layer.geometry)

    return Offer(cost, "conv on K scaled copies of the input", build, site.norm)


def _aggregate_kernel(site: Site, target: Target, mixture: Callable[[Site], Mixture]) -> Offer | Refusal:
    if target.batch == 1 and "paddle" not in target.formats:
        return _computed_kernel(site, mixture)
    offer = _depthwise_kernels if is_depthwise(site) else _batched_matmul
    return over_memory(prod(site.layer.weight.shape[1:]), target) or offer(site, mixture)


def _aggregate_scan(site: Site, target: Target, mixture: Callable[[Site], Mixture]) -> Offer | Refusal:
    return no_scan(site, target) or _depthwise_kernels(site, mixture, scan=True)


def _computed_kernel(site: Site, mixture: Callable[[Site], Mixture]) -> Offer:
    layer, kernel = site.layer, prod(site.layer.weight.shape[1:])
    floats = prod(site.input_shape) + prod(site.output_shape) + _bias_floats(site) + 2 * kernel

    def build(_: SharedConstants) -> ComputedKernel:
        mixed = mixture(site)
        return ComputedKernel(mixed.routing, mixed.weight, mixed.bias, mixed.offset, layer.geometry)

    cost = Cost.of_floats(convolution_macs(site) + layer.weight.size, floats, layer.weight.size)
    return Offer(cost, "convolution with a computed kernel (batch 1)", build, site.norm, computed_kernel=True)


def _batched_matmul(site: Site, mixture: Callable[[Site], Mixture]) -> Offer:
    layer, kernel, size = site.layer, prod(site.layer.weight.shape[1:]), site.input_shape[1:]

    def build(shared: SharedConstants) -> AggregateKernel:
        mixed, walk = mixture(site), layer.geometry
        if widens(site) and mixed.bias is not None and mixed.offset is None and not shared.channels_last:
            weight = np.concatenate([mixed.weight, mixed.bias[:, :, None, None, None]], axis=2)
            columns = Columns(walk, layer.channels_in, ones=True)
            return AggregateKernel(mixed.routing, weight, None, None, walk, columns)
        matrix = matrix_of(walk, layer.channels_in, size, shared, layer.channels_out)
        return AggregateKernel(mixed.routing, mixed.weight, mixed.bias, mixed.offset, walk, matrix)

    form, widest = "kernel per sample, im2col, batched matmul", max(kernel, unfolded_floats(site))
    return Offer(_mixing_cost(site) + applying_cost(site), form, build, site.norm, widest=widest)


def _depthwise_kernels(site: Site, mixture: Callable[[Site], Mixture], *, scan: bool = False) -> Offer:
    walk, size = site.layer.geometry, site.input_shape[1:]

    def build(shared: SharedConstants) -> AggregateDepthwise:
        mixed, applied = mixture(site), depthwise_per_sample(walk, size, shared, scan=scan)
        return AggregateDepthwise(mixed.routing, mixed.weight, mixed.bias, mixed.offset, walk, applied)

    cost = _mixing_cost(site) + applying_cost(site, scan=scan)
    return Offer(cost, SCAN_FORM if scan else "depthwise kernel per sample", build, site.norm)


def _mixing_cost(site: Site) -> Cost:
    """Of mixing kernels of each sample, and of their biases."""
    layer, kernel = site.layer, prod(site.layer.weight.shape[1:])
    return Cost.of_floats(layer.weight.size, 2 * kernel + _bias_floats(site), layer.weight.size)


def _aggregate_winograd(site: Site, target: Target, mixture: Callable[[Site], Mixture]) -> Offer | Refusal:
    def build(tiles: TransformedMap, parts: int) -> AggregateTiles:
        mixed = mixture(site)
        return AggregateTiles(mixed.routing, mixed.weight, mixed.bias, mixed.offset, tiles, parts)

    return experts_in_tiles(site, target, build, Cost.of_floats(0, _bias_floats(site)), site.norm)


def _mean_attention(site: Site, target: Target, mixture: Callable[[Site], Mixture]) -> Offer | Refusal:
    if site.mean_attention is None:
        return NOT_CALIBRATED
    (attention,) = site.mean_attention

    def build(_: SharedConstants) -> StaticConv:
        mixed = mixture(site)
        bias = 0.0 if mixed.bias is None else attention @ mixed.bias
        bias = bias + (np.zeros(site.layer.channels_out) if mixed.offset is None else mixed.offset)
        return StaticConv(np.tensordot(attention, mixed.weight, 1), bias, site.layer.geometry)

    return Offer(static_cost(site), "static conv at the mean attention", build, site.norm, lossy=True)


NOT_CALIBRATED = Refusal("it needs calibration images (--calibrate)")
"""Of every rule that fixes attention at its mean."""


def static_cost(site: Site) -> Cost:
    """Of one static convolution in a site's place."""
    moved = prod(site.input_shape) + prod(site.output_shape)
    return Cost.of_floats(convolution_macs(site), moved, prod(site.layer.weight.shape[1:]))
