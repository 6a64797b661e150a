"""A run that is killed outright, again and again, ends with the weights of one that never was."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = 10
OPTIONS = ("--shape", "3,16,16", "--epochs", "4", "--batch", "8", "--threads", "1", "--form", "columns")


def begin(tiny: str, out: Path, *more: str) -> subprocess.Popen[bytes]:
    """`dyx train …` in a process of its own, which keeps its state many times an epoch."""
    command = [sys.executable, "-m", "dyx", "train", tiny, *OPTIONS, "--out", str(out), "--save-every", "0.05", *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said.decode()


def kill_at_random(process: subprocess.Popen[bytes], out: Path) -> bool:
    """Kill a run some time after it has kept its state once, twice or three times; false where it had already ended.

    Counted in what it did, not in seconds: how long the same takes changes with what else the machine does.
    """
    state, wanted = out / "last" / "state.json", random.randint(1, 3)
    kept = {_written_ns(state)}
    while len(kept) <= wanted and process.poll() is None:
        time.sleep(0.005)
        kept.add(_written_ns(state) or max(kept))
    time.sleep(random.uniform(0, 0.1))
    ended = process.poll() is not None
    process.kill()
    process.communicate()
    return not ended


def _written_ns(file: Path) -> int:
    """When a file was written; 0 while it is not there, as for a moment while another takes its place."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@pytest.mark.slow
def test_ten_kills_change_no_bit_of_the_weights(tiny: str, tmp_path: Path) -> None:
    finish(begin(tiny, tmp_path / "unbroken"))
    out, kills = tmp_path / "broken", 0
    for attempt in range(KILLS):
        kills += kill_at_random(begin(tiny, out, *(("--resume",) if attempt else ())), out)
    finish(begin(tiny, out, "--resume"))
    assert kills == KILLS, "a run keeps its state far more often than ten times three"
    for part in ("final", "best"):
        name = f"{part}/weights.safetensors"
        assert (out / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
