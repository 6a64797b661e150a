"""Candidates as bundles in a scratch folder, measured on this machine in turns."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dyx.bench import Comparison, Row, bench, bundle_contender
from dyx.bench.breakdown import broken_down
from dyx.bench.profile import profiled
from dyx.bundle import Bundle, Graph, read_bundle, write_manifest
from dyx.exporter.apply import apply_plan
from dyx.exporter.candidates import Candidate, Profiled
from dyx.exporter.converter import Converter
from dyx.exporter.draft import convert, draft_of
from dyx.exporter.graphs import PlannedGraph, usual_chunk
from dyx.exporter.planned import Planned
from dyx.exporter.settings import ExportSettings
from dyx.progress import Progress, silent
from dyx.runtime import BACKEND_FORMATS
from dyx.runtime.profile import Profile

SECONDS = 1.0
"""How long each side is measured at the least, by a workbench made from now on."""


@dataclass(frozen=True)
class Speed:
    """What was measured of one side.

    Attributes:
        images_per_s: In turns with the others.
        ratio: Its speed over that of the side it is compared with; 1 for that side itself.
        low: Lower end of the ratio's 95 % interval; None where there were too few turns.
        high: Its upper end.
        stable: Whether windows agree.
    """

    images_per_s: float
    ratio: float = 1.0
    low: float | None = None
    high: float | None = None
    stable: bool = True

    @property
    def gain(self) -> float:
        """The ratio where it is stable and its interval excludes 1; no better than 1 where it is not."""
        if self.low is None or self.high is None or not self.stable:
            return min(self.ratio, 1.0)
        return self.ratio if self.low > 1 or self.high < 1 else 1.0

    def to_json(self) -> dict[str, Any]:
        """The form kept in `dyx.json`."""
        return asdict(self)


class Workbench:
    """Builds what is to be measured, each once, and measures it.

    Args:
        planned: The network.
        settings: Of the export; the backend to measure on is its `tune_backend`.
        scratch: A folder for bundles, which the caller removes.
        converter: Of their programs.
        progress: Called with each step's name.
    """

    def __init__(
        self, planned: Planned, settings: ExportSettings, scratch: Path, converter: Converter, progress: Progress
    ) -> None:
        self.backend, self.seconds, self._progress = settings.tune_backend, SECONDS, progress
        # Only the format that is run; candidates are not proved, what is chosen of them is.
        self._settings = replace(settings, formats=(BACKEND_FORMATS[self.backend],))
        self._planned, self._scratch, self._converter = planned, scratch, converter
        self._built: dict[str, Bundle] = {}

    def compare(self, candidates: Sequence[Candidate], batch: int, against: Candidate) -> Comparison:
        """Candidates beside one of them, all in turns."""
        sides = {one.name: self._bundle(one) for one in candidates}
        self._progress(f"measuring {len(sides)} candidates at batch {batch}")
        return self._in_turns(sides, batch, against.name)

    def profile(self, comparison: Comparison, candidates: Sequence[Candidate]) -> list[Profiled]:
        """Where the time went of calls of the candidates that took part in a comparison."""
        self._progress(f"profiling them at batch {comparison.settings.batch}")
        known = {one.name: one for one in candidates}
        return [
            self._profiled(known[seen.contender.name], seen.profile, comparison.settings.batch)
            for seen in _completed(profiled(comparison)).measurements
            if seen.profile is not None and seen.profile.nodes
        ]

    def _profiled(self, candidate: Candidate, profile: Profile, batch: int) -> Profiled:
        """What profiled is one piece of a batch."""
        chunk = self._bundle(candidate).graphs[-1].chunk
        return Profiled(candidate, broken_down(profile), min(batch, chunk or batch))

    def compare_pieces(self, candidate: Candidate, chunks: Sequence[int | None], batch: int) -> Comparison:
        """A large batch so many images at a time, beside the first of these numbers; None takes it whole."""
        sides = {str(chunk): self._in_pieces(candidate, chunk) for chunk in chunks}
        self._progress(f"measuring {len(sides)} sizes of pieces at batch {batch}")
        return self._in_turns(sides, batch, str(chunks[0]))

    def _in_turns(self, sides: Mapping[str, Bundle], batch: int, against: str) -> Comparison:
        contenders = [
            bundle_contender(bundle, self.backend, device="cpu", name=name, baseline=name == against)
            for name, bundle in sides.items()
        ]
        return _completed(bench(contenders, batch=batch, seconds=self.seconds))

    def _bundle(self, candidate: Candidate) -> Bundle:
        """The candidate's bundle, built when it is first asked for."""
        if candidate.name not in self._built:
            self._progress(f"building a candidate: {candidate.name}")
            folder = self._scratch / str(len(self._built))
            folder.mkdir(parents=True)
            planned = self._planned
            graph = PlannedGraph(Graph(chunk=usual_chunk(candidate.plan)), candidate.plan)
            draft = draft_of(folder, planned, [graph], self._settings)
            static = apply_plan(candidate.plan, planned.network, planned.trace.inputs).to(dtype="float32")
            convert(static, draft, self._settings, self._converter, silent)
            write_manifest(folder, {**draft.manifest, "parity": {}})
            self._built[candidate.name] = read_bundle(folder, verify=False)
        return self._built[candidate.name]

    def _in_pieces(self, candidate: Candidate, chunk: int | None) -> Bundle:
        """The candidate's bundle with another number of images at a time: the same files by another manifest."""
        bundle = self._bundle(candidate)
        folder = bundle.path.with_name(f"{bundle.path.name}-{chunk}")
        folder.mkdir()
        for name in bundle.manifest["files"]:
            os.link(bundle.path / name, folder / name)
        (graph,) = bundle.manifest["graphs"]
        write_manifest(folder, {**bundle.manifest, "graphs": [{**graph, "chunk": chunk}]})
        return read_bundle(folder, verify=False)


def speeds(comparison: Comparison) -> dict[str, Speed]:
    """Name of each side → what was measured of it."""
    return {row.name: _speed(row) for row in comparison.rows}


def _speed(row: Row) -> Speed:
    if row.ratio is None:
        return Speed(row.images_per_s, stable=row.stable is True)
    return Speed(row.images_per_s, row.ratio.value, row.ratio.low, row.ratio.high, row.stable is True)


def _completed(comparison: Comparison) -> Comparison:
    """A comparison that nobody interrupted; half a measurement chooses nothing."""
    if comparison.interrupted:
        raise KeyboardInterrupt
    return comparison
