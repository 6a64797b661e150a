"""Rewritings of static convolutions beside the dynamic ones: exact, and only where they cost less.

A convolution with one kernel is a mixture of one expert with weight 1.

- `conv/direct`: the convolution as it stands. A plan does not list it, unless it was asked for.
- `conv/padded-map`: columns of zeros are put beside an image, so that the convolution with a wide kernel that reads it
  pads none: a copy of the image against what OpenVINO's kernel loses where a window hangs over the edge.
- `conv/winograd`: see `winograd.py`.
"""

from __future__ import annotations

from dataclasses import replace

from dyx.exporter import algebra
from dyx.exporter.folded.constants import SharedConstants, StaticConv
from dyx.exporter.folded.padded import PaddedMapConv
from dyx.exporter.rule import IMAGE_CHANNELS, STATIC, WIDE_KERNEL, Cost, FoldRule, Offer, Refusal, Site, Target
from dyx.exporter.rules.experts import Mixture, static_cost
from dyx.exporter.rules.winograd import winograd


def mixture(site: Site) -> Mixture:
    """One expert, the batch norm inside; its bias is one that is not mixed."""
    weight, bias = algebra.fold_affine(site.layer.weight, site.layer.bias, site.affine)
    return Mixture(None, weight, None, None if bias is None else bias[0])


def _direct(site: Site, target: Target) -> Offer:
    def build(_: SharedConstants) -> StaticConv:
        mixed = mixture(site)
        return StaticConv(mixed.weight[0], mixed.offset, site.layer.geometry)

    cost = static_cost(site)
    if _why_padding_is_free(site) is None:
        cost = replace(cost, padded_macs=cost.macs)
    return Offer(cost, "the convolution as it stands", build, site.norm)


def _padded_map(site: Site, target: Target) -> Offer | Refusal:
    if reason := _why_padding_is_free(site):
        return Refusal(reason)
    walk, (channels, lines, columns) = site.layer.geometry, site.input_shape
    padding = walk.padding[1]

    def build(_: SharedConstants) -> PaddedMapConv:
        mixed = mixture(site)
        inside = replace(walk, padding=(walk.padding[0], 0))
        return PaddedMapConv(mixed.weight[0], mixed.offset, inside, padding)

    copied = channels * lines * (2 * columns + 2 * padding)
    form = "columns of zeros beside the map, conv that pads lines alone"
    return Offer(static_cost(site) + Cost.of_floats(0, copied), form, build, site.norm)


def _why_padding_is_free(site: Site) -> str | None:
    """Why a convolution loses nothing by padding columns itself, or None where it may."""
    walk, (channels, _, columns) = site.layer.geometry, site.input_shape
    if channels > IMAGE_CHANNELS:
        return f"it reads {channels} channels, no image"
    if walk.kernel[1] < WIDE_KERNEL:
        return f"its kernel has {walk.kernel[1]} columns, less than {WIDE_KERNEL}"
    if not 0 < walk.padding[1] <= columns:
        return f"it pads {walk.padding[1]} columns beside {columns}"
    return None


def _winograd(site: Site, target: Target) -> Offer | Refusal:
    return winograd(site, target, mixture, competing=True)


AS_IT_STANDS = f"{STATIC}/direct"
"""The rule that changes nothing."""
IN_TILES = f"{STATIC}/winograd"
"""The rule that rounds otherwise."""

RULES = (
    FoldRule(AS_IT_STANDS, STATIC, _direct),
    FoldRule(f"{STATIC}/padded-map", STATIC, _padded_map),
    FoldRule(IN_TILES, STATIC, _winograd),
)
