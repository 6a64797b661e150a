"""What malloc does with memory that is freed."""

from __future__ import annotations

import ctypes
import sys

KEPT_BYTES = 2**30
"""How much freed memory a process keeps at the most."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed for the next request, in this process from now on; whether it can.

    A runtime without an arena of its own asks malloc for every tensor of every call. By default glibc gives blocks of
    32 MiB and more, and what lies free at the end of the heap, back to the system; they return page by page, zeroed.
    For large batches that took a third of Paddle Inference's time; eager Paddle, as in training, asks likewise.
    Blocks over a GiB are given back still, and so are those of 64 MiB and more in threads other than the first, whose
    heaps are smaller.
    """
    if sys.platform != "linux":
        return False
    # musl has none.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(
        mallopt(option, KEPT_BYTES) == 1 for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD)
    )
