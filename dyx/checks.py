"""Checking a bundle on any machine: hashes, operator census, parity from its own samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyx.bundle import Bundle, read_bundle
from dyx.census import broken_promises, take_census
from dyx.errors import PackageMissing
from dyx.parity import BATCHES, ParityReport, Verdict, allowed_errors, prove
from dyx.progress import Progress, silent
from dyx.runtime import BACKEND_FORMATS, BACKENDS, open_bundle, require_backend, usable_backends


@dataclass(frozen=True)
class CheckReport:
    """What a check saw.

    Attributes:
        bundle: What was checked; its hashes agreed.
        faults: Promises that a graph breaks, in words.
        parity: Verdicts against the samples.
        skipped: Backend → why it was not tried.
    """

    bundle: Bundle
    faults: tuple[str, ...]
    parity: ParityReport
    skipped: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether every part passed."""
        return not self.faults and self.parity.passed

    def to_json(self) -> dict[str, Any]:
        """As `dyx check --json` prints it."""
        return {
            "bundle": str(self.bundle.path),
            "passed": self.passed,
            "files": dict(self.bundle.manifest["files"]),
            "faults": list(self.faults),
            "parity": self.parity.to_json(),
            "skipped": self.skipped,
        }


def check(
    bundle: Bundle | Path | str,
    *,
    backends: Sequence[str] = (),
    batches: Sequence[int] = BATCHES,
    progress: Progress = silent,
) -> CheckReport:
    """Check a bundle with every installed backend, or with those named.

    Args:
        bundle: A bundle or its folder.
        backends: Names; one that is not installed is an error. All that are installed by default.
        batches: Sizes that a free-batch bundle is proved at.
        progress: Called with each step's name.

    Raises:
        BundleMissing, BundleAltered, UnknownName, PackageMissing. A parity miss is no error here but in the report.
    """
    for backend in backends:
        require_backend(backend)
    progress("comparing hashes")
    opened = bundle if isinstance(bundle, Bundle) else read_bundle(bundle, verify=False)
    opened.verify()
    chosen = tuple(backends) or usable_backends(opened)
    if not chosen:
        raise PackageMissing("no backend that reads this bundle", "onnx")
    progress("taking the operator census")
    faults = _faults(opened)
    parity = _parity(opened, chosen, batches, progress)
    skipped = {name: _why_not(name, opened) for name in BACKENDS.names if name not in chosen}
    return CheckReport(opened, faults, parity, skipped)


def _faults(bundle: Bundle) -> tuple[str, ...]:
    plan = bundle.manifest["plan"]
    plans = [bundle.of_graph(graph).manifest["plan"] for graph in bundle.graphs]
    computed = any(site["computed_kernel"] for one in plans for site in one["sites"])
    return tuple(
        fault
        for census in take_census(bundle)
        for fault in broken_promises(census, plan["batch"], computed_kernels=computed)
    )


def _parity(bundle: Bundle, backends: Sequence[str], batches: Sequence[int], progress: Progress) -> ParityReport:
    stored = bundle.manifest["parity"]
    samples = bundle.samples()
    allowed = allowed_errors(stored["tolerance"], stored["noise"])
    size = bundle.input.frozen_batch
    sizes = batches if size is None else (size,)
    verdicts: list[Verdict] = []
    for backend in backends:
        progress(f"proving on {backend}")
        for graph in bundle.graphs:
            with open_bundle(bundle.of_graph(graph), backend, device="cpu") as runner:
                verdicts += prove(runner, graph.artifact(BACKEND_FORMATS[backend]), samples, allowed, sizes)
    return ParityReport(stored["tolerance"], stored["noise"], allowed, tuple(verdicts))


def _why_not(backend: str, bundle: Bundle) -> str:
    if BACKEND_FORMATS[backend] not in bundle.formats:
        return f"the bundle holds no {BACKEND_FORMATS[backend]} file"
    return "not asked for" if backend in usable_backends(bundle) else "not installed"
