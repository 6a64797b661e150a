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


def kill_at_random(process: subprocess.Popen[bytes], out: Path, longest_s: float) -> bool:
    """Kill a run some time after it has begun to train; false where it had already ended."""
    while not (out / "run.json").is_file() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(random.uniform(0, longest_s))
    ended = process.poll() is not None
    process.kill()
    process.communicate()
    return not ended


@pytest.mark.slow
def test_ten_kills_change_no_bit_of_the_weights(tiny: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    unbroken = begin(tiny, tmp_path / "unbroken")
    while not (tmp_path / "unbroken" / "run.json").is_file() and unbroken.poll() is None:
        time.sleep(0.01)
    start_s = time.monotonic() - begun
    finish(unbroken)
    training_s = time.monotonic() - begun - start_s

    out, kills = tmp_path / "broken", 0
    for attempt in range(KILLS):
        more = ("--resume",) if attempt else ()
        # The record is there at once when resuming: wait until the process has come as far as training, too.
        process = begin(tiny, out, *more)
        if attempt:
            time.sleep(start_s * random.uniform(0.8, 1.0))
        kills += kill_at_random(process, out, training_s / 3)
    finish(begin(tiny, out, "--resume"))
    assert kills >= KILLS // 2
    for part in ("final", "best"):
        name = f"{part}/weights.safetensors"
        assert (out / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
