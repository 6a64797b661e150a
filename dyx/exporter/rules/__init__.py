"""Every fold rule, in the order in which they are tried; of equal prices the first wins."""

from __future__ import annotations

from dyx.exporter.rule import FoldRule
from dyx.exporter.rules import condconv, conv, dyconv, gate, kernelwarehouse, na, odconv

RULES: tuple[FoldRule, ...] = (
    *dyconv.RULES,
    *condconv.RULES,
    *odconv.RULES,
    *kernelwarehouse.RULES,
    *gate.RULES,
    *na.RULES,
    *conv.RULES,
)
