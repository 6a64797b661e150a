"""Folds of KernelWarehouse: `y = W * x + b`, block (s, o, i) of the kernel W being `Σ_j α_soi,j E_j`.

The blocks of a kernel are counted by tap s, output o and input i; the cells E_j belong to a warehouse that many layers
share. α is attention: scores z over the sum of their magnitudes, the null cell's included. In all folds

- the temperature is 0, so that α is attention alone;
- a batch norm of the attention goes into fc1, which it follows: `γ (W v - μ) / σ + β = (γ W / σ) v + (β - γ μ / σ)`;
- the rows of fc2 are put into the order (o, s, i), or (i, s, o) where kernels are left factors, and so α comes out in
  the order in which kernels lie;
- where cells are scored through a basis, cutting scores in three, fc3 and joining the pieces is one matrix;
- a batch norm that follows the layer stays: its scale cannot go into cells that are shared, and on the kernels of a
  batch it would cost more than on the outputs.

Ways to compute the mixture:

- `aggregate-kernel`: the definition, `W = α E` and then `W * x`, as two matmuls with im2col between them, so that the
  batch stays free. Arithmetic: the static convolution, plus m·n·cell to mix, whatever the size of the map. The cells
  are stored once for all layers that share them.
- `aggregate-scan`: of depthwise layers, in ONNX: an ordinary convolution of each sample by its kernel, one after the
  other. In Paddle's format it is `aggregate-kernel`.
- `aggregate-winograd`: the same kernel, applied by fewer products in a transform domain; see `tiles.py`.
- `mix-inputs`: sums over s and i before those over cells, `y_o = Σ_j E_j (Σ_si α_soi,j x_si)`: inputs are mixed, and
  the cells are one constant matrix. Arithmetic: n / (S · I) × the static convolution, plus n·m·C_in/I per position.
- `experts-first`: sums over cells first, `y_o = Σ_s shift_s(Σ_ij α_soi,j E_j x_i)`: each cell is a static 1×1
  convolution. Arithmetic: n / (S · O) × the static convolution at stride 1, plus n·m·C_out/O per position.
- `mean-attention`: **lossy**. With the mean of α over calibration images the kernel is a constant, and the batch norm
  that follows goes into it.

The middle two want the cells lying otherwise than kernels do, so they are offered where no other layer shares them:
then too the cells are stored once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from dyx.exporter.algebra import Affine
from dyx.exporter.folded.constants import SharedConstants, StaticConv
from dyx.exporter.folded.depthwise import depthwise_per_sample
from dyx.exporter.folded.kernelwarehouse import (
    CellsFirst,
    DepthwiseKernelPerSample,
    FoldedCells,
    KernelPerSample,
    LeftKernelPerSample,
    MixedTaps,
    StaticLinear,
    lie_left,
)
from dyx.exporter.folded.rows import LinearRows, matrix_of
from dyx.exporter.folded.tiles import Tiles
from dyx.exporter.rule import Cost, FoldRule, Offer, Refusal, Site, Target
from dyx.exporter.rules.depthwise import SCAN_FORM, depthwise_cost, is_depthwise, no_scan
from dyx.exporter.rules.experts import (
    NOT_CALIBRATED,
    applying_floats,
    unfolded_floats,
    unfolding_macs,
)
from dyx.exporter.rules.memory import over_memory
from dyx.exporter.rules.tiles import in_tiles
from dyx.nn.kw_parameters import KwAttention, KwParameters
from dyx.nn.warehouse import Grid


def fold_norm(attention: KwAttention) -> KwAttention:
    """The same attention with a batch norm of its hidden layer inside fc1; a layer norm stays."""
    norm = attention.norm
    if norm is None or norm.mean is None or norm.variance is None:
        return attention
    affine = Affine.of_batch_norm(norm.weight, norm.bias, norm.mean, norm.variance, norm.epsilon)
    bias = 0.0 if attention.fc1_bias is None else attention.fc1_bias
    return replace(
        attention,
        fc1_weight=affine.scale[:, None] * attention.fc1_weight,
        fc1_bias=affine.scale * bias + affine.shift,
        norm=None,
    )


def order_mixtures(attention: KwAttention, grid: Grid, *, left: bool = False) -> KwAttention:
    """The same attention with mixtures in the order (out, spatial, in), or left (in, spatial, out).

    They come in the order (spatial, out, in).
    """
    axes = (2, 0, 1) if left else (1, 0, 2)

    def ordered(array: np.ndarray) -> np.ndarray:
        split = array.reshape(grid.spatial, grid.out, grid.in_, -1)
        return split.transpose(*axes, 3).reshape(array.shape)

    basis = attention.basis and replace(attention.basis, bias=ordered(attention.basis.bias))
    bias = None if attention.fc2_bias is None else ordered(attention.fc2_bias)
    return replace(attention, fc2_weight=ordered(attention.fc2_weight), fc2_bias=bias, basis=basis)


def kernel_of(layer: KwParameters, alpha: np.ndarray) -> np.ndarray:
    """W `(C_out, C_in/g, *kernel)` of mixing weights `(m, n)`."""
    grid, (_, out, in_, *cell) = layer.grid, layer.cells.shape
    blocks = np.tensordot(alpha, layer.cells.read(), 1)
    split = blocks.reshape(grid.spatial, grid.out, grid.in_, out, in_, prod(cell))
    return split.transpose(1, 3, 2, 4, 0, 5).reshape(layer.kernel_shape)


def _folded(layer: KwParameters, *, left: bool = False) -> KwParameters:
    return replace(layer, attention=order_mixtures(fold_norm(layer.attention), layer.grid, left=left))


def _rule(name: str, offer: Callable[[Site, Target], Offer | Refusal]) -> FoldRule:
    return FoldRule(f"kw/{name}", "kw", lambda site, target: _unfoldable(site) or offer(site, target))


def _unfoldable(site: Site) -> Refusal | None:
    """A refusal of what no rule of this kind folds."""
    layer: KwParameters = site.layer
    if layer.temperature != 0:
        return Refusal(f"its temperature is {layer.temperature:g}, and these rules fold layers at 0")
    axes = len(layer.geometry.kernel)
    if not layer.linear and axes != 2:
        return Refusal(f"its kernel has {axes} spatial axes; this rule folds 2")
    return None


def _own_cells(site: Site) -> Refusal | None:
    """A refusal where cells cannot be applied one by one, or cannot lie as that wants."""
    layer: KwParameters = site.layer
    if layer.cells.shared:
        return Refusal("its cells are shared, and other layers want them lying as kernels do")
    if layer.geometry.groups > 1:
        return Refusal(f"its convolution has {layer.geometry.groups} groups; this rule folds 1")
    if prod(layer.cells.shape[3:]) > 1:
        return Refusal(f"its cells are {'×'.join(map(str, layer.cells.shape[3:]))}; this rule folds cells of 1×1")
    return None


def _aggregate_kernel(site: Site, target: Target) -> Offer | Refusal:
    layer: KwParameters = site.layer
    kernel = prod(layer.kernel_shape)
    refusal = over_memory(kernel, target)
    if refusal or is_depthwise(site):
        return refusal or _depthwise_kernels(site)

    def build(shared: SharedConstants) -> FoldedCells:
        walk, left = layer.geometry, lie_left(layer, _positions(site)[1], shared)
        if left and walk.groups == 1:
            return LeftKernelPerSample(_folded(layer, left=True), _size(site), shared)
        matrix = LinearRows() if layer.linear else matrix_of(walk, layer.channels_in, _size(site), shared)
        return KernelPerSample(_folded(layer), matrix, shared, left=left)

    macs = kernel * _positions(site)[1] + unfolding_macs(site)
    cost = _mixing_cost(site) + Cost.of_floats(macs, applying_floats(site))
    form = "kernel per sample from shared cells, batched matmul"
    return Offer(cost, form, build, widest=max(kernel, unfolded_floats(site)))


def _aggregate_scan(site: Site, target: Target) -> Offer | Refusal:
    return no_scan(site, target) or _depthwise_kernels(site, scan=True)


def _depthwise_kernels(site: Site, *, scan: bool = False) -> Offer:
    layer: KwParameters = site.layer

    def build(shared: SharedConstants) -> DepthwiseKernelPerSample:
        applied = depthwise_per_sample(layer.geometry, _size(site), shared, scan=scan)
        return DepthwiseKernelPerSample(_folded(layer), shared, applied)

    cost = _mixing_cost(site) + depthwise_cost(site, scan=scan)
    return Offer(cost, SCAN_FORM if scan else "depthwise kernel per sample from shared cells", build)


def _mixing_cost(site: Site) -> Cost:
    """Of mixing a kernel of cells."""
    layer: KwParameters = site.layer
    return _cost(layer.grid.mixtures * layer.cells.size, 2 * prod(layer.kernel_shape), site)


def _aggregate_winograd(site: Site, target: Target) -> Offer | Refusal:
    layer: KwParameters = site.layer
    # Blocks of several outputs are put together to one kernel.
    kernel = prod(layer.kernel_shape) * (3 if layer.grid.out > 1 else 1)

    def build(shared: SharedConstants, tiles: Tiles) -> KernelPerSample:
        return KernelPerSample(_folded(layer), tiles, shared, left=lie_left(layer, _positions(site)[1], shared))

    return in_tiles(site, target, _cost(layer.grid.mixtures * layer.cells.size, kernel, site), build)


def _mix_inputs(site: Site, target: Target) -> Offer | Refusal:
    layer: KwParameters = site.layer
    (_, positions), (cells, out, in_, *_), grid = _positions(site), layer.cells.shape, layer.grid
    mixed = grid.out * cells * in_ * positions
    patches = grid.spatial * grid.in_ * in_ * positions
    floats = prod(site.input_shape) + 2 * patches + 2 * mixed + 2 * prod(site.output_shape)

    def build(shared: SharedConstants) -> MixedTaps:
        return MixedTaps(_folded(layer), _size(site), shared)

    macs = mixed * (grid.spatial * grid.in_ + out)
    return _own_cells(site) or Offer(_cost(macs, floats, site), "taps mixed per cell, one matmul with all cells", build)


def _experts_first(site: Site, target: Target) -> Offer | Refusal:
    layer: KwParameters = site.layer
    (seen, positions), (cells, out, in_, *_), grid = _positions(site), layer.cells.shape, layer.grid
    made, taps = cells * grid.in_ * out * seen, grid.spatial * grid.out * out
    floats = prod(site.input_shape) + 4 * made + 2 * taps * (seen + positions) + 2 * prod(site.output_shape)

    def build(_: SharedConstants) -> CellsFirst:
        return CellsFirst(_folded(layer), _size(site))

    macs = made * (in_ + grid.spatial * grid.out)
    return _own_cells(site) or Offer(
        _cost(macs, floats, site), "every cell applied, outputs mixed, taps shifted", build
    )


def _mean_attention(site: Site, target: Target) -> Offer | Refusal:
    if site.mean_attention is None:
        return NOT_CALIBRATED
    layer: KwParameters = site.layer
    (alpha,), affine = site.mean_attention, site.affine
    kernel, (_, positions) = prod(layer.kernel_shape), _positions(site)
    cost = Cost.of_floats(kernel * positions, prod(site.input_shape) + prod(site.output_shape), kernel)

    def build(_: SharedConstants) -> Any:
        weight = kernel_of(layer, alpha)
        bias = np.zeros(layer.channels_out) if layer.bias is None else layer.bias
        if affine is not None:
            weight = weight * affine.scale.reshape(-1, *(1 for _ in weight.shape[1:]))
            bias = bias * affine.scale + affine.shift
        return StaticLinear(weight[..., 0], bias) if layer.linear else StaticConv(weight, bias, layer.geometry)

    form = "static linear" if layer.linear else "static conv"
    return Offer(cost, f"{form} at the mean attention", build, site.norm, lossy=True)


def _positions(site: Site) -> tuple[int, int]:
    """Of the input and of the output."""
    if site.layer.linear:
        return prod(site.input_shape[:-1]), prod(site.output_shape[:-1])
    return prod(site.input_shape[1:]), prod(site.output_shape[1:])


def _size(site: Site) -> tuple[int, ...]:
    return site.input_shape[1:]


def _cost(macs: int, floats: int, site: Site) -> Cost:
    """With the cells, which are read once for a batch."""
    return Cost.of_floats(macs, floats, site.layer.cells.size)


RULES = (
    _rule("aggregate-kernel", _aggregate_kernel),
    _rule("aggregate-scan", _aggregate_scan),
    _rule("aggregate-winograd", _aggregate_winograd),
    _rule("mix-inputs", _mix_inputs),
    _rule("experts-first", _experts_first),
    _rule("mean-attention", _mean_attention),
)
