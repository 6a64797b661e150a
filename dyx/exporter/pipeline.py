"""The export, one line per step: load, trace, plan, fold, convert, prove, write."""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np

from dyx.bundle import FORMAT_FILES, Bundle, Samples, read_bundle, write_manifest, write_samples
from dyx.census import broken_promises, take_census
from dyx.checkpoint import Checkpoint, read_checkpoint
from dyx.errors import ConversionFailed, InvalidOption, ParityMissed
from dyx.exporter.apply import apply_plan
from dyx.exporter.bisect import first_difference
from dyx.exporter.plan import Plan, make_plan
from dyx.exporter.settings import ExportSettings, backend_of_format
from dyx.exporter.to_onnx import to_onnx
from dyx.exporter.to_paddle import to_paddle
from dyx.exporter.trace import Trace, trace_sites
from dyx.folder import written_whole
from dyx.inputs import input_pool
from dyx.nn.adapters import set_temperature
from dyx.nn.framework import paddle
from dyx.paddle_package import paddle_package
from dyx.parity import BATCHES, ParityReport, Verdict, allowed_errors, noise_of, prove
from dyx.preprocess import Preprocess
from dyx.progress import Progress, silent
from dyx.runtime import open_bundle
from dyx.tensors import BATCH, TensorSpec
from dyx.zoo.source import Source, load_source
from dyx.zoo.weights import draw_weights, load_weights

_TRACED_IMAGES = 4
_REFERENCE_CHUNK = 16
_SAMPLES = 16
_RECORDED_PACKAGES = (
    *("dyx", "numpy", "paddlepaddle", "paddlepaddle-gpu", "paddle2onnx"),
    *("onnx", "onnxslim", "onnxruntime", "onnxruntime-gpu", "openvino"),
)


@dataclass(frozen=True)
class Planned:
    """A network that was loaded, traced and planned.

    Attributes:
        source: The network as built, in float32, at the final temperature, with its weights.
        reference: The same in float64: what every artifact is compared with.
        checkpoint: Where its weights came from, or None for seeded ones.
        trace: Its sites.
        plan: What folds them.
        notes: What the user should hear, in words.
    """

    source: Source
    reference: Any
    checkpoint: Checkpoint | None
    trace: Trace
    plan: Plan
    notes: tuple[str, ...]


def plan(model: str = "alexnet-dy", *, progress: Progress = silent, **settings: Any) -> Planned:
    """Load a network, find its sites and choose a rule for each, without folding anything.

    Args:
        model: A name of `dyx models`, `file.py:Class` or `package.module:callable`.
        progress: Called with each step's name.
        settings: See ExportSettings.

    Raises:
        UsageError, CheckpointError, ModelUnusable, LayerUnreadable, FoldRefused, PackageMissing.
    """
    return _plan(model, _checked(settings), progress)


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
    chosen = _checked(settings)
    chosen.check_formats()
    folder = chosen.folder(model)
    chosen.check_folder(folder)
    planned = _plan(model, chosen, progress)
    with written_whole(folder, replace=chosen.force) as staging:
        draft = _draft(staging, planned, chosen)
        progress(_found(planned))
        static = apply_plan(planned.plan, planned.reference, planned.trace.inputs)
        progress("computing the float64 reference")
        references, noise = _references(planned, chosen.seed)
        _convert(static, draft, chosen, progress)
        _check_promises(draft, planned.plan)
        report = _prove(draft, planned, chosen, (references, noise), static, progress)
        progress("writing")
        write_samples(staging, _few(references))
        write_manifest(staging, {**draft.manifest, "parity": report.to_json()})
    return read_bundle(folder, verify=False)


def _checked(settings: dict[str, Any]) -> ExportSettings:
    paddle_package()  # before anything else is found wanting: without Paddle nothing can be exported
    chosen = ExportSettings(**settings)
    chosen.check()
    return chosen


def _plan(model: str, settings: ExportSettings, progress: Progress) -> Planned:
    progress(f"building {model}")
    source = load_source(model, settings.shape, settings.seed)
    checkpoint, notes = _fill(source, settings)
    set_temperature(source.network, settings.temperature)
    reference = copy.deepcopy(source.network).to(dtype="float64")
    reference.eval()
    progress("tracing")
    images, _ = input_pool(source.shape, settings.seed)
    trace = trace_sites(reference, images[:_TRACED_IMAGES].astype(np.float64), model)
    chosen = make_plan(trace.sites, settings.target, settings.fold, model)
    left = [f"{path} is never reached by the forward and stays as it is" for path in trace.uncalled]
    return Planned(source, reference, checkpoint, trace, chosen, (*notes, *left))


def _fill(source: Source, settings: ExportSettings) -> tuple[Checkpoint | None, list[str]]:
    """Put weights into the network; what the user should hear of them."""
    notes = []
    if settings.temperature != 1:
        notes.append(f"temperature {settings.temperature:g}: networks are trained down to 1, where their accuracy is")
    if settings.weights is None:
        draw_weights(source.network, source.shape, settings.seed)
        return None, [*notes, f"untrained: weights drawn from seed {settings.seed}; predictions mean nothing"]
    checkpoint = read_checkpoint(settings.weights)
    load_weights(source.network, checkpoint)
    return checkpoint, [*notes, *checkpoint.notes]


def _references(planned: Planned, seed: int) -> tuple[Samples, dict[str, float]]:
    """The pool with the dynamic network's float64 answers, and how far its own float32 answers are from them."""
    images, kinds = input_pool(planned.source.shape, seed)
    references = Samples(images, _eager(planned.reference, images.astype(np.float64)), kinds)
    return references, noise_of(_eager(planned.source.network, images), references)


def _eager(network: Any, images: np.ndarray) -> np.ndarray:
    chunks = [images[start : start + _REFERENCE_CHUNK] for start in range(0, len(images), _REFERENCE_CHUNK)]
    with paddle.no_grad():
        return np.concatenate([network(paddle.to_tensor(chunk)).numpy() for chunk in chunks])


def _found(planned: Planned) -> str:
    """What is folded, in words: the user sees which of their classes were recognised."""
    counts = Counter(site.class_name for site in planned.trace.sites)
    return "folding " + (
        ", ".join(f"{count} × {name}" for name, count in counts.items()) or "nothing: no dynamic layer"
    )


def _draft(staging: Path, planned: Planned, settings: ExportSettings) -> Bundle:
    """The bundle as it will be, all but its parity, so that runners can open what is in the staging folder."""
    (classes,) = planned.trace.output_shape
    batch: int | str = settings.batch or BATCH
    image = TensorSpec("image", "float32", (batch, *planned.source.shape))
    logits = TensorSpec("logits", "float32", (batch, classes))
    checkpoint = planned.checkpoint
    manifest = {
        "model": planned.source.name,
        "inputs": [image.to_json()],
        "outputs": [logits.to_json()],
        "preprocess": _preprocess(planned.source, settings).to_json(),
        "labels": _labels(planned.source, settings, classes),
        "temperature": settings.temperature,
        "weights": "untrained" if checkpoint is None else {"file": checkpoint.path.name, "sha256": checkpoint.sha256},
        "plan": planned.plan.to_json(),
        "notes": list(planned.notes),
        "versions": _versions(),
        "files": dict.fromkeys(name for kind in settings.formats for name in FORMAT_FILES[kind]),
    }
    return Bundle(staging, manifest)


def _preprocess(source: Source, settings: ExportSettings) -> Preprocess:
    given = settings.preprocess
    chosen = Preprocess.read(Path(given)) if isinstance(given, str | Path) else given or source.preprocess
    if chosen.size != source.shape[1:]:
        wanted = f"size {list(source.shape[1:])}, that of the network's input"
        raise InvalidOption("--preprocess", f"size {list(chosen.size)}", wanted)
    return chosen


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
    with tempfile.TemporaryDirectory(prefix="dyx-") as scratch:
        program = draft.path if "paddle" in settings.formats else Path(scratch)
        progress("exporting to Paddle Inference")
        to_paddle(static, draft.input, program)
        if "onnx" in settings.formats:
            progress("converting to ONNX")
            to_onnx(program, draft.path, draft.input, draft.output, settings.opset)


def _check_promises(draft: Bundle, plan: Plan) -> None:
    for census in take_census(draft):
        faults = broken_promises(census, plan.target.batch or "dynamic", computed_kernels=plan.computes_kernels)
        if faults:
            raise ConversionFailed("the operator census", "; ".join(faults))


def _prove(
    draft: Bundle,
    planned: Planned,
    settings: ExportSettings,
    measured: tuple[Samples, dict[str, float]],
    static: Any,
    progress: Progress,
) -> ParityReport:
    """Reopen each artifact with its own runtime and compare. Raises ParityMissed."""
    references, noise = measured
    allowed = allowed_errors(settings.tolerance, noise)
    verdicts: list[Verdict] = []
    for kind in settings.formats:
        backend = backend_of_format(kind)
        progress(f"proving the {kind} file on {backend}")
        with open_bundle(draft, backend, device="cpu") as runner:
            verdicts += prove(runner, kind, references, allowed, _batches(settings))
    report = ParityReport(settings.tolerance, noise, allowed, tuple(verdicts))
    if not report.passed:
        row = next(int(verdict.where["row"]) for verdict in verdicts if not verdict.passed)
        image = np.repeat(references.image[[max(row, 0)]], settings.batch or 1, axis=0)
        where = first_difference(static, planned.reference, image, settings.tolerance)
        raise ParityMissed(report.misses(), report.passing_tolerance, where)
    return report


def _batches(settings: ExportSettings) -> Sequence[int]:
    return (settings.batch,) if settings.batch else sorted({*BATCHES, settings.tune_batch})


def _few(references: Samples) -> Samples:
    """The first inputs of every kind: enough to prove the bundle on another machine."""
    rows = [np.flatnonzero(references.kind == kind) for kind in np.unique(references.kind)]
    share = -(-_SAMPLES // len(rows))
    few = np.sort(np.concatenate([found[:share] for found in rows]))
    return Samples(references.image[few], references.logits[few], references.kind[few])
