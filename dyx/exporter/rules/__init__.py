"""Every fold rule, in the order in which they are tried; of equal prices the first wins."""

from __future__ import annotations

from dyx.exporter.rule import FoldRule
from dyx.exporter.rules import dyconv

RULES: tuple[FoldRule, ...] = (*dyconv.RULES,)
