"""A bundle before it is proved: its manifest so far, and the artifacts that are written into its folder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from dyx.bundle import FORMAT_FILES, Bundle
from dyx.checkpoint import Checkpoint
from dyx.errors import InvalidOption
from dyx.exporter.converter import Converter
from dyx.exporter.folded.depthwise import sample_by_sample
from dyx.exporter.graphs import PlannedGraph
from dyx.exporter.planned import Planned, preprocess_of
from dyx.exporter.scan import Loops
from dyx.exporter.settings import ExportSettings
from dyx.exporter.to_onnx import to_onnx
from dyx.exporter.to_paddle import to_paddle
from dyx.progress import Progress
from dyx.runs import Sidecar
from dyx.tensors import BATCH, TensorSpec
from dyx.zoo.source import Source

_RECORDED_PACKAGES = (
    *("dyx", "numpy", "paddlepaddle", "paddlepaddle-gpu", "paddle2onnx"),
    *("onnx", "onnxslim", "onnxruntime", "onnxruntime-gpu", "openvino"),
)


def draft_of(staging: Path, planned: Planned, graphs: Sequence[PlannedGraph], settings: ExportSettings) -> Bundle:
    """The bundle as it will be, all but its parity, so that runners can open what is in the folder."""
    (classes,) = planned.trace.output_shape
    batch: int | str = settings.batch or BATCH
    image = TensorSpec("image", planned.source.dtype, (batch, *planned.source.shape))
    logits = TensorSpec("logits", "float32", (batch, classes))
    checkpoint = planned.checkpoint
    manifest = {
        "model": planned.source.name,
        "inputs": [image.to_json()],
        "outputs": [logits.to_json()],
        "preprocess": preprocess_of(planned.source, settings).to_json(),
        "labels": _labels(planned.source, settings, classes),
        "temperature": dict(planned.temperatures),
        "weights": "untrained" if checkpoint is None else _origin(checkpoint, planned.sidecar),
        "plan": graphs[-1].plan.to_json(),
        "graphs": [graph.to_json() for graph in graphs],
        **({"tuning": dict(planned.tuning)} if planned.tuning else {}),
        "notes": list(planned.notes),
        "versions": _versions(),
    }
    names = [name for kind in settings.formats for name in Bundle(staging, manifest).files_of(kind)]
    return Bundle(staging, {**manifest, "files": dict.fromkeys(names)})


def _origin(checkpoint: Checkpoint, sidecar: Sidecar | None) -> dict[str, Any]:
    """Where weights came from, and on what they were trained where that is known."""
    told = {} if sidecar is None else {"data": sidecar.data, "epoch": sidecar.epoch, "accuracy": sidecar.accuracy}
    return {"file": checkpoint.path.name, "sha256": checkpoint.sha256, **told}


def _labels(source: Source, settings: ExportSettings, classes: int) -> list[str]:
    """What the user gave, or the zoo's, or bare numbers for a network that has no names for its classes."""
    if settings.labels is None:
        return list(source.labels) or [str(index) for index in range(classes)]
    given = settings.labels
    labels = _lines(Path(given)) if isinstance(given, str | Path) else list(given)
    if len(labels) != classes:
        raise InvalidOption("--labels", f"{len(labels)} labels", f"{classes} labels, one a line: one per logit")
    return labels


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidOption("--labels", str(path), f"a text file that can be read ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for package in _RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def convert(static: Any, draft: Bundle, settings: ExportSettings, converter: Converter, progress: Progress) -> None:
    """Write the artifacts that were asked for.

    The ONNX file is made from a Paddle program either way: from the bundle's own, or where samples are looped over from
    one of a single sample.
    """
    with tempfile.TemporaryDirectory(prefix="dyx-", dir=draft.path) as name:
        scratch, scanned = Path(name), list[str]()
        if "onnx" in settings.formats:
            progress("converting to ONNX")
            with sample_by_sample(static) as scanned:
                to_paddle(static, draft.input, scratch)
            loops = Loops(scanned, channels_last=draft.manifest["plan"]["channels_last"])
            to_onnx(converter, scratch, draft.input, draft.output, settings.opset, loops)
        if "paddle" in settings.formats and (scanned or "onnx" not in settings.formats):
            progress("exporting to Paddle Inference")
            to_paddle(static, draft.input, scratch)
        for kind in settings.formats:
            for file in FORMAT_FILES[kind]:
                (scratch / file).rename(draft.file(file))
