"""What pages of measurements tell of those who took part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dyx.bench.contender import Contender
from dyx.report.page import NOTHING, Table

_TOLD = ("backend", "device", "threads")
"""Arguments of an opener that have columns of their own."""


def options_cell(options: Mapping[str, Any]) -> str:
    """What was asked of the runtime."""
    return ", ".join(f"{key}={value}" for key, value in options.items()) or NOTHING


def opened_with(contender: Contender) -> str:
    """What its opener was given, apart from what has a column of its own."""
    return options_cell({key: value for key, value in contender.arguments.items() if key not in _TOLD})


def hashes_table(contenders: Sequence[Contender]) -> Table:
    """Every file of theirs with its sha256."""
    rows = [(one.name, one.backend, file, digest) for one in contenders for file, digest in one.sha256.items()]
    return Table("Which files were opened", ("network", "backend", "file", "sha256"), rows)
