"""The export, one line per step: load, trace, plan, fold, convert, prove, write."""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from dyx.bundle import FORMAT_FILES, ONNX_MODEL, STEM, Bundle, read_bundle, write_manifest, write_samples
from dyx.checkpoint import Checkpoint
from dyx.errors import InvalidOption
from dyx.exporter.apply import apply_plan
from dyx.exporter.graphs import PlannedGraph
from dyx.exporter.planned import Planned, checked, make_planned, preprocess_of
from dyx.exporter.proof import Reference, check_promises, few, findings, prove_graph, reference_of, report_of
from dyx.exporter.settings import ExportSettings
from dyx.exporter.sharing import share_weights
from dyx.exporter.to_onnx import to_onnx
from dyx.exporter.to_paddle import to_paddle
from dyx.folder import written_whole
from dyx.parity import Verdict
from dyx.progress import Progress, silent
from dyx.runs import Sidecar
from dyx.tensors import BATCH, TensorSpec
from dyx.zoo.source import Source

_RECORDED_PACKAGES = (
    *("dyx", "numpy", "paddlepaddle", "paddlepaddle-gpu", "paddle2onnx"),
    *("onnx", "onnxslim", "onnxruntime", "onnxruntime-gpu", "openvino"),
)


def export(model: str = "alexnet-dy", *, progress: Progress = silent, **settings: Any) -> Bundle:
    """Write the proven bundle of a network, whole or not at all. Also `dyx export`.

    Args:
        model: A name of `dyx models`, `file.py:Class` or `package.module:callable`.
        progress: Called with each step's name.
        settings: See ExportSettings.

    Raises:
        UsageError, CheckpointError, ModelUnusable, LayerUnreadable, FoldRefused, FoldDiffers, ConversionFailed,
        ParityMissed, OutputUnwritable, PackageMissing. Whatever stood at the output before still does.
    """
    chosen = checked(settings)
    chosen.check_formats()
    folder = chosen.folder(model)
    chosen.check_folder(folder)
    planned = make_planned(model, chosen, progress)
    with written_whole(folder, replace=chosen.force) as staging:
        draft = _draft(staging, planned, chosen)
        progress(_found(planned))
        static = apply_plan(planned.plan, planned.network, planned.trace.inputs)
        progress("computing the float64 reference")
        reference = reference_of(planned, static, chosen)
        static = (copy.deepcopy(static) if static is reference.network else static).to(dtype="float32")
        _convert(static, draft, chosen, progress)
        for graph in planned.graphs[:-1]:
            progress(f"folding once more, for batches below {planned.graphs[-1].graph.from_batch}")
            other = apply_plan(graph.plan, planned.network, planned.trace.inputs).to(dtype="float32")
            _convert(other, draft.of_graph(graph.graph), chosen, progress)
        verdicts = [
            verdict
            for graph in reversed(planned.graphs)
            for verdict in _proved(draft, graph, reference, chosen, progress)
        ]
        report = report_of(verdicts, reference, chosen, static)
        progress("writing")
        write_samples(staging, few(reference.samples))
        write_manifest(staging, {**draft.manifest, **findings(planned, static, report)})
    return read_bundle(folder, verify=False)


def _found(planned: Planned) -> str:
    """What is folded, in words: the user sees which of their classes were recognised."""
    counts = Counter(decision.site.class_name for decision in planned.plan.decisions)
    return "folding " + (
        ", ".join(f"{count} × {name}" for name, count in counts.items()) or "nothing: no dynamic layer"
    )


def _draft(staging: Path, planned: Planned, settings: ExportSettings) -> Bundle:
    """The bundle as it will be, all but its parity, so that runners can open what is in the staging folder."""
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
        "plan": planned.plan.to_json(),
        "graphs": [graph.to_json() for graph in planned.graphs],
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


def _convert(static: Any, draft: Bundle, settings: ExportSettings, progress: Progress) -> None:
    """Write the artifacts that were asked for; the ONNX file is made from the Paddle program either way."""
    with tempfile.TemporaryDirectory(prefix="dyx-", dir=draft.path) as name:
        scratch = Path(name)
        progress("exporting to Paddle Inference")
        to_paddle(static, draft.input, scratch)
        if "onnx" in settings.formats:
            progress("converting to ONNX")
            to_onnx(scratch, scratch, draft.input, draft.output, settings.opset)
        for kind in settings.formats:
            for file in FORMAT_FILES[kind]:
                (scratch / file).rename(draft.file(file))


def _proved(
    draft: Bundle, graph: PlannedGraph, reference: Reference, settings: ExportSettings, progress: Progress
) -> list[Verdict]:
    """What the files of one graph hold and compute. Raises ConversionFailed."""
    one = draft.of_graph(graph.graph)
    if one.stem != STEM and "onnx" in settings.formats:
        share_weights(one.file(ONNX_MODEL), draft.file(ONNX_MODEL))
    check_promises(one, graph.plan)
    return prove_graph(one, graph, reference, settings, progress)
