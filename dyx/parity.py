"""Proof that an artifact computes what the dynamic network computes, in float64, at several batch sizes.

An artifact passes when its error is at most `max(tolerance, 4 × the float32 original's own error)`, both as a share
of max |y| over inputs of one kind: a large input must not excuse a small one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dyx.bundle import Samples
from dyx.runtime.runner import Runner

TOLERANCE = 2e-5
"""Of max |y|, unless told otherwise."""
NOISE_FACTOR = 4
"""How many times the float32 original's own error is allowed, where that is more."""
BATCHES = (1, 2, 7, 64)
"""Sizes that every free-batch artifact is proved at, beside the one asked for."""
_ZERO = 1e-30
"""Stands for max |y| where a network answers zero."""


@dataclass(frozen=True)
class Verdict:
    """How one artifact did on one backend at one batch size.

    Attributes:
        artifact: "onnx" or "paddle".
        backend: What ran it.
        batch: Batch size.
        max_abs_error: Largest |y - reference|.
        relative_error: Largest error as a share of max |y| of its kind of input.
        where: Kind of input, row and class of that error.
        excess: Largest error as a share of what its kind is allowed; the artifact is within tolerance up to 1.
        row_drift: Largest difference between a row in the batch and that row alone, as a share of max |y| of its
            kind; None where the batch is frozen to more than one row.
        cosine: Smallest cosine between a row and its reference.
        top1_agreement: Share of rows whose best class is the reference's.
        finite: Whether no NaN and no infinity came out.
        shape_ok: Whether the shape is `(batch, classes)`.
        passed: All of it.
    """

    artifact: str
    backend: str
    batch: int
    max_abs_error: float
    relative_error: float
    where: Mapping[str, str | int]
    excess: float
    row_drift: float | None
    cosine: float
    top1_agreement: float
    finite: bool
    shape_ok: bool
    passed: bool

    def sentence(self) -> str:
        """What went wrong, in words."""
        place = f"{self.artifact} on {self.backend} at batch {self.batch}"
        if not self.shape_ok:
            return f"{place} gives another shape than the dynamic network"
        if not self.finite:
            return f"{place} gives NaN or infinity"
        spot = f"{self.where['kind']} input, row {self.where['row']}, class {self.where['class']}"
        drift = "" if self.row_drift is None else f", rows alone differ by {self.row_drift:.2e}"
        return f"{place} is off by {self.relative_error:.2e} of max |y| ({spot}{drift})"


@dataclass(frozen=True)
class ParityReport:
    """Verdicts of all artifacts, and what they were held against.

    Attributes:
        tolerance: Share of max |y| that was asked for.
        noise: Kind of input → the float32 original's own error, as a share of max |y|.
        allowed: Kind of input → the share that was allowed.
        verdicts: One per artifact, backend and batch size.
    """

    tolerance: float
    noise: Mapping[str, float]
    allowed: Mapping[str, float]
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether every verdict passed."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def applied(self) -> str:
        """Which of the two limits decided."""
        raised = [kind for kind, share in self.allowed.items() if share > self.tolerance]
        if not raised:
            return f"{self.tolerance:g} of max |y|"
        return (
            f"{NOISE_FACTOR} × the float32 original's own error for {', '.join(raised)}; {self.tolerance:g} otherwise"
        )

    @property
    def passing_tolerance(self) -> float:
        """The smallest tolerance that would pass, a little rounded up."""
        worst = max((max(v.relative_error, v.row_drift or 0.0) for v in self.verdicts), default=0.0)
        return float(f"{worst * 1.1:.1e}")

    def misses(self) -> tuple[str, ...]:
        """A sentence per verdict that did not pass."""
        return tuple(verdict.sentence() for verdict in self.verdicts if not verdict.passed)

    def to_json(self) -> dict[str, Any]:
        """The form kept in `dyx.json`."""
        return {
            "passed": self.passed,
            "tolerance": self.tolerance,
            "applied": self.applied,
            "noise": dict(self.noise),
            "allowed": dict(self.allowed),
            "verdicts": [_finite(asdict(verdict)) for verdict in self.verdicts],
        }


def _finite(entry: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: such an error is written as null."""
    return {key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in entry.items()}


def noise_of(original: np.ndarray, references: Samples) -> dict[str, float]:
    """Kind of input → the float32 original's own distance from float64, as a share of max |y|."""
    error = np.abs(original.astype(np.float64) - references.logits).max(axis=1)
    scale = _scales(references)
    return {kind: float(error[references.kind == kind].max() / scale[kind]) for kind in scale}


def allowed_errors(tolerance: float, noise: Mapping[str, float]) -> dict[str, float]:
    """Kind of input → the share of max |y| that an artifact may be off."""
    return {kind: max(tolerance, NOISE_FACTOR * own) for kind, own in noise.items()}


def prove(
    runner: Runner, artifact: str, references: Samples, allowed: Mapping[str, float], batches: Sequence[int]
) -> tuple[Verdict, ...]:
    """A verdict per batch size.

    Args:
        runner: What runs the artifact.
        artifact: "onnx" or "paddle", for the record.
        references: Inputs, and the dynamic network's float64 answers.
        allowed: Kind of input → share of max |y|.
        batches: Sizes to prove; rows are also compared with the same rows alone where 1 is among them.
    """
    alone = _answers(runner, references, np.arange(len(references.image)), 1) if 1 in batches else None
    return tuple(_verdict(runner, artifact, references, allowed, batch, alone) for batch in batches)


def _verdict(
    runner: Runner,
    artifact: str,
    references: Samples,
    allowed: Mapping[str, float],
    batch: int,
    alone: np.ndarray | None,
) -> Verdict:
    rows = _arranged(len(references.image), batch)
    # One at a time they have answered already.
    got = _answers(runner, references, rows, batch) if alone is None or batch > 1 else alone
    wanted, kinds = references.logits[rows], references.kind[rows]
    if got.shape != wanted.shape:
        return _failed(artifact, runner.backend, batch, shape_ok=False)
    if not np.isfinite(got).all():
        return _failed(artifact, runner.backend, batch, finite=False)
    scale = np.array([_scales(references)[kind] for kind in kinds])
    limit = np.array([allowed[kind] for kind in kinds])
    error = np.abs(got - wanted)
    relative = error.max(axis=1) / scale
    drift = None if alone is None else np.abs(got - alone[rows]).max(axis=1) / scale
    row = int(relative.argmax())
    excess = float((relative / limit).max())
    drifted = 0.0 if drift is None else float((drift / limit).max())
    return Verdict(
        artifact=artifact,
        backend=runner.backend,
        batch=batch,
        max_abs_error=float(error.max()),
        relative_error=float(relative.max()),
        where={"kind": str(kinds[row]), "row": int(rows[row]), "class": int(error[row].argmax())},
        excess=excess,
        row_drift=None if drift is None else float(drift.max()),
        cosine=float(_cosines(got, wanted).min()),
        top1_agreement=float((got.argmax(axis=1) == wanted.argmax(axis=1)).mean()),
        finite=True,
        shape_ok=True,
        passed=excess <= 1 and drifted <= 1,
    )


def _failed(artifact: str, backend: str, batch: int, *, finite: bool = True, shape_ok: bool = True) -> Verdict:
    """A verdict where no error can be stated: infinite in every measure."""
    worst = float("inf")
    nowhere: dict[str, str | int] = {"kind": "", "row": -1, "class": -1}
    return Verdict(artifact, backend, batch, worst, worst, nowhere, worst, None, 0.0, 0.0, finite, shape_ok, False)


def _arranged(pool: int, batch: int) -> np.ndarray:
    """Row numbers that fill whole batches: every row of the pool at least once, repeated where needed."""
    whole = -(-pool // batch) * batch
    return np.resize(np.arange(pool), whole)


def _answers(runner: Runner, references: Samples, rows: np.ndarray, batch: int) -> np.ndarray:
    """The runner's logits of these rows, `batch` at a time, in float64."""
    slices = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    return np.concatenate([runner.run(references.image[chunk]) for chunk in slices]).astype(np.float64)


def _scales(references: Samples) -> dict[str, float]:
    """Kind of input → max |y|."""
    largest = np.abs(references.logits).max(axis=1)
    return {str(kind): max(float(largest[references.kind == kind].max()), _ZERO) for kind in np.unique(references.kind)}


def _cosines(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Between rows; 1 where both are zero."""
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1)
    same = (got == wanted).all(axis=1)
    return np.where(same, 1.0, (got * wanted).sum(axis=1) / np.maximum(lengths, _ZERO))
