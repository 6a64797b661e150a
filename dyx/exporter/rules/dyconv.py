"""Folds of the dynamic convolution `y = Σ_k a_k (W_k * x + b_k)`, `a = softmax(s / T)`.

In all of them the temperature goes into the last routing layer, and a batch norm that alone consumes the output goes
into the experts: its scale into every `W_k` and `b_k`, its shift into every `b_k`, which is exact because the
attention sums to one. The three ways to compute the mixture are told in `experts.py`.
"""

from __future__ import annotations

from dyx.exporter import algebra
from dyx.exporter.folded.experts import FoldedRouting
from dyx.exporter.rule import Site
from dyx.exporter.rules.experts import Mixture, expert_rules


def mixture(site: Site) -> Mixture:
    """The experts with the batch norm inside, and the routing at temperature 1."""
    routing = FoldedRouting(algebra.fold_temperature(site.layer.routing))
    weight, bias = algebra.fold_affine(site.layer.weight, site.layer.bias, site.affine)
    return Mixture(routing, weight, bias, None)


RULES = expert_rules("dyconv", mixture, competing=True)
