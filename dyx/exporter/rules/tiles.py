"""A kernel per sample applied in tiles of a transform domain: `*/aggregate-winograd`.

`y = write · (((Σ_k a_k W_k) · w) ⊙ (read · x))`, whatever mixes and scales the kernel: it is there before it is
transformed, so ODConv's attention over taps and the shared cells of KernelWarehouse stand in no way. Against rows of
the map it saves more than half of the arithmetic, and pays with factors of each sample, in tiles of 6 four times as
large as a 3×3 kernel. So it is for large maps of few channels: 56 × 56 and 28 × 28 of a ResNet, not 7 × 7.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.folded.tiles import Tiles, tiles_along
from dyx.exporter.rule import Cost, Offer, Refusal, Site, Target
from dyx.exporter.rules.memory import over_memory
from dyx.exporter.rules.winograd import misfit, too_inexact
from dyx.exporter.winograd import FACTORS, tile

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
    if reason := misfit(site):
        return Refusal(reason)
    taps = max(site.layer.geometry.kernel)
    found = {inputs: tiles_cost(site, inputs) for inputs in FACTORS if inputs > taps}
    wrong = {inputs: reason for inputs in found if (reason := too_inexact(inputs, taps, target))}
    exact = {inputs: cost for inputs, cost in found.items() if inputs not in wrong}
    if not exact:
        return Refusal(next(iter(wrong.values()), "no tile is small enough for its kernel"))
    inputs = min(exact, key=lambda one: target.machine.seconds(exact[one], target.priced_batch))
    points, tiles = tile(inputs, taps).products ** 2, tiles_of(site, inputs)
    channels_in, channels_out = site.layer.channels_in, site.layer.channels_out
    factors = points * channels_in * channels_out

    def made(shared: SharedConstants) -> Any:
        return build(shared, Tiles(site.layer.geometry, inputs, site.input_shape[1:], shared))

    form = f"kernel per sample, {tiles} × {points} products for {prod(site.output_shape[1:])} outputs"
    widest = max(factors, points * tiles * max(channels_in, channels_out))
    return over_memory(factors, target) or Offer(mixing + exact[inputs], form, made, takes, widest=widest)


def tiles_of(site: Site, inputs: int) -> int:
    """How many tiles a map is cut into."""
    return prod(tiles_along(site.layer.geometry, axis, inputs, n) for axis, n in enumerate(site.input_shape[1:]))


def tiles_cost(site: Site, inputs: int) -> Cost:
    """Of applying a kernel that is there, per image; everything between two operators goes through memory."""
    geometry, channels_in, channels_out = site.layer.geometry, site.layer.channels_in, site.layer.channels_out
    part, tiles = tile(inputs, geometry.kernel[0]), tiles_of(site, inputs)
    points, read, written = part.products**2, inputs**2, part.outputs**2
    kernel = channels_in * channels_out
    macs = points * (read * tiles * channels_in + prod(geometry.kernel) * kernel)
    macs += points * tiles * (kernel + written * channels_out)
    # The map is turned, gets a position of zeros and is gathered; the outputs are gathered and turned back.
    floats = 5 * prod(site.input_shape) + 2 * (read + points) * tiles * channels_in
    floats += (prod(geometry.kernel) + 2 * points) * kernel
    floats += 2 * (points + written) * tiles * channels_out + 3 * prod(site.output_shape)
    return Cost.of_floats(macs, floats)
