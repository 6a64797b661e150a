"""What an export may be told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dyx.bundle import FORMAT_FILES, MANIFEST
from dyx.errors import InvalidOption, OptionNeeded, OutputExists, PackageMissing, UnknownName
from dyx.exporter.plan import AUTO, check_rules
from dyx.exporter.rule import MEAN_ATTENTION, Target, check_target
from dyx.exporter.to_onnx import check_opset
from dyx.parity import TOLERANCE
from dyx.preprocess import NORMALISED, PIXELS, Preprocess
from dyx.runtime import BACKEND_EXTRAS, BACKEND_FORMATS, BACKEND_PACKAGES, BACKENDS, is_installed, require_backend

_BETWEEN = (8, 64)
"""Measured too, where a network is usually priced at larger batches."""


@dataclass(frozen=True)
class ExportSettings:
    """Settings of `dyx.export` and `dyx.plan`, named as the command line's options.

    Attributes:
        weights: A checkpoint, or None for seeded, untrained weights.
        temperature: Of every dynamic layer; by default the one that training of its kind ends at.
        fold: Rule ids, each for its own kind of layer, or "auto".
        formats: "paddle", "onnx" or both.
        opset: Of the ONNX file, 17 to 21.
        batch: The size to freeze the graph to, or None for a free batch.
        out: The bundle's folder; `bundles/<model>` by default.
        shape: Of the input, `(3, height, width)`; needed for a network that brings none.
        labels: A file with one label a line, or the labels.
        preprocess: A JSON file, or what it would say.
        input: "float32", normalised by the host; or "uint8": pixels, which the graph normalises as `preprocess` says.
        seed: Of untrained weights and of the inputs that prove the bundle.
        force: Replace a bundle that is there.
        tolerance: Share of max |y| that an artifact may be off.
        tune: Measure candidates on this machine and choose from that, instead of from prices.
        tune_batch: Batch size that rules are priced at where the batch is free; by default 512 for small inputs, 8
            for ImageNet's. Several are measured with `tune`, by default 1, 8, 64 and that one.
        tune_backend: Backend that rules are priced for, or measured on.
        one_graph: Write one graph only, for `tune_batch`; otherwise others answer smaller batches where that pays.
        calibrate: A folder of pictures or an .npz, for rules that fix attention at its mean.
    """

    weights: Path | str | None = None
    temperature: float | None = None
    fold: Sequence[str] = (AUTO,)
    formats: Sequence[str] = tuple(FORMAT_FILES)
    opset: int = 17
    batch: int | None = None
    out: Path | str | None = None
    shape: tuple[int, int, int] | None = None
    labels: Path | str | Sequence[str] | None = None
    preprocess: Path | str | Preprocess | None = None
    input: str = NORMALISED
    seed: int = 0
    force: bool = False
    tolerance: float = TOLERANCE
    tune: bool = False
    tune_batch: int | Sequence[int] | None = None
    tune_backend: str = "onnxruntime"
    one_graph: bool = False
    calibrate: Path | str | None = None

    def tune_batches(self, usual_batch: int) -> tuple[int, ...]:
        """The batch sizes that count, smallest first, for a network that is usually priced at this one."""
        if self.batch is not None:
            return (self.batch,)
        if self.tune_batch is None:
            measured = (1, *(batch for batch in _BETWEEN if batch < usual_batch), usual_batch)
            return tuple(sorted(set(measured))) if self.tune else (usual_batch,)
        given = (self.tune_batch,) if isinstance(self.tune_batch, int) else self.tune_batch
        return tuple(sorted(set(given)))

    def target(self, usual_batch: int = 1) -> Target:
        """What the main graph is planned for, where the network is usually priced at this batch size."""
        largest = self.tune_batches(usual_batch)[-1]
        return Target(self.batch, largest, self.tune_backend, tuple(self.formats), self.tolerance)

    def folder(self, model: str) -> Path:
        """Where the bundle of a model goes."""
        return Path(self.out) if self.out is not None else Path("bundles") / model.rpartition(":")[2]

    def check(self) -> None:
        """Raises an error for the first setting that cannot be used, before any work is done."""
        check_rules(self.fold)
        check_target(self.target())
        self._check_tuning()
        check_opset(self.opset)
        if self.input not in (NORMALISED, PIXELS):
            raise InvalidOption("--input", self.input, f"{NORMALISED} or {PIXELS}")
        if not (math.isfinite(self.tolerance) and self.tolerance > 0):
            raise InvalidOption("--tolerance", self.tolerance, "a number above 0")
        if self.temperature is not None and not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InvalidOption("--temperature", self.temperature, "a number from 0 up")
        self._check_calibration()
        if self.shape is not None and (len(self.shape) != 3 or self.shape[0] != 3 or min(self.shape) < 1):
            raise InvalidOption("--shape", ",".join(map(str, self.shape)), "3,height,width")

    def _check_tuning(self) -> None:
        given = () if self.tune_batch is None or isinstance(self.tune_batch, int) else tuple(self.tune_batch)
        shown = ",".join(map(str, given))
        if given and min(given) < 1:
            raise InvalidOption("--tune-batch", shown, "numbers from 1 up")
        if len(given) > 1 and not self.tune:
            raise InvalidOption("--tune-batch", shown, "one number that rules are priced at; several are for --tune")
        if not self.tune:
            return
        require_backend(self.tune_backend)
        if BACKEND_FORMATS[self.tune_backend] not in self.formats:
            wanted = f"a backend that runs what is exported, {' and '.join(self.formats)}"
            raise InvalidOption("--tune-backend", self.tune_backend, wanted)

    def _check_calibration(self) -> None:
        lossy = [rule for rule in self.fold if rule.endswith(f"/{MEAN_ATTENTION}")]
        if lossy and self.calibrate is None:
            why = f"{lossy[0]} fixes attention at its mean over images of yours"
            raise OptionNeeded("--calibrate", why, "photos/")
        if self.calibrate is not None and not lossy:
            wanted = f"used with a rule that needs it, as --fold dyconv/{MEAN_ATTENTION}; other rules are exact without"
            raise InvalidOption("--calibrate", str(self.calibrate), wanted)

    def check_formats(self) -> None:
        """Raises an error for a format that is unknown, or that no installed runtime could prove."""
        if not self.formats:
            raise InvalidOption("--format", "nothing", f"one of {', '.join(FORMAT_FILES)}")
        for name in self.formats:
            if name not in FORMAT_FILES:
                raise UnknownName("format", name, tuple(FORMAT_FILES))
            backend_of_format(name)

    def check_folder(self, folder: Path) -> None:
        """Raises OutputExists without `force`; with it, InvalidOption for a folder that is no bundle."""
        if not folder.exists() and not folder.is_symlink():
            return
        if not self.force:
            raise OutputExists(folder)
        if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST).is_file()):
            raise InvalidOption("--out", str(folder), "a bundle or an empty folder: --force replaces nothing else")


def backend_of_format(name: str) -> str:
    """The first installed backend that runs a format. Raises PackageMissing: what cannot be run cannot be proved."""
    able = [backend for backend in BACKENDS.names if BACKEND_FORMATS[backend] == name]
    for backend in able:
        if is_installed(backend):
            return backend
    raise PackageMissing(f"{BACKEND_PACKAGES[able[0]]}, which proves the {name} file,", BACKEND_EXTRAS[able[0]])
