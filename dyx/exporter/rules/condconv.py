"""Folds of CondConv `y = Σ_e r_e (W_e * x + b_e)`; the weights r come from the block's router, as sigmoids.

They do not sum to one. So of a batch norm that alone consumes the output, `s · y + t`, the scale goes into every `W_e`
and `b_e`, and the shift stays one static bias: put into the experts' biases it would be multiplied by `Σ_e r_e`. The
router stands outside of the layer and stays as it is: a block that shares it computes it once. The ways to compute the
mixture are told in `experts.py`.
"""

from __future__ import annotations

import numpy as np

from dyx.exporter.rule import Site
from dyx.exporter.rules.experts import Mixture, expert_rules


def mixture(site: Site) -> Mixture:
    """The experts with the batch norm's scale inside, and its shift beside them."""
    weight, bias, affine = site.layer.weight, site.layer.bias, site.affine
    if affine is None:
        return Mixture(None, weight, bias, None)
    scaled = weight * affine.scale.reshape(1, -1, *(1,) * (weight.ndim - 2))
    mixed: np.ndarray | None = None if bias is None else bias * affine.scale
    return Mixture(None, scaled, mixed, affine.shift)


RULES = expert_rules("condconv", mixture, competing=False)
