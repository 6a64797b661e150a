"""Stride-1 convolutions, static or with K experts, by fewer products in a transform domain.

`y = write · (Σ_k a_k (factors_k ⊙ read · x))`: the transforms do not depend on the expert, so the mixture happens
inside the domain. Where weights sum to one, `Σ_k a_k F_k = F_K + Σ_{k<K} a_k (F_k - F_K)`: one expert less is scaled.
A batch norm goes into factors and biases; ReLU and an unpadded max pooling are done on the positions at hand. How the
matrices come about, and why their float32 errors stay small, is told in `exporter/winograd.py`.

Offered are the tiles whose error, measured on one layer, leaves room for the other layers' under the tolerance, and
whose factors, 100/9 times the kernel at 7 outputs a tile, are not too many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.folded.winograd import PositionsPool, Winograd
from dyx.exporter.rule import FLOAT_BYTES, Cost, Neighbour, Offer, Refusal, Site, Target
from dyx.exporter.winograd import FACTORS, Axis, axis_of, kernel_factors, rounding_error, tile
from dyx.nn.geometry import pair

if TYPE_CHECKING:
    from dyx.exporter.rules.experts import Mixture

FACTORS_LIMIT_BYTES = 2**28
"""How much one layer's factors may take in the file and in memory."""
ERROR_SHARE = 1 / 4
"""How much of the tolerance one layer's rounding may take."""
_TAPS = range(2, 6)


def winograd(site: Site, target: Target, mixture: Callable[[Site], Mixture], *, competing: bool) -> Offer | Refusal:
    """The cheapest tiles that fit, or why there are none.

    Args:
        site: Whose `layer` is an `Experts`.
        target: What costs are priced for.
        mixture: Reads it when the fold is built.
        competing: Whether weights sum to one.
    """
    if reason := misfit(site):
        return Refusal(reason)
    taps = site.layer.geometry.kernel
    found: list[Tiling] = []
    reason = "no tile is small enough for its kernel"
    for inputs in (inputs for inputs in FACTORS if inputs > max(taps)):
        for tiling in _tilings(site, inputs):
            wrong = too_inexact(inputs, max(taps), target) or too_large(_factor_floats(site, tiling))
            reason = wrong or reason
            found += [] if wrong else [tiling]
    if not found:
        return Refusal(reason)
    tiling = min(found, key=lambda one: target.price_s(winograd_cost(site, one, competing=competing)))
    return _offer(site, target, mixture, tiling, competing=competing)


@dataclass(frozen=True)
class Tiling:
    """How a map is cut: the axes, and whether all tiles stand in the rows of one product."""

    axes: tuple[Axis, Axis]
    gathered: bool = False

    @property
    def points(self) -> int:
        """Products of all tiles."""
        return self.axes[0].points * self.axes[1].points

    @property
    def factors(self) -> int:
        """How many matrices of weights there are."""
        rows, columns = self.axes
        return (rows.products if self.gathered else rows.points) * columns.products


def _tilings(site: Site, inputs: int) -> list[Tiling]:
    axes = _axes(site, inputs)
    return [Tiling(axes)] if axes[0].tiles == 1 else [Tiling(axes), Tiling(axes, gathered=True)]


def misfit(site: Site) -> str | None:
    """Why a convolution is none that tiles are made for."""
    geometry = site.layer.geometry
    if set(geometry.stride) | set(geometry.dilation) != {1}:
        return f"its stride is {list(geometry.stride)} and its dilation {list(geometry.dilation)}; tiles need 1"
    if geometry.groups != 1:
        return f"it has {geometry.groups} groups; products between channels would be few"
    if isinstance(geometry.padding, str):
        return f"its padding is {geometry.padding!r}, not numbers"
    if len(set(geometry.kernel)) > 1 or geometry.kernel[0] not in _TAPS:
        return f"its kernel is {list(geometry.kernel)}; tiles are for squares of {_TAPS[0]} to {_TAPS[-1]}"
    return None


def _axes(site: Site, inputs: int) -> tuple[Axis, Axis]:
    geometry = site.layer.geometry
    rows, columns = (
        axis_of(tile(inputs, taps), size, padding)
        for taps, size, padding in zip(geometry.kernel, site.input_shape[1:], geometry.padding, strict=True)
    )
    return rows, columns


def too_inexact(inputs: int, taps: int, target: Target) -> str | None:
    """Why a tile rounds too much for a target's tolerance."""
    error, allowed = rounding_error(inputs, taps), target.tolerance * ERROR_SHARE
    if error <= allowed:
        return None
    return f"tiles of {inputs} inputs round by {error:.1e} of max |y| in float32, over {allowed:.1e}"


def _factor_floats(site: Site, tiling: Tiling) -> int:
    layer = site.layer
    return int(layer.experts * layer.channels_in * layer.channels_out * tiling.factors)


def too_large(factors: int) -> str | None:
    """Why so many floats of one layer's factors are too many."""
    size = factors * FLOAT_BYTES
    if size <= FACTORS_LIMIT_BYTES:
        return None
    return f"its factors take {size // 2**20} MiB, over {FACTORS_LIMIT_BYTES // 2**20} MiB"


def winograd_cost(site: Site, tiling: Tiling, *, competing: bool) -> Cost:
    """Of reading, multiplying and writing, per image; everything between two of them goes through memory."""
    layer, rows, points = site.layer, tiling.axes[0], tiling.points
    height, width = site.input_shape[1:]
    out_height, out_width = site.output_shape[1:]
    halfway_in, halfway_out = rows.points * width, rows.points * out_width
    scaled = layer.experts - 1 if competing else layer.experts
    inwards = halfway_in * height + points * width + scaled * points
    outwards = points * out_width + halfway_out * out_height
    macs = points * layer.experts * layer.channels_in * layer.channels_out
    macs += inwards * layer.channels_in + outwards * layer.channels_out
    read = height * width + 2 * halfway_in + (1 + layer.experts + 2 * scaled) * points
    sums = 3 * (layer.experts - 1) + layer.experts
    written = (sums + 1) * points + 2 * halfway_out + 3 * out_height * out_width
    floats = read * layer.channels_in + written * layer.channels_out
    floats += 2 * points * (layer.channels_in + layer.channels_out) if tiling.gathered else 0
    return Cost.of_floats(macs, floats, _factor_floats(site, tiling))


def _offer(site: Site, target: Target, mixture: Callable[[Site], Mixture], tiling: Tiling, *, competing: bool) -> Offer:
    axes = tiling.axes
    relu, pool = following(site)
    takes = (*site.norm, *(found.path for found in (relu, pool) if found))

    def build(shared: SharedConstants) -> Winograd:
        mixed = mixture(site)
        return Winograd(
            mixed.routing,
            kernel_factors(mixed.weight, axes),
            mixed.bias,
            mixed.offset,
            axes,
            shared,
            gathered=tiling.gathered,
            competing=competing,
            relu=relu is not None,
            pool=None if pool is None else _positions_pool(site, pool),
        )

    tiles, outputs = axes[0].tiles * axes[1].tiles, len(axes[0].write) * len(axes[1].write)
    products = axes[0].products * axes[1].products
    mixed_where = ", mixed in between" if site.layer.experts > 1 else ""
    how = ", tiles gathered" if tiling.gathered else ""
    form = f"{tiles} × {products} products for {outputs} outputs{mixed_where}{how}"
    cost = winograd_cost(site, tiling, competing=competing)
    widest = tiling.points * max(site.layer.channels_in, site.layer.channels_out)
    return Offer(cost, form, build, takes, by_positions=True, widest=widest)


def following(site: Site) -> tuple[Neighbour | None, Neighbour | None]:
    """The ReLU after a site, batch norm between or not, and the max pooling after that, where this form has them."""
    rest = site.after[1:] if site.affine else site.after
    relu = rest[0] if rest and rest[0].kind == "relu" else None
    rest = rest[1:] if relu else rest
    pool = rest[0] if rest and rest[0].kind == "max-pool" and _is_plain(rest[0].layer) else None
    return relu, pool


def _is_plain(pool: Any) -> bool:
    """Whether a max pooling has no padding, rounds down and gives no positions."""
    # One number, one per axis, or one per side.
    unpadded = not isinstance(pool.padding, str) and not np.any(pool.padding)
    return unpadded and not pool.ceil_mode and not pool.return_mask


def _positions_pool(site: Site, pool: Neighbour) -> PositionsPool:
    kernel = pair(pool.layer.ksize)
    stride = kernel if pool.layer.stride is None else pair(pool.layer.stride)
    return PositionsPool(pair(site.output_shape[1:]), kernel, stride)
