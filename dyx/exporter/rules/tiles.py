"""A kernel per sample applied in tiles of a transform domain: `*/aggregate-winograd`.

`y = write · (((Σ_k a_k W_k) · w) ⊙ (read · x))`, whatever mixes and scales the kernel: it is there before it is
transformed, so ODConv's attention over taps and the shared cells of KernelWarehouse stand in no way. Against rows of
the map it saves more than half of the arithmetic, and pays with factors of each sample, in tiles of 6 four times as
large as a 3×3 kernel. So it is for large maps of few channels: 56 × 56 and 28 × 28 of a ResNet, not 7 × 7.

Experts that only their weights mix are transformed beforehand, `Σ_k a_k (G W_k Gᵀ)`, which needs no transform of each
sample's kernel. And one point of the domain has nothing to do with the others: taken a few at a time, what is mixed for
all samples never leaves a cache. So small maps of many channels gain too.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.folded.tiles import Tiles, TransformedMap, tiles_along
from dyx.exporter.rule import FLOAT_BYTES, Cost, Offer, Refusal, Site, Target
from dyx.exporter.rules.memory import over_memory
from dyx.exporter.rules.winograd import misfit, too_inexact, too_large
from dyx.exporter.winograd import FACTORS, tile

PART_FLOATS = 2**17
"""How many floats of a sample's factors are mixed at once, if not one point has more: those of 8 samples take 4 MiB."""

Build = Callable[[SharedConstants, Tiles], Any]
"""Builds a layer whose kernels meet such tiles."""


def in_tiles(site: Site, target: Target, mixing: Cost, build: Build, takes: tuple[str, ...] = ()) -> Offer | Refusal:
    """The cheapest tiles for a kernel per sample, or why there are none.

    Args:
        site: A 2-D convolution.
        target: What costs are priced for.
        mixing: What it costs to mix and scale the kernel, which is then there, and what is done to the output.
        build: See `Build`.
        takes: As in `Offer`.
    """
    exact = _exact_tiles(site, target)
    if isinstance(exact, Refusal):
        return exact
    costs = {inputs: tiles_cost(site, inputs) for inputs in exact}
    inputs = min(costs, key=lambda one: target.price_s(costs[one]))
    factors = factors_of(site, inputs)

    def made(shared: SharedConstants) -> Any:
        return build(shared, Tiles(site.layer.geometry, inputs, site.input_shape[1:], shared))

    widest = max(factors, _transformed_floats(site, inputs))
    form = f"kernel per sample, {_products_of(site, inputs)}"
    return over_memory(factors, target) or Offer(mixing + costs[inputs], form, made, takes, widest=widest)


def experts_in_tiles(
    site: Site, target: Target, build: Callable[[TransformedMap, int], Any], bias: Cost, takes: tuple[str, ...]
) -> Offer | Refusal:
    """The cheapest tiles for experts that are mixed in the transform domain, or why there are none.

    Args:
        site: A 2-D convolution whose `layer` is an `Experts`.
        target: What costs are priced for.
        build: Builds a layer of what transforms its maps and of the number of parts that points are taken in.
        bias: What it costs to add biases.
        takes: As in `Offer`.
    """
    exact = _exact_tiles(site, target)
    if isinstance(exact, Refusal):
        return exact
    large = {inputs: too_large(site.layer.experts * factors_of(site, inputs)) for inputs in exact}
    offered = [
        (inputs, parts)
        for inputs, reason in large.items()
        if reason is None
        for parts in sorted({1, _parts(site, inputs)})
    ]
    if not offered:
        return Refusal(large[exact[0]] or "")
    costs = {each: experts_cost(site, *each) for each in offered}
    inputs, parts = min(costs, key=lambda one: target.price_s(costs[one]))
    factors = factors_of(site, inputs)

    def made(shared: SharedConstants) -> Any:
        return build(TransformedMap(site.layer.geometry, inputs, site.input_shape[1:], shared), parts)

    # As many images at a time as for a kernel that is not transformed: what is mixed for one part is smaller.
    widest = max(prod(site.layer.weight.shape[1:]) if parts > 1 else factors, _transformed_floats(site, inputs))
    form = f"experts mixed per sample in {parts} part{'s' if parts > 1 else ''}, {_products_of(site, inputs)}"
    return over_memory(factors, target) or Offer(costs[inputs, parts] + bias, form, made, takes, widest=widest)


def _exact_tiles(site: Site, target: Target) -> list[int] | Refusal:
    """Inputs of the tiles that round little enough, or why there are none."""
    if reason := misfit(site):
        return Refusal(reason)
    taps = max(site.layer.geometry.kernel)
    wrong = {inputs: too_inexact(inputs, taps, target) for inputs in FACTORS if inputs > taps}
    exact = [inputs for inputs, reason in wrong.items() if reason is None]
    return exact or Refusal(next(filter(None, wrong.values()), "no tile is small enough for its kernel"))


def tiles_of(site: Site, inputs: int) -> int:
    """How many tiles a map is cut into."""
    return prod(tiles_along(site.layer.geometry, axis, inputs, n) for axis, n in enumerate(site.input_shape[1:]))


def factors_of(site: Site, inputs: int) -> int:
    """Floats of one kernel in the transform domain."""
    return int(_points(site, inputs) * site.layer.channels_in * site.layer.channels_out)


def _points(site: Site, inputs: int) -> int:
    return tile(inputs, site.layer.geometry.kernel[0]).products ** 2


def _products_of(site: Site, inputs: int) -> str:
    """How many products there are, in words."""
    return f"{tiles_of(site, inputs)} × {_points(site, inputs)} products for {prod(site.output_shape[1:])} outputs"


def _transformed_floats(site: Site, inputs: int) -> int:
    """Of the wider of two maps in the transform domain, per image."""
    widest = max(site.layer.channels_in, site.layer.channels_out)
    return int(_points(site, inputs) * tiles_of(site, inputs) * widest)


def _parts(site: Site, inputs: int) -> int:
    """In how few equal parts the points can be taken so that what is mixed for each of them stays in a cache."""
    points, one = _points(site, inputs), site.layer.channels_in * site.layer.channels_out
    fitting = [parts for parts in range(1, points + 1) if points % parts == 0 and points // parts * one <= PART_FLOATS]
    return min(fitting, default=points)


def tiles_cost(site: Site, inputs: int) -> Cost:
    """Of applying a kernel that is there, per image; everything between two operators goes through memory."""
    taps, points = prod(site.layer.geometry.kernel), _points(site, inputs)
    kernel = site.layer.channels_in * site.layer.channels_out
    return _applying_cost(site, inputs) + Cost.of_floats(points * taps * kernel, (taps + 2 * points) * kernel)


def experts_cost(site: Site, inputs: int, parts: int) -> Cost:
    """Of mixing experts in the transform domain and applying them, per image, without biases.

    What is mixed in parts stays in a cache, but what tiles are transformed to is then taken apart, and their products
    are put together.
    """
    layer, factors = site.layer, factors_of(site, inputs)
    mixing = Cost.of_floats(layer.experts * factors, 0, layer.experts * factors)
    tiles = _points(site, inputs) * tiles_of(site, inputs) * (layer.channels_in + layer.channels_out)
    kept, cached = (2 * factors, 0) if parts == 1 else (2 * tiles, 2 * factors)
    return _applying_cost(site, inputs) + mixing + Cost.of_floats(0, kept, cached_bytes=FLOAT_BYTES * cached)


def _applying_cost(site: Site, inputs: int) -> Cost:
    """Of both transforms and of the products between them, per image, but for what factors take in memory."""
    geometry, channels_in, channels_out = site.layer.geometry, site.layer.channels_in, site.layer.channels_out
    part, tiles, points = tile(inputs, geometry.kernel[0]), tiles_of(site, inputs), _points(site, inputs)
    read, written = inputs**2, part.outputs**2
    macs = points * tiles * (read * channels_in + channels_in * channels_out + written * channels_out)
    # The map is turned, gets a position of zeros and is gathered; the outputs are gathered and turned back.
    floats = 5 * prod(site.input_shape) + 2 * (read + points) * tiles * channels_in
    floats += 2 * (points + written) * tiles * channels_out + 3 * prod(site.output_shape)
    return Cost.of_floats(macs, floats)
