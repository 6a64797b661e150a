"""Folds of channel gates `y = x · g(x)`, `g ≥ 0`: ECA, squeeze and excitation, NANet.

- `gate/in-place`: the gate as it stands. ECA's convolution over channels is a banded matrix, so its factors are one
  1×1 convolution of the means, without moving an axis.
- `gate/after-pool`: a factor that is not negative commutes with ReLU and with a maximum, `relu(g x) = g relu(x)` and
  `max(g x_p) = g max(x_p)`, so it may wait until after the pooling, on a smaller map. The factors are still those of x.
  Where g is 0 both sides are 0: padding never wins a window, and every window holds a value of x.
- `gate/mean-attention`: **lossy**. The mean of g over calibration images is a constant per channel; it goes into the
  convolution or batch norm before the gate, if that feeds the gate alone.
"""

from __future__ import annotations

from math import prod
from typing import Any

from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.folded.gates import Gated, Scale, gate_of, scaled
from dyx.exporter.rule import FLOAT_BYTES, Cost, FoldRule, Offer, Refusal, Site, Target
from dyx.exporter.rules.experts import NOT_CALIBRATED


def in_place(site: Site, _target: Target) -> Offer | Refusal:
    """Means, factors, product on the whole map."""
    pixels = prod(site.input_shape)

    def build(_: SharedConstants) -> Gated:
        return Gated(gate_of(site.layer, site.input_shape[0]))

    return Offer(Cost(2 * pixels, FLOAT_BYTES * 3 * pixels), "factors, then the product", build)


def after_pool(site: Site, _target: Target) -> Offer | Refusal:
    """The product on the pooled map."""
    if not any(neighbour.kind == "max-pool" for neighbour in site.after):
        return Refusal("no max pooling follows that reads it alone, but for a ReLU between")
    pixels = prod(site.input_shape)
    steps = next(neighbour.layer for neighbour in site.after if neighbour.kind == "max-pool").stride
    pooled = pixels // prod(steps if isinstance(steps, list | tuple) else (steps, steps))

    def build(_: SharedConstants) -> Gated:
        return Gated(gate_of(site.layer, site.input_shape[0]), *(neighbour.layer for neighbour in site.after))

    takes = tuple(neighbour.path for neighbour in site.after)
    return Offer(Cost(pixels + pooled, FLOAT_BYTES * (pixels + 2 * pooled)), "the product after pooling", build, takes)


def mean_attention(site: Site, _target: Target) -> Offer | Refusal:
    """A constant factor per channel."""
    if site.mean_attention is None:
        return NOT_CALIBRATED
    (factor,), before = site.mean_attention, site.before
    pixels = 0 if before else prod(site.input_shape)

    def build(_: SharedConstants) -> Any:
        return scaled(before.layer, factor) if before else Scale(factor)

    takes = (before.path,) if before else ()
    return Offer(Cost(pixels, 2 * FLOAT_BYTES * pixels), "constant factors", build, takes, lossy=True)


RULES = (
    FoldRule("gate/in-place", "gate", in_place),
    FoldRule("gate/after-pool", "gate", after_pool),
    FoldRule("gate/mean-attention", "gate", mean_attention),
)
