"""The proof of an export: references, promises, parity, and what the manifest says of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dyx.bundle import Bundle, Samples
from dyx.census import broken_promises, take_census
from dyx.errors import ConversionFailed, ParityMissed
from dyx.exporter.bisect import first_difference, layer_errors
from dyx.exporter.calibration import approximation_of
from dyx.exporter.graphs import PlannedGraph
from dyx.exporter.plan import Plan
from dyx.exporter.planned import TRACED_LEAST, Planned, proof_pool
from dyx.exporter.rule import Target
from dyx.exporter.settings import ExportSettings, backend_of_format
from dyx.nn.framework import paddle
from dyx.parity import BATCHES, ParityReport, Verdict, allowed_errors, noise_of, prove
from dyx.progress import Progress
from dyx.runtime import open_bundle

_REFERENCE_CHUNK = 16
_SAMPLES = 16


@dataclass(frozen=True)
class Reference:
    """What artifacts are compared with.

    Attributes:
        network: In float64.
        samples: The pool with its answers.
        noise: Kind of input → how far the same network's float32 answers are from them.
        allowed: Kind of input → how far an artifact may be.
    """

    network: Any
    samples: Samples
    noise: Mapping[str, float]
    allowed: Mapping[str, float]


def reference_of(planned: Planned, static: Any, settings: ExportSettings) -> Reference:
    """The dynamic network in float64; or the static one, where it only approximates the dynamic one on request.

    Parity then proves the conversion, and the approximation is measured on its own.
    """
    network, single = planned.reference, planned.source.network
    if planned.plan.is_lossy:
        network, single = static, copy.deepcopy(static).to(dtype="float32")
    images, kinds = proof_pool(planned.source, settings.seed)
    samples = Samples(images, _eager(network, images.astype(np.float64)), kinds)
    noise = noise_of(_eager(single, images), samples)
    return Reference(network, samples, noise, allowed_errors(settings.tolerance, noise))


def _eager(network: Any, images: np.ndarray) -> np.ndarray:
    chunks = [images[start : start + _REFERENCE_CHUNK] for start in range(0, len(images), _REFERENCE_CHUNK)]
    with paddle.no_grad():
        return np.concatenate([network(paddle.to_tensor(chunk)).numpy() for chunk in chunks])


def check_promises(draft: Bundle, plan: Plan) -> None:
    """Raises ConversionFailed where a graph of a bundle breaks a promise."""
    for census in take_census(draft):
        faults = broken_promises(census, plan.target.batch or "dynamic", computed_kernels=plan.computes_kernels)
        if faults:
            raise ConversionFailed("the operator census", "; ".join(faults))


def prove_graph(
    bundle: Bundle, graph: PlannedGraph, reference: Reference, settings: ExportSettings, progress: Progress
) -> list[Verdict]:
    """Reopen the artifacts of a bundle's one graph with their own runtimes and compare."""
    verdicts: list[Verdict] = []
    for kind in settings.formats:
        backend, artifact = backend_of_format(kind), graph.graph.artifact(kind)
        progress(f"proving the {artifact} file on {backend}")
        with open_bundle(bundle, backend, device="cpu") as runner:
            verdicts += prove(runner, artifact, reference.samples, reference.allowed, _batches(graph.plan.target))
    return verdicts


def report_of(verdicts: Sequence[Verdict], reference: Reference, settings: ExportSettings, static: Any) -> ParityReport:
    """All verdicts as a report. Raises ParityMissed, which tells of the first layer of `static` that differs."""
    report = ParityReport(settings.tolerance, reference.noise, reference.allowed, tuple(verdicts))
    if report.passed:
        return report
    row = next(int(verdict.where["row"]) for verdict in verdicts if not verdict.passed)
    image = np.repeat(reference.samples.image[[max(row, 0)]], settings.batch or 1, axis=0)
    where = first_difference(static, reference.network, image, settings.tolerance)
    raise ParityMissed(report.misses(), report.passing_tolerance, where)


def findings(planned: Planned, static: Any, report: ParityReport) -> dict[str, Any]:
    """What the manifest says in the end, beside what was known before anything was built."""
    notes = [*planned.notes, *_noise_note(report)]
    told: dict[str, Any] = {"parity": {**report.to_json(), "layers": _layer_errors(planned, static)}}
    if planned.plan.is_lossy and planned.calibration:
        found = approximation_of(static, planned.source.network, planned.calibration)
        notes.append(found.sentence())
        told["approximation"] = found.to_json()
    return {**told, "notes": notes}


def _layer_errors(planned: Planned, static: Any) -> dict[str, float]:
    """Path of each layer that both networks have → how far eager float32 is off there, as a share of max |y|.

    Nothing of a lossy network, whose layers are not the dynamic one's, nor of one frozen to a large batch.
    """
    batch = planned.plan.target.batch or TRACED_LEAST
    if planned.plan.is_lossy or batch > _REFERENCE_CHUNK:
        return {}
    images, _ = proof_pool(planned.source, seed=0)
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


def few(references: Samples) -> Samples:
    """The first inputs of every kind: enough to prove the bundle on another machine."""
    rows = [np.flatnonzero(references.kind == kind) for kind in np.unique(references.kind)]
    share = -(-_SAMPLES // len(rows))
    kept = np.sort(np.concatenate([found[:share] for found in rows]))
    return Samples(references.image[kept], references.logits[kept], references.kind[kept])
