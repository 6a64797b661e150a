"""Memory that is freed stays with the process, and only where that was asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dyx
from dyx.runtime import freed_memory, open_bundle

FAULTS = """
import resource, sys
import numpy as np
from dyx.runtime.freed_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(6):
    if turn == 1:
        before = faults()
    block = np.ones(2**24, "float32")
    del block
print(faults() - before)
"""


def faults(how: str) -> int:
    """Pages that five blocks of 64 MiB take anew, one freed before the next."""
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not freed_memory.keep_freed_memory(), reason="this malloc has no such option")
def test_large_blocks_come_back_without_page_faults() -> None:
    assert faults("given back") >= 5 * 64 // 2, "pages have 2 MiB at the most"
    assert faults("kept") < 32


def test_elsewhere_than_in_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory.sys, "platform", "darwin")
    assert not freed_memory.keep_freed_memory()
    monkeypatch.setattr(freed_memory.sys, "platform", "linux")
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda _: object())
    assert not freed_memory.keep_freed_memory()


def test_paddle_inference_says_whether_memory_is_kept(
    two_graphs_class: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = dyx.export(two_graphs_class, out=tmp_path / "x", shape=(3, 7, 7), formats=("paddle",), one_graph=True)
    asked = []
    monkeypatch.setattr("dyx.runtime.paddle_inference.keep_freed_memory", lambda: asked.append(1) or True)
    with open_bundle(bundle, "paddle", device="cpu", tuned=False) as runner:
        assert not asked and "malloc_keeps_freed_memory" not in runner.options
    with open_bundle(bundle, "paddle", device="cpu") as runner:
        assert asked and runner.options["malloc_keeps_freed_memory"] is True
