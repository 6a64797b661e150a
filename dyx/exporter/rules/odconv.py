"""Folds of ODConv `y = f · conv(c · x, s · Σ_k a_k W_k)`: attentions f over outputs, c over inputs, s over taps.

In all of them the batch norm of the attention goes into its first layer, and 1/T into the heads. Of a batch norm that
alone consumes the output, `p · y + q`, the scale goes into every `W_k`, since filters commute with it; the shift comes
after the filter attention, as one static bias.

- `odconv/aggregate-kernel`: c scales the kernel's input axis and s its taps, so both are one factor per row of the
  unfolded input; f scales its output axis, or the output, whichever is smaller. The kernel of each sample meets the
  unfolded input in a batched matmul; a depthwise one goes by bands or mixes shifted copies. Arithmetic: 1 × the static
  convolution, plus mixing K kernels per sample.
- `odconv/aggregate-scan`: a depthwise one, in ONNX, by an ordinary convolution of each sample after the other.
- `odconv/aggregate-winograd`: the same kernel, scaled along all its axes, applied by fewer products; see `tiles.py`.
- `odconv/mix-outputs`, `odconv/mix-inputs`: a 1×1 kernel has no spatial attention, and what is left between the
  two scalings is a mixture of static convolutions, as told in `experts.py`.
- `odconv/static`: of a single 1×1 expert nothing is left to mix: a static convolution between two scalings.
- `odconv/mean-attention`: **lossy**. The means of the four attentions over calibration images make one static kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from dyx.exporter import algebra
from dyx.exporter.algebra import Affine
from dyx.exporter.folded.constants import SharedConstants, StaticConv
from dyx.exporter.folded.depthwise import depthwise_per_sample
from dyx.exporter.folded.experts import MixInputs, MixOutputs
from dyx.exporter.folded.odconv import FoldedOdAttention, ScaledDepthwise, ScaledKernel, ScaledMixture
from dyx.exporter.folded.rows import matrix_of
from dyx.exporter.folded.tiles import Tiles
from dyx.exporter.rule import MEAN_ATTENTION, Cost, FoldRule, Offer, Refusal, Site, Target
from dyx.exporter.rules.depthwise import SCAN_FORM, is_depthwise, no_scan
from dyx.exporter.rules.experts import (
    NOT_CALIBRATED,
    applying_cost,
    convolution_macs,
    not_planar,
    static_cost,
    unfolded_floats,
)
from dyx.exporter.rules.memory import over_memory
from dyx.exporter.rules.tiles import in_tiles
from dyx.nn.odconv import Head, OdConvParameters


def _attention(layer: OdConvParameters) -> FoldedOdAttention:
    """The attentions with batch norm and temperature inside."""
    affine = Affine.of_batch_norm(*layer.norm)

    def cooled(head: Head | None) -> Head | None:
        return head and Head(head.weight / layer.temperature, head.bias / layer.temperature)

    trunk = Head(affine.scale[:, None] * layer.fc, affine.shift)
    channel = cooled(layer.channel)
    assert channel is not None  # it is never skipped
    return FoldedOdAttention(trunk, channel, cooled(layer.filters), cooled(layer.spatial), cooled(layer.kernel))


def _experts(site: Site) -> tuple[np.ndarray, np.ndarray | None]:
    """The kernels with the scale of the batch norm inside, and its shift."""
    weight, affine = site.layer.weight, site.affine
    if affine is None:
        return weight, None
    return weight * affine.scale.reshape(1, -1, *(1,) * (weight.ndim - 2)), affine.shift


def aggregate_kernel(site: Site, target: Target) -> Offer | Refusal:
    """One kernel per sample, scaled along its axes."""
    kernel = prod(site.layer.weight.shape[1:])
    return not_planar(site) or over_memory(kernel, target) or _scaled_kernel(site)


def aggregate_scan(site: Site, target: Target) -> Offer | Refusal:
    """The same of a depthwise layer, sample by sample."""
    return not_planar(site) or no_scan(site, target) or _scaled_kernel(site, scan=True)


def _scaled_kernel(site: Site, *, scan: bool = False) -> Offer:
    layer, kernel, walk, size = site.layer, prod(site.layer.weight.shape[1:]), site.layer.geometry, site.input_shape[1:]
    outputs, unfolded, depthwise = prod(site.output_shape), unfolded_floats(site), is_depthwise(site)

    def build(shared: SharedConstants) -> ScaledKernel | ScaledDepthwise:
        attention, (weight, offset) = _attention(layer), _experts(site)
        if depthwise:
            applied = depthwise_per_sample(walk, size, shared, scan=scan)
            return ScaledDepthwise(attention, weight, offset, walk, applied)
        matrix = matrix_of(walk, layer.channels_in, size, shared, layer.channels_out)
        return ScaledKernel(attention, weight, offset, matrix, filters_kernel=kernel < outputs)

    # The shift of a batch norm reads and writes the output once more.
    floats = 2 * kernel + 2 * min(kernel, unfolded) + 2 * outputs
    cost = Cost.of_floats(layer.weight.size + kernel, floats, layer.weight.size) + applying_cost(site, scan=scan)
    form, widest = SCAN_FORM if scan else "scaled kernel per sample", 0 if depthwise else max(kernel, unfolded)
    return Offer(cost, form, build, site.norm, widest=widest)


def aggregate_winograd(site: Site, target: Target) -> Offer | Refusal:
    """The same in tiles; all but the filter attention scales the kernel."""
    layer, kernel, outputs = site.layer, prod(site.layer.weight.shape[1:]), prod(site.output_shape)
    filters_kernel = kernel < outputs

    def build(_: SharedConstants, tiles: Tiles) -> ScaledKernel:
        weight, offset = _experts(site)
        return ScaledKernel(_attention(layer), weight, offset, tiles, filters_kernel=filters_kernel)

    # Mixed and scaled; the filter attention and the shift of a batch norm read and write what they change once more.
    floats = 3 * kernel + 2 * min(kernel, outputs) + 2 * outputs
    mixing = Cost.of_floats(layer.weight.size + 2 * kernel, floats, layer.weight.size)
    return not_planar(site) or in_tiles(site, target, mixing, build, site.norm)


def _pointwise(site: Site, *, experts: bool) -> Refusal | None:
    """A refusal of kernels that have spatial attention, or the wrong number of experts."""
    taps, count = prod(site.layer.geometry.kernel), site.layer.experts
    if taps > 1:
        return Refusal(f"its kernel has {taps} taps, each with an attention of its own; this rule folds 1×1")
    if experts != (count > 1):
        return Refusal(f"it has {count} expert{'s' * (count > 1)}; this rule folds {'several' if experts else 'one'}")
    return not_planar(site)


def _scaled(site: Site, target: Target, times: int, copied: int, form: str, inner: Callable[..., Any]) -> Offer:
    """An offer of something static between two scalings: `times` the convolution, and `copied` floats in between."""
    inputs, outputs = prod(site.input_shape), prod(site.output_shape)
    floats = 3 * inputs + 4 * outputs + 2 * copied

    def build(_: SharedConstants) -> ScaledMixture:
        weight, offset = _experts(site)
        return ScaledMixture(_attention(site.layer), inner(weight, site.layer.geometry), offset)

    cost = Cost.of_floats(times * convolution_macs(site) + copied, floats, site.layer.weight.size)
    return Offer(cost, form, build, site.norm)


def mix_outputs(site: Site, target: Target) -> Offer | Refusal:
    """A mixture of outputs between two scalings."""
    experts = site.layer.experts

    def inner(weight: np.ndarray, geometry: Any) -> MixOutputs:
        return MixOutputs(None, algebra.experts_as_outputs(weight, geometry.groups), None, None, geometry)

    copied = experts * prod(site.output_shape)
    form = "conv of K·C_out outputs between two scalings"
    return _pointwise(site, experts=True) or _scaled(site, target, experts, copied, form, inner)


def mix_inputs(site: Site, target: Target) -> Offer | Refusal:
    """A mixture of inputs between two scalings."""
    experts = site.layer.experts

    def inner(weight: np.ndarray, geometry: Any) -> MixInputs:
        return MixInputs(None, algebra.experts_as_inputs(weight, geometry.groups), None, None, geometry)

    copied = experts * prod(site.input_shape)
    form = "conv on K scaled copies between two scalings"
    return _pointwise(site, experts=True) or _scaled(site, target, experts, copied, form, inner)


def static(site: Site, target: Target) -> Offer | Refusal:
    """A static convolution between two scalings."""

    def inner(weight: np.ndarray, geometry: Any) -> StaticConv:
        return StaticConv(weight[0], None, geometry)

    return _pointwise(site, experts=False) or _scaled(site, target, 1, 0, "static conv between two scalings", inner)


def mean_attention(site: Site, target: Target) -> Offer | Refusal:
    """A static convolution at the means of the four attentions."""
    if site.mean_attention is None:
        return NOT_CALIBRATED
    channel, filters, spatial, kernel = site.mean_attention

    def build(_: SharedConstants) -> StaticConv:
        weight, offset = _experts(site)
        groups, (_, outputs, inputs, *size) = site.layer.geometry.groups, weight.shape
        mixed = np.tensordot(kernel, weight, 1) * filters[:, None, None, None] * spatial.reshape(1, 1, *size)
        by_group = channel.reshape(groups, 1, inputs, 1, 1)
        scaled = mixed.reshape(groups, outputs // groups, inputs, *size) * by_group
        return StaticConv(scaled.reshape(outputs, inputs, *size), offset, site.layer.geometry)

    return Offer(static_cost(site), "static conv at the mean attentions", build, site.norm, lossy=True)


RULES = (
    FoldRule("odconv/static", "odconv", static),
    FoldRule("odconv/mix-outputs", "odconv", mix_outputs),
    FoldRule("odconv/mix-inputs", "odconv", mix_inputs),
    FoldRule("odconv/aggregate-kernel", "odconv", aggregate_kernel),
    FoldRule("odconv/aggregate-scan", "odconv", aggregate_scan),
    FoldRule("odconv/aggregate-winograd", "odconv", aggregate_winograd),
    FoldRule(f"odconv/{MEAN_ATTENTION}", "odconv", mean_attention),
)
