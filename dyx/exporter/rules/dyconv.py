"""Folds of the dynamic convolution `y = Σ_k a_k (W_k * x + b_k)`, `a = softmax(s / T)`.

In all of them the temperature goes into the last routing layer, and a batch norm that alone consumes the output goes
into the experts: its scale into every `W_k` and `b_k`, its shift into every `b_k`, which is exact because the
attention sums to one.

- `dyconv/mix-outputs`: convolution is linear in its kernel, so `y = Σ_k a_k y_k` with all `y_k = W_k * x + b_k` from
  one convolution with K · C_out outputs. Arithmetic: K × the static convolution, plus the mixture of outputs.
- `dyconv/mix-inputs`: `a_k` is a scalar per sample, so `a_k (W_k * x) = W_k * (a_k x)`, and the sum over experts is
  one convolution on `[a_1 x ‖ … ‖ a_K x]`; zero padding stays zero. Arithmetic: K × the static convolution.
- `dyconv/aggregate-kernel`: the definition itself, `(Σ_k a_k W_k) * x`, with the product over patches written as a
  batched matmul, so that the batch stays free. Arithmetic: 1 × the static convolution, plus mixing K kernels per
  sample, whatever the size of the map; memory for one kernel per sample. For a batch frozen to 1, and ONNX alone, the
  mixed kernel goes into an ordinary convolution instead: Paddle Inference with oneDNN keeps the kernel of its first
  call for all later ones, and answers wrongly from the second image on.
"""

from __future__ import annotations

from math import prod

import numpy as np

from dyx.exporter import algebra
from dyx.exporter.folded import AggregateKernel, ComputedKernel, Geometry, MixInputs, MixOutputs
from dyx.exporter.rule import FLOAT_BYTES, Cost, FoldRule, Offer, Refusal, Site, Target
from dyx.nn.adapters import Routing

KERNELS_LIMIT_BYTES = 2**30
"""How much memory one layer's per-sample kernels may take at the batch planned for."""


def _routing(site: Site) -> Routing:
    return algebra.fold_temperature(site.layer.routing)


def _experts(site: Site) -> tuple[np.ndarray, np.ndarray | None]:
    return algebra.fold_affine(site.layer.weight, site.layer.bias, site.affine)


def _geometry(site: Site) -> Geometry:
    layer = site.layer
    return Geometry(layer.kernel, layer.stride, layer.padding, layer.dilation, layer.groups)


def _not_planar(site: Site) -> Refusal | None:
    axes = len(site.layer.kernel)
    return None if axes == 2 else Refusal(f"its kernel has {axes} spatial axes; this rule folds 2")


def _convolution_macs(site: Site) -> int:
    """Of the static convolution with one expert, per image."""
    return prod(site.layer.weight.shape[1:]) * prod(site.output_shape[1:])


def _bias_floats(site: Site) -> int:
    """What adding a mixed bias moves: the output is read and written once more."""
    return 0 if site.layer.bias is None and site.affine is None else 2 * prod(site.output_shape)


def mix_outputs(site: Site, target: Target) -> Offer | Refusal:
    """One convolution with K · C_out outputs, then a weighted sum of outputs."""
    refusal = _not_planar(site)
    if refusal:
        return refusal
    layer, inputs, outputs = site.layer, prod(site.input_shape), prod(site.output_shape)
    macs = layer.experts * (_convolution_macs(site) + outputs)
    floats = inputs + (2 * layer.experts + 1) * outputs + layer.weight.size / target.priced_batch

    def build() -> MixOutputs:
        weight, bias = _experts(site)
        order = None if bias is None else algebra.bias_as_outputs(bias, layer.groups)
        return MixOutputs(_routing(site), algebra.experts_as_outputs(weight, layer.groups), order, _geometry(site))

    return Offer(Cost(macs, int(FLOAT_BYTES * floats)), "conv of K·C_out outputs, matmul over experts", build)


def mix_inputs(site: Site, target: Target) -> Offer | Refusal:
    """One convolution on K scaled copies of the input."""
    refusal = _not_planar(site)
    if refusal:
        return refusal
    layer, inputs, outputs = site.layer, prod(site.input_shape), prod(site.output_shape)
    macs = layer.experts * (_convolution_macs(site) + inputs)
    floats = (2 * layer.experts + 1) * inputs + outputs + _bias_floats(site) + layer.weight.size / target.priced_batch

    def build() -> MixInputs:
        weight, bias = _experts(site)
        return MixInputs(_routing(site), algebra.experts_as_inputs(weight, layer.groups), bias, _geometry(site))

    return Offer(Cost(macs, int(FLOAT_BYTES * floats)), "conv on K scaled copies of the input", build)


def aggregate_kernel(site: Site, target: Target) -> Offer | Refusal:
    """One kernel per sample, applied by im2col and a batched matmul; for ONNX at a batch of 1 by a convolution."""
    refusal = _not_planar(site)
    if refusal:
        return refusal
    if target.batch == 1 and "paddle" not in target.formats:
        return _computed_kernel(site)
    return _batched_matmul(site, target)


def _computed_kernel(site: Site) -> Offer:
    layer, kernel = site.layer, prod(site.layer.weight.shape[1:])
    floats = prod(site.input_shape) + prod(site.output_shape) + _bias_floats(site) + layer.weight.size + 2 * kernel

    def build() -> ComputedKernel:
        weight, bias = _experts(site)
        return ComputedKernel(_routing(site), weight, bias, _geometry(site))

    cost = Cost(_convolution_macs(site) + layer.weight.size, FLOAT_BYTES * floats)
    return Offer(cost, "convolution with a computed kernel (batch 1)", build, computed_kernel=True)


def _batched_matmul(site: Site, target: Target) -> Offer | Refusal:
    layer, kernel = site.layer, prod(site.layer.weight.shape[1:])
    memory = target.priced_batch * kernel * FLOAT_BYTES
    if memory > KERNELS_LIMIT_BYTES:
        mib, limit = memory // 2**20, KERNELS_LIMIT_BYTES // 2**20
        return Refusal(f"one kernel per sample takes {mib} MiB at batch {target.priced_batch}, over {limit} MiB")
    patches = layer.channels_in * prod(layer.kernel) * prod(site.output_shape[1:])
    floats = prod(site.input_shape) + 2 * patches + 2 * kernel + prod(site.output_shape) + _bias_floats(site)

    def build() -> AggregateKernel:
        weight, bias = _experts(site)
        return AggregateKernel(_routing(site), weight, bias, _geometry(site))

    cost = Cost(
        _convolution_macs(site) + layer.weight.size + patches * prod(layer.kernel),
        int(FLOAT_BYTES * (floats + layer.weight.size / target.priced_batch)),
    )
    return Offer(cost, "kernel per sample, im2col, batched matmul", build)


RULES = (
    FoldRule("dyconv/mix-outputs", "dyconv", mix_outputs),
    FoldRule("dyconv/mix-inputs", "dyconv", mix_inputs),
    FoldRule("dyconv/aggregate-kernel", "dyconv", aggregate_kernel),
)
