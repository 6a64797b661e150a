"""A training run on disk: what `dyx train` writes and `dyx eval`, `dyx report` and `dyx export` read.

```
runs/alexnet-dy/
├── run.json      what was asked, on what machine, and a row of figures per epoch
├── log.csv       the same rows
├── curves.png    loss, accuracy, learning rate, temperature, attention entropy
├── predictions.png  some held-out pictures, titled with prediction and truth
├── best/         the weights with the best held-out accuracy: a checkpoint
├── final/        the weights after the last epoch: a checkpoint
└── last/         where `--resume` goes on
```

A checkpoint is a folder: `weights.pdparams`, `weights.safetensors`, `weights.pdopt` and `checkpoint.json`, which says
what a state dict cannot: at which temperature these weights were seen to work, on which classes and pictures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyx.bundle import sha256
from dyx.errors import CheckpointUnreadable, InvalidOption, RunUnreadable
from dyx.preprocess import Preprocess

SCHEMA = 1
_LONGEST_HEADER_BYTES = 100_000_000
"""The format's own limit."""
RECORD = "run.json"
LOG = "log.csv"
SIDECAR = "checkpoint.json"
HEADER = "dyx"
"""Entry of a `.safetensors` header that holds the same as `checkpoint.json`, for weights that travel alone."""
WEIGHTS = ("weights.pdparams", "weights.safetensors")
OPTIMIZER = "weights.pdopt"
BEST, FINAL, LAST = "best", "final", "last"
CURVES, PREDICTIONS = "curves.png", "predictions.png"


@dataclass(frozen=True)
class Run:
    """A run that was read.

    Attributes:
        path: Its folder.
        record: What `run.json` holds.
    """

    path: Path
    record: Mapping[str, Any]

    @property
    def model(self) -> str:
        """The network that is trained, as the user named it."""
        return str(self.record["model"])

    def weights(self) -> Path:
        """The best weights so far. Raises RunUnreadable before the first epoch has ended."""
        file = self.path / BEST / WEIGHTS[1]
        if not file.is_file():
            raise RunUnreadable(self.path, "no epoch has ended yet, so that there are no weights to use")
        return file


def is_run(path: Path) -> bool:
    """Whether a folder is a training run's."""
    return (path / RECORD).is_file()


def read_run(path: Path | str) -> Run:
    """The run in a folder. Raises RunUnreadable where there is none or its record cannot be used."""
    folder = Path(path)
    if not is_run(folder):
        reason = f"the folder holds no {RECORD}" if folder.is_dir() else "there is no such folder"
        raise RunUnreadable(folder, reason)
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunUnreadable(folder, f"{RECORD} cannot be read ({error})") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        seen = record.get("schema") if isinstance(record, dict) else record
        raise RunUnreadable(folder, f"{RECORD} has schema {seen!r}, this dyx reads {SCHEMA}")
    return Run(folder, record)


@dataclass(frozen=True)
class Sidecar:
    """What stands beside weights: the facts that a state dict does not carry.

    Attributes:
        model: The network, as the user named it.
        shape: Of its input, `(channels, height, width)`.
        labels: One per class.
        preprocess: From a picture to the input.
        temperature: Kind of layer → the temperature at which the accuracy was seen.
        data: The data that it was trained on, as the user named it.
        epoch: After which it was saved, from 1.
        accuracy: On the held-out pictures, 0 to 1.
    """

    model: str
    shape: tuple[int, int, int]
    labels: tuple[str, ...]
    preprocess: Preprocess
    temperature: Mapping[str, float]
    data: str
    epoch: int
    accuracy: float

    def to_json(self) -> dict[str, Any]:
        """The form kept in `checkpoint.json` and in the header of `weights.safetensors`."""
        return {
            "model": self.model,
            "shape": list(self.shape),
            "labels": list(self.labels),
            "preprocess": self.preprocess.to_json(),
            "temperature": dict(self.temperature),
            "data": self.data,
            "epoch": self.epoch,
            "accuracy": self.accuracy,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Sidecar:
        """What `to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        channels, height, width = entry["shape"]
        return cls(
            str(entry["model"]),
            (int(channels), int(height), int(width)),
            tuple(map(str, entry["labels"])),
            Preprocess.from_json(entry["preprocess"]),
            {str(kind): float(value) for kind, value in entry["temperature"].items()},
            str(entry["data"]),
            int(entry["epoch"]),
            float(entry["accuracy"]),
        )


def weights_file(path: Path | str) -> Path:
    """The file of weights that a path means: itself, or the best ones of a run, or those of a checkpoint's folder."""
    given = Path(path)
    if is_run(given):
        return read_run(given).weights()
    if (given / SIDECAR).is_file():
        return given / WEIGHTS[1]
    return given


def read_sidecar(weights: Path) -> Sidecar | None:
    """What stands beside a file of weights, or None where nothing does.

    Raises CheckpointUnreadable where a `checkpoint.json` cannot be read or was written for other weights.
    """
    file = weights.parent / SIDECAR
    if not weights.is_file():
        return None
    if not file.is_file():
        return _header(weights)
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        known = entry["files"].get(weights.name)
        sidecar = Sidecar.from_json(entry)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidOption) as error:
        raise CheckpointUnreadable(weights, f"{SIDECAR} beside it cannot be read ({error})") from error
    if known is None:  # it tells of its neighbours
        return _header(weights)
    if known != sha256(weights):
        raise CheckpointUnreadable(weights, f"{SIDECAR} beside it was written for other weights: its sha256 differs")
    return sidecar


def _header(weights: Path) -> Sidecar | None:
    """What the header of a `.safetensors` tells, or None; what cannot be read is `read_checkpoint`'s to refuse."""
    if weights.suffix != ".safetensors":
        return None
    try:
        with weights.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > _LONGEST_HEADER_BYTES:
                return None
            told = json.loads(file.read(size))["__metadata__"][HEADER]
        return Sidecar.from_json(json.loads(told))
    except (OSError, ValueError, KeyError, TypeError, InvalidOption):
        return None


def write_sidecar(folder: Path, sidecar: Sidecar) -> None:
    """Write `checkpoint.json` into a folder, last of all its files, with the hashes of the weights."""
    files = {name: sha256(folder / name) for name in WEIGHTS}
    text = json.dumps({"schema": SCHEMA, **sidecar.to_json(), "files": files}, indent=2, allow_nan=False)
    (folder / SIDECAR).write_text(text + "\n", encoding="utf-8")
