"""The export, one line per step: load, trace, plan, fold, convert, prove, write."""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from dyx.exporter.bisect import first_difference, layer_errors
from dyx.exporter.calibration import Calibration, approximation_of, mean_attentions, read_calibration
from dyx.exporter.join import join
from dyx.exporter.plan import Plan, make_plan
from dyx.exporter.rule import Site, Target
from dyx.exporter.settings import ExportSettings, backend_of_format
from dyx.exporter.to_onnx import to_onnx
from dyx.exporter.to_paddle import to_paddle
from dyx.exporter.trace import Trace, trace_sites
from dyx.folder import written_whole
from dyx.inputs import input_pool
from dyx.nn.adapters import final_temperature, set_temperature
from dyx.nn.framework import paddle
from dyx.paddle_package import paddle_package
from dyx.parity import BATCHES, ParityReport, Verdict, allowed_errors, noise_of, prove
from dyx.preprocess import Preprocess
from dyx.progress import Progress, silent
from dyx.runs import Sidecar, read_sidecar, weights_file
from dyx.runtime import open_bundle
from dyx.tensors import BATCH, TensorSpec
from dyx.zoo.source import Source, load_source, load_trained
from dyx.zoo.weights import draw_weights, load_weights

_TRACED_SHARE = 16
"""One in so many images of the pool is traced, and at least two."""
_TRACED_LEAST = 2
_FULL_POOL = 64
"""The usual batch size from which on the whole pool is used."""
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
        sidecar: What stands beside that checkpoint, or None.
        trace: Its sites.
        plan: What folds them.
        temperatures: Kind of layer → the temperature that it is exported at.
        calibration: Images for rules that fix attention at its mean, or None.
        notes: What the user should hear, in words.
    """

    source: Source
    reference: Any
    checkpoint: Checkpoint | None
    sidecar: Sidecar | None
    trace: Trace
    plan: Plan
    temperatures: Mapping[str, float]
    calibration: Calibration | None
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
        reference = _reference(planned, static, chosen.seed)
        static = (copy.deepcopy(static) if static is reference.network else static).to(dtype="float32")
        _convert(static, draft, chosen, progress)
        _check_promises(draft, planned.plan)
        report = _prove(draft, reference, chosen, planned.plan.target, static, progress)
        progress("writing")
        write_samples(staging, _few(reference.samples))
        write_manifest(staging, {**draft.manifest, **_findings(planned, static, report)})
    return read_bundle(folder, verify=False)


def _checked(settings: dict[str, Any]) -> ExportSettings:
    paddle_package()  # before anything else is found wanting: without Paddle nothing can be exported
    chosen = ExportSettings(**settings)
    chosen.check()
    return chosen


def _plan(model: str, settings: ExportSettings, progress: Progress) -> Planned:
    progress(f"building {model}")
    weights = None if settings.weights is None else weights_file(settings.weights)
    sidecar = None if weights is None else read_sidecar(weights)
    source = _source(model, settings, sidecar)
    checkpoint, notes = _fill(source, weights, settings.seed)
    trained_at = None if sidecar is None else sidecar.temperature
    temperatures = set_temperature(source.network, trained_at if settings.temperature is None else settings.temperature)
    notes += _heated(temperatures, trained_at)
    reference = copy.deepcopy(source.network).to(dtype="float64")
    reference.eval()
    progress("tracing")
    images, _ = _pool(source, settings.seed)
    traced = images[: max(len(images) // _TRACED_SHARE, _TRACED_LEAST)].astype(np.float64)
    trace = trace_sites(reference, traced, model)
    calibration = _calibration(source, settings, progress)
    sites = _calibrated(trace.sites, source.network, calibration)
    chosen = make_plan(sites, settings.target(source.tune_batch), settings.fold, model)
    chosen = join(chosen, reference, traced, model)
    notes += [f"{path} is never reached by the forward and stays as it is" for path in trace.uncalled]
    notes += dict.fromkeys(decision.offer.note for decision in chosen.decisions if decision.offer.note)
    return Planned(source, reference, checkpoint, sidecar, trace, chosen, temperatures, calibration, tuple(notes))


def _pool(source: Source, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The inputs that prove a network; for one that is usually run at small batches fewer, and without extremes.

    Such a network is deep and slow. Inputs of many times the usual size saturate the attention of dozens of layers,
    each of which then multiplies activations: that is chaos in float32, and no two runtimes agree.
    """
    deep = source.tune_batch < _FULL_POOL
    return input_pool(source.shape, seed, share=8, extremes=False) if deep else input_pool(source.shape, seed)


def _calibration(source: Source, settings: ExportSettings, progress: Progress) -> Calibration | None:
    if settings.calibrate is None:
        return None
    progress("averaging attention over the calibration images")
    return read_calibration(Path(settings.calibrate), _preprocess(source, settings), source.shape, settings.seed)


def _calibrated(sites: Sequence[Site], network: Any, calibration: Calibration | None) -> Sequence[Site]:
    """The sites, with their mean attention where there are images to take it from."""
    if calibration is None:
        return sites
    means = mean_attentions(network, calibration.used)
    return [replace(site, mean_attention=means.get(site.path)) for site in sites]


def _source(model: str, settings: ExportSettings, sidecar: Sidecar | None) -> Source:
    if sidecar is None:
        return load_source(model, settings.shape, settings.seed)
    return load_trained(model, sidecar, settings.shape, settings.seed)


def _heated(temperatures: Mapping[str, float], trained_at: Mapping[str, float] | None) -> list[str]:
    """Notes where a temperature is not the one that training ends at, or not the one that the weights were saved at."""
    notes = []
    for kind, value in temperatures.items():
        saved, final = (trained_at or {}).get(kind), final_temperature(kind)
        if saved is not None and value != saved:
            notes.append(f"temperature {value:g}: these weights were saved at {saved:g}, where their accuracy was seen")
        elif value != final and saved is not None:
            notes.append(f"temperature {value:g}: training of kind {kind} was to go on down to {final:g}")
        elif value != final:
            notes.append(
                f"temperature {value:g}: networks of kind {kind} are trained down to {final:g}, where their accuracy is"
            )
    return notes


def _fill(source: Source, weights: Path | None, seed: int) -> tuple[Checkpoint | None, list[str]]:
    """Put weights into the network; what the user should hear of them."""
    if weights is None:
        draw_weights(source.network, source.shape, seed)
        return None, [f"untrained: weights drawn from seed {seed}; predictions mean nothing"]
    checkpoint = read_checkpoint(weights)
    mapped = load_weights(source.network, checkpoint)
    return checkpoint, [*checkpoint.notes, *mapped]


@dataclass(frozen=True)
class _Reference:
    """What artifacts are compared with.

    Attributes:
        network: In float64.
        samples: The pool with its answers.
        noise: Kind of input → how far the same network's float32 answers are from them.
    """

    network: Any
    samples: Samples
    noise: Mapping[str, float]


def _reference(planned: Planned, static: Any, seed: int) -> _Reference:
    """The dynamic network in float64; or the static one, where it only approximates the dynamic one on request.

    Parity then proves the conversion, and the approximation is measured on its own.
    """
    network, single = planned.reference, planned.source.network
    if planned.plan.is_lossy:
        network, single = static, copy.deepcopy(static).to(dtype="float32")
    images, kinds = _pool(planned.source, seed)
    samples = Samples(images, _eager(network, images.astype(np.float64)), kinds)
    return _Reference(network, samples, noise_of(_eager(single, images), samples))


def _eager(network: Any, images: np.ndarray) -> np.ndarray:
    chunks = [images[start : start + _REFERENCE_CHUNK] for start in range(0, len(images), _REFERENCE_CHUNK)]
    with paddle.no_grad():
        return np.concatenate([network(paddle.to_tensor(chunk)).numpy() for chunk in chunks])


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
    image = TensorSpec("image", "float32", (batch, *planned.source.shape))
    logits = TensorSpec("logits", "float32", (batch, classes))
    checkpoint = planned.checkpoint
    manifest = {
        "model": planned.source.name,
        "inputs": [image.to_json()],
        "outputs": [logits.to_json()],
        "preprocess": _preprocess(planned.source, settings).to_json(),
        "labels": _labels(planned.source, settings, classes),
        "temperature": dict(planned.temperatures),
        "weights": "untrained" if checkpoint is None else _origin(checkpoint, planned.sidecar),
        "plan": planned.plan.to_json(),
        "notes": list(planned.notes),
        "versions": _versions(),
        "files": dict.fromkeys(name for kind in settings.formats for name in FORMAT_FILES[kind]),
    }
    return Bundle(staging, manifest)


def _origin(checkpoint: Checkpoint, sidecar: Sidecar | None) -> dict[str, Any]:
    """Where weights came from, and on what they were trained where that is known."""
    told = {} if sidecar is None else {"data": sidecar.data, "epoch": sidecar.epoch, "accuracy": sidecar.accuracy}
    return {"file": checkpoint.path.name, "sha256": checkpoint.sha256, **told}


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
    reference: _Reference,
    settings: ExportSettings,
    target: Target,
    static: Any,
    progress: Progress,
) -> ParityReport:
    """Reopen each artifact with its own runtime and compare. Raises ParityMissed."""
    samples = reference.samples
    allowed = allowed_errors(settings.tolerance, reference.noise)
    verdicts: list[Verdict] = []
    for kind in settings.formats:
        backend = backend_of_format(kind)
        progress(f"proving the {kind} file on {backend}")
        with open_bundle(draft, backend, device="cpu") as runner:
            verdicts += prove(runner, kind, samples, allowed, _batches(target))
    report = ParityReport(settings.tolerance, reference.noise, allowed, tuple(verdicts))
    if not report.passed:
        row = next(int(verdict.where["row"]) for verdict in verdicts if not verdict.passed)
        image = np.repeat(samples.image[[max(row, 0)]], settings.batch or 1, axis=0)
        where = first_difference(static, reference.network, image, settings.tolerance)
        raise ParityMissed(report.misses(), report.passing_tolerance, where)
    return report


def _findings(planned: Planned, static: Any, report: ParityReport) -> dict[str, Any]:
    """What the manifest says in the end, beside what was known before anything was built."""
    notes = [*planned.notes, *_noise_note(report)]
    findings: dict[str, Any] = {"parity": {**report.to_json(), "layers": _layer_errors(planned, static)}}
    if planned.plan.is_lossy and planned.calibration:
        found = approximation_of(static, planned.source.network, planned.calibration)
        notes.append(found.sentence())
        findings["approximation"] = found.to_json()
    return {**findings, "notes": notes}


def _layer_errors(planned: Planned, static: Any) -> dict[str, float]:
    """Path of each layer that both networks have → how far eager float32 is off there, as a share of max |y|.

    Nothing of a lossy network, whose layers are not the dynamic one's, nor of one frozen to a large batch.
    """
    batch = planned.plan.target.batch or _TRACED_LEAST
    if planned.plan.is_lossy or batch > _REFERENCE_CHUNK:
        return {}
    images, _ = _pool(planned.source, seed=0)
    errors = layer_errors(static, planned.reference, np.resize(images, (batch, *images.shape[1:])))
    return {path: error for path, error in errors.items() if np.isfinite(error)}


def _noise_note(report: ParityReport) -> list[str]:
    """Both distances from float64, where the original in float32 is further from it than the tolerance."""
    kind = max(report.noise, key=lambda kind: report.noise[kind])
    if report.noise[kind] <= report.tolerance:
        return []
    worst = max(verdict.relative_error for verdict in report.verdicts)
    return [
        f"in float32 the network is itself {report.noise[kind]:.1e} of max |y| away from float64 ({kind} inputs);"
        f" the exported files are {worst:.1e} away"
    ]


def _batches(target: Target) -> Sequence[int]:
    if target.batch:
        return (target.batch,)
    return sorted({batch for batch in BATCHES if batch <= max(target.tune_batch, 8)} | {target.tune_batch})


def _few(references: Samples) -> Samples:
    """The first inputs of every kind: enough to prove the bundle on another machine."""
    rows = [np.flatnonzero(references.kind == kind) for kind in np.unique(references.kind)]
    share = -(-_SAMPLES // len(rows))
    few = np.sort(np.concatenate([found[:share] for found in rows]))
    return Samples(references.image[few], references.logits[few], references.kind[few])
