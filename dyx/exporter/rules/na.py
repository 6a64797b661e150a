"""The fold of the articles' NA, `y = x · sigmoid(γ · (g - mean g) / (std g + 1e-5) + β)` with `g_c = Σ_p softmax_p(…)`.

- `na/constant`: a softmax sums to one, so g is 1 for every channel, `g - mean g` is 0, and in exact arithmetic the
  layer is `x · sigmoid(β)`: a constant, which goes into the convolution or batch norm before it, if that feeds it
  alone. In floating point g is 1 but for rounding, and the layer divides that rounding by about 1e-5: its
  float32 answers are up to percents away from its float64 answers. In float64 the gate's argument was at most 4e-8 · γ
  away from β (112×112 positions, most of them equal), and 3e-9 · γ on 32×32.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dyx.exporter.rule import FoldRule, Offer, Refusal, Site, Target
from dyx.exporter.rules.gate import constant_factor

NOTE = (
    "NA is the constant sigmoid(beta) in exact arithmetic, and is exported as that; computed layer by layer in float32"
    " it adds its own rounding noise divided by 1e-5, which no two runtimes share"
)


def constant_gate(site: Site, _target: Target) -> Offer | Refusal:
    """Nothing is left of the layer where something static before it can carry the constant."""
    if site.input_shape[0] == 1:
        return Refusal("its gate is standardised over channels, and there is one only")
    offer = constant_factor(site, lambda: np.array([1 / (1 + np.exp(-site.layer.shift))]))
    return replace(offer, note=NOTE)


RULES = (FoldRule("na/constant", "na", constant_gate),)
