"""How much memory kernels of each sample may take."""

from __future__ import annotations

from dyx.exporter.rule import FLOAT_BYTES, Refusal, Target

KERNELS_LIMIT_BYTES = 2**30
"""How much memory one layer's per-sample kernels may take at the batch planned for."""


def over_memory(kernel: int, target: Target) -> Refusal | None:
    """A refusal of per-sample kernels of this many floats that do not fit in memory at the batch planned for."""
    memory = target.priced_batch * kernel * FLOAT_BYTES
    if memory <= KERNELS_LIMIT_BYTES:
        return None
    mib, limit = memory // 2**20, KERNELS_LIMIT_BYTES // 2**20
    return Refusal(
        f"one kernel per sample takes {mib} MiB at batch {target.priced_batch}, over {limit} MiB",
        "a smaller --tune-batch plans for less memory; the exported batch stays free",
    )
