"""Rewritings of static convolutions beside the dynamic ones: exact, and only where they cost less.

A convolution with one kernel is a mixture of one expert with weight 1.

- `conv/direct`: the convolution as it stands. A plan does not list it, unless it was asked for.
- `conv/winograd`: see `winograd.py`.
"""

from __future__ import annotations

from dyx.exporter import algebra
from dyx.exporter.folded.constants import SharedConstants, StaticConv
from dyx.exporter.rule import STATIC, FoldRule, Offer, Refusal, Site, Target
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

    return Offer(static_cost(site), "the convolution as it stands", build, site.norm)


def _winograd(site: Site, target: Target) -> Offer | Refusal:
    return winograd(site, target, mixture, competing=True)


AS_IT_STANDS = f"{STATIC}/direct"
"""The rule that changes nothing."""

RULES = (FoldRule(AS_IT_STANDS, STATIC, _direct), FoldRule(f"{STATIC}/winograd", STATIC, _winograd))
