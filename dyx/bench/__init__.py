"""Measuring networks against a baseline: a process each, taking turns, and the ratio with its interval."""

from __future__ import annotations

from dyx.bench.compare import Comparison, bench, check_writable
from dyx.bench.contender import Contender, Skipped, bundle_contender
from dyx.bench.measure import Progress
from dyx.bench.report import tabulate
from dyx.bench.samples import Settings
from dyx.bench.summary import Row

__all__ = [
    "Comparison",
    "Contender",
    "Progress",
    "Row",
    "Settings",
    "Skipped",
    "bench",
    "bundle_contender",
    "check_writable",
    "tabulate",
]
