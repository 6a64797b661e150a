"""What Linux tells of each processor."""

from __future__ import annotations

from pathlib import Path

_CPUINFO = "/proc/cpuinfo"


def processors() -> list[dict[str, str]]:
    """What /proc/cpuinfo tells of each processor; nothing where there is no such file."""
    try:
        told = Path(_CPUINFO).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return []
    pairs = ((line.partition(":") for line in block.splitlines()) for block in told.split("\n\n"))
    return [{key.strip(): value.strip() for key, _, value in block} for block in pairs]
