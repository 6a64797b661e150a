"""Folds of channel gates `y = x · g(x)`, `g ≥ 0` per sample and channel: ECA, squeeze and excitation, NANet.

- `gate/in-place`: the gate as it stands. ECA's convolution over channels is a banded matrix, so its factors are one
  1×1 convolution of the means, without moving an axis.
- `gate/after-pool`: a factor that is not negative commutes with ReLU and with a maximum, `relu(g x) = g relu(x)` and
  `max(g x_p) = g max(x_p)`, and ReLU commutes with a maximum. So product and ReLU wait until after the pooling, on a
  smaller map; the factors are still those of x. Where g is 0 both sides are 0. Padding counts as -∞ and loses against
  any value of x, whatever the factor; a pooling with windows that hold nothing but padding is refused.
- `gate/mean-attention`: **lossy**. The mean of g over calibration images is a constant per channel; it goes into the
  convolution or batch norm before the gate, if that feeds the gate alone.

Both exact rules are priced over the same layers: the gate, and the ReLU and the pooling that one of them takes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.folded.gates import GATES, Gated, PooledGate, Scale, scaled
from dyx.exporter.rule import GATE, Cost, FoldRule, Neighbour, Offer, Refusal, Site, Target
from dyx.exporter.rules.experts import NOT_CALIBRATED
from dyx.nn.framework import nn, paddle
from dyx.nn.na import NaParameters


def in_place(site: Site, _target: Target) -> Offer:
    """Means, factors, product on the whole map."""
    pixels, relu, pool = prod(site.input_shape), _after(site, "relu"), _after(site, "max-pool")
    # The gate reads twice and writes once, a ReLU reads and writes, a pooling reads the map and writes its own.
    passes = _reads(site) + 2 + (2 if relu else 0) + (1 if pool else 0)
    floats = passes * pixels + (prod(_pooled_shape(site, pool)) if pool else 0)

    def build(_: SharedConstants) -> Gated:
        return Gated(_factors(site))

    return Offer(Cost.of_floats(2 * pixels, floats), "factors, then the product", build)


def after_pool(site: Site, _target: Target) -> Offer | Refusal:
    """The product on the pooled map."""
    relu, pool = _after(site, "relu"), _after(site, "max-pool")
    if pool is None:
        return Refusal("no max pooling follows that reads it alone, but for a ReLU between")
    if pool.layer.return_mask:
        return Refusal("the max pooling that follows gives positions too")
    if _has_empty_windows(site, pool):
        return Refusal("the max pooling that follows has windows that hold nothing but padding")
    pixels, pooled = prod(site.input_shape), prod(_pooled_shape(site, pool))
    floats = (_reads(site) + 1) * pixels + (5 if relu else 3) * pooled

    def build(_: SharedConstants) -> PooledGate:
        return PooledGate(_factors(site), pool.layer, relu.layer if relu else nn.Identity())

    takes = tuple(neighbour.path for neighbour in site.after)
    return Offer(Cost.of_floats(pixels + pooled, floats), "factors, then the product after pooling", build, takes)


def mean_attention(site: Site, _target: Target) -> Offer | Refusal:
    """A constant factor per channel."""
    if site.mean_attention is None:
        return NOT_CALIBRATED
    (factor,) = site.mean_attention
    return constant_factor(site, lambda: factor, lossy=True)


def constant_factor(site: Site, factor: Callable[[], np.ndarray], *, lossy: bool = False) -> Offer:
    """A constant factor `(C,)`, or `(1,)`, in the static layer before a site, or as a product where there is none."""
    before = site.before
    pixels = 0 if before else prod(site.input_shape)

    def build(_: SharedConstants) -> Any:
        return scaled(before.layer, factor()) if before else Scale(factor())

    takes = (before.path,) if before else ()
    form = f"constant factor in the {before.kind.replace('-', ' ')} before" if before else "constant factor"
    return Offer(Cost.of_floats(pixels, 2 * pixels), form, build, takes, lossy=lossy)


def _factors(site: Site) -> Any:
    return GATES[type(site.layer)](site.layer, site.input_shape[0])


def _reads(site: Site) -> int:
    """How often the factors read the map: NANet's weigh its positions first."""
    return 3 if isinstance(site.layer, NaParameters) else 1


def _after(site: Site, kind: str) -> Neighbour | None:
    """The neighbour of a kind; behind a batch norm there is none for a gate."""
    return None if site.affine else next((found for found in site.after if found.kind == kind), None)


def _pooled(site: Site, pool: Neighbour) -> Any:
    """What a pooling makes of zeros, without a copy of its own: it is asked for the shape and for empty windows."""
    with paddle.no_grad():
        return pool.layer(paddle.zeros([1, *site.input_shape]))


def _pooled_shape(site: Site, pool: Neighbour) -> tuple[int, ...]:
    made = _pooled(site, pool)
    return tuple((made[0] if pool.layer.return_mask else made).shape)


def _has_empty_windows(site: Site, pool: Neighbour) -> bool:
    """Whether a window's maximum is the padding's: a ceiling may add such windows."""
    return bool(float(_pooled(site, pool).min()) < 0)


def _misfit(site: Site) -> Refusal | None:
    """A refusal of what no gate here is built for."""
    if type(site.layer) not in GATES:
        return Refusal(
            f"it was read as {type(site.layer).__name__}, and there are static forms of "
            f"{', '.join(kind.__name__ for kind in GATES)} only"
        )
    if len(site.input_shape) != 3:
        return Refusal(f"its input has {len(site.input_shape) - 1} spatial axes; this rule folds 2")
    if isinstance(site.layer, NaParameters) and site.input_shape[0] == 1:
        return Refusal("its factors are standardised over channels, and there is one only")
    return None


def _rule(strategy: str, offer: Callable[[Site, Target], Offer | Refusal]) -> FoldRule:
    return FoldRule(f"{GATE}/{strategy}", GATE, lambda site, target: _misfit(site) or offer(site, target))


RULES = (_rule("in-place", in_place), _rule("after-pool", after_pool), _rule("mean-attention", mean_attention))
