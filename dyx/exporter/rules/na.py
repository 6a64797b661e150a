"""The fold of the articles' NA, `y = x · sigmoid(γ · (g - mean g) / (std g + 1e-5) + β)` with `g_c = Σ_p softmax_p(…)`.

- `na/constant`: a softmax sums to one, so g is 1 for every channel, `g - mean g` is 0, and in exact arithmetic the
  layer is `x · sigmoid(β)`: a constant, which goes into the convolution or batch norm before it, if that feeds it
  alone. In floating point g is 1 but for rounding, and the layer divides that rounding by about 1e-5: its float32
  answers are up to percents away from its float64 answers, in which the gate's argument stays within 1e-9 of β.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.folded.gates import Scale, scaled
from dyx.exporter.rule import FLOAT_BYTES, Cost, FoldRule, Offer, Refusal, Site, Target

NOTE = (
    "NA is the constant sigmoid(beta) in exact arithmetic, and is exported as that; computed layer by layer in float32"
    " it adds its own rounding noise divided by 1e-5, which no two runtimes share"
)


def constant_gate(site: Site, _target: Target) -> Offer | Refusal:
    """Nothing is left of the layer where something static before it can carry the constant."""
    before, shift = site.before, site.layer.shift
    pixels = 0 if before else prod(site.input_shape)

    def build(_: SharedConstants) -> Any:
        factor = np.array([1 / (1 + np.exp(-shift))])
        return scaled(before.layer, factor) if before else Scale(factor)

    takes = (before.path,) if before else ()
    form = f"constant factor in the {before.kind.replace('-', ' ')} before" if before else "constant factor"
    return Offer(Cost(pixels, 2 * FLOAT_BYTES * pixels), form, build, takes, note=NOTE)


RULES = (FoldRule("na/constant", "na", constant_gate),)
