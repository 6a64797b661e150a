"""Runs and sidecars on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dyx.errors import CheckpointUnreadable, RunUnreadable
from dyx.preprocess import Preprocess
from dyx.runs import HEADER, Sidecar, is_run, read_run, read_sidecar, weights_file, write_sidecar

TOLD = Sidecar("net", (3, 8, 8), ("a", "b"), Preprocess((8, 8)), {"dyconv": 18.0}, "folder:x", 5, 0.75)


@pytest.fixture
def best(tmp_path: Path) -> Path:
    """The folder of a checkpoint inside a run."""
    from safetensors.numpy import save_file

    folder = tmp_path / "run" / "best"
    folder.mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text('{"schema": 1, "model": "net"}')
    (folder / "weights.pdparams").write_bytes(b"weights")
    metadata = {HEADER: json.dumps(TOLD.to_json())}
    save_file({"w": np.zeros(2, np.float32)}, folder / "weights.safetensors", metadata)
    write_sidecar(folder, TOLD)
    return folder


@pytest.mark.parametrize("name", ["weights.pdparams", "weights.safetensors"])
def test_sidecar_survives_the_disk(best: Path, name: str) -> None:
    assert read_sidecar(best / name) == TOLD


def test_weights_that_travel_alone_keep_theirs_in_the_header(best: Path, tmp_path: Path) -> None:
    alone = (best / "weights.safetensors").rename(tmp_path / "alone.safetensors")
    assert read_sidecar(alone) == TOLD
    beside = (tmp_path / "alone.safetensors").rename(best / "renamed.safetensors")
    assert read_sidecar(beside) == TOLD
    bare = (best / "weights.pdparams").rename(tmp_path / "weights.pdparams")
    assert read_sidecar(bare) is None


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0{}", b"\x04\0\0\0\0\0\0\0nope"])
def test_headers_that_tell_nothing_are_passed_over(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    assert read_sidecar(file) is None


def test_sidecar_of_other_weights_is_refused(best: Path) -> None:
    (best / "weights.pdparams").write_bytes(b"others")
    with pytest.raises(CheckpointUnreadable, match="written for other weights: its sha256 differs"):
        read_sidecar(best / "weights.pdparams")


@pytest.mark.parametrize(
    "change", [{"shape": [3, 8]}, {"temperature": 1}, {"preprocess": {}}, {"files": None}, {"labels": 3}]
)
def test_damaged_sidecar_is_refused(best: Path, change: dict[str, Any]) -> None:
    entry = json.loads((best / "checkpoint.json").read_text()) | change
    (best / "checkpoint.json").write_text(json.dumps(entry))
    with pytest.raises(CheckpointUnreadable, match=r"checkpoint.json beside it cannot be read"):
        read_sidecar(best / "weights.pdparams")


def test_what_a_path_means(best: Path) -> None:
    run = best.parent
    assert weights_file(run) == weights_file(best) == best / "weights.safetensors"
    assert weights_file(best / "weights.pdparams") == best / "weights.pdparams"
    assert is_run(run) and not is_run(best)


def test_run_without_weights_says_so(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"schema": 1, "model": "net"}')
    with pytest.raises(RunUnreadable, match="no epoch has ended yet"):
        weights_file(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", r"run.json cannot be read"),
        ('{"schema": 2}', "run.json has schema 2, this dyx reads 1"),
        ("[]", r"run.json has schema \[\], this dyx reads 1"),
    ],
)
def test_unusable_record(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunUnreadable, match=said):
        read_run(tmp_path)


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(RunUnreadable, match=r"the folder holds no run.json"):
        read_run(tmp_path)
    with pytest.raises(RunUnreadable, match="there is no such folder"):
        read_run(tmp_path / "none")
