"""What `dyx eval` is asked about: a training run, whose dynamic network is opened, or a bundle, on any backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyx.bundle import read_bundle
from dyx.datasets import ImageSet, read_data
from dyx.errors import BundleMissing, InvalidOption, OptionNeeded
from dyx.evaluation import Evaluation
from dyx.runs import is_run, read_run
from dyx.runtime import open_bundle
from dyx.runtime.runner import Runner

SPLITS = ("held-out", "train")
EAGER = "paddle-eager"


def open_target(target: Path, backend: str = "auto", device: str = "auto", threads: int | None = None) -> Runner:
    """A runner for a run's dynamic network or for a bundle.

    Raises:
        BundleError, RunUnreadable, CheckpointError, UnknownName, InvalidOption, PackageMissing, DeviceMissing.
    """
    if not is_run(target):
        return open_bundle(_there(target), backend, device, threads)
    if backend not in ("auto", EAGER):
        raise InvalidOption("--backend", backend, f"auto or {EAGER}: a run holds the dynamic network; export it first")
    from dyx.zoo.eager import open_run

    return open_run(read_run(target), device, threads)


def _there(target: Path) -> Path:
    """A path that is not a run's. Raises BundleMissing where nothing is there at all."""
    if not target.exists():
        raise BundleMissing(target, "there is no such folder, neither a bundle nor a training run")
    return target


def data_of(target: Path) -> str:
    """The data that a target's weights were trained on. Raises OptionNeeded where it does not say."""
    if is_run(target):
        return str(read_run(target).record["data"])
    weights = read_bundle(_there(target), verify=False).manifest["weights"]
    data = weights.get("data") if isinstance(weights, Mapping) else None
    if data is None:
        raise OptionNeeded("--data", f"{target} does not say what it was trained on", "digits or folder:DIR")
    return str(data)


def pictures_of(data: str, split: str) -> ImageSet:
    """One part of labelled pictures. Raises InvalidOption, UnknownName, DataUnusable."""
    if split not in SPLITS:
        raise InvalidOption("--split", split, f"one of {', '.join(SPLITS)}")
    read = read_data(data)
    return read.held_out if split == SPLITS[0] else read.train


@dataclass(frozen=True)
class Agreement:
    """How far two networks give the same answers to the same pictures.

    Attributes:
        name: The network compared with.
        backend: What ran it.
        correct: Pictures that it answered rightly.
        same: Pictures to which both gave the same class.
        images: All pictures.
    """

    name: str
    backend: str
    correct: int
    same: int
    images: int

    @classmethod
    def between(cls, one: Evaluation, other: Evaluation) -> Agreement:
        """How far `one` agrees with `other`."""
        same = int((one.predicted == other.predicted).sum())
        return cls(other.name, other.backend, other.correct, same, len(one.classes))

    def to_json(self) -> dict[str, Any]:
        """Every figure."""
        return {
            "network": self.name,
            "backend": self.backend,
            "correct": self.correct,
            "same_class": self.same,
            "images": self.images,
        }

    def sentence(self) -> str:
        """In words."""
        return (
            f"{self.name} on {self.backend}: {self.correct} of {self.images} right;"
            f" the same class as here for {self.same} of {self.images}"
        )
