"""`--tune`: candidates measured on this machine, and the graphs of the bundle chosen from what was seen.

At each batch size first, for every strategy, the plan that uses it wherever it can; from their profiles then the plan
that takes at every layer the rule that was fastest there. The best of them and what prices chose take turns at every
batch size. A candidate counts as faster only where its windows agree and the interval of the ratio excludes 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dyx.environment import environment
from dyx.errors import BenchFailed
from dyx.exporter.candidates import (
    Candidate,
    LayerTimes,
    add,
    by_strategy,
    layer_by_layer,
    layer_times,
    priced,
    worth_measuring,
)
from dyx.exporter.choice import Choice, choose, crossover, fastest_piece, piece_sizes
from dyx.exporter.converter import Converter
from dyx.exporter.graphs import MOST_GRAPHS, PlannedGraph, named_graphs, usual_chunk
from dyx.exporter.plan import Decision, Plan
from dyx.exporter.planned import Planned
from dyx.exporter.settings import ExportSettings
from dyx.exporter.trial import Speed, Workbench, speeds
from dyx.progress import Progress

PIECES_FROM = 64
"""Smaller batches are taken whole: they stay in caches as they are."""


def tuned(
    planned: Planned, settings: ExportSettings, folder: Path, converter: Converter, progress: Progress
) -> Planned:
    """The same network with the graphs that measured fastest, and what was measured.

    Args:
        planned: As prices chose.
        settings: Of the export.
        folder: Where candidates may lie while they are measured.
        converter: Of their programs.
        progress: Called with each step's name.

    Raises:
        BenchFailed: No batch size could be measured.
        As `make_plan`, `apply_plan` and the converters.
    """
    with TemporaryDirectory(prefix="tune-", dir=folder) as scratch:
        tuning = _Tuning(planned, settings, Workbench(planned, settings, Path(scratch), converter, progress))
        graphs = tuning.graphs()
    return replace(planned, graphs=graphs, tuning=tuning.to_json())


class _Tuning:
    """One tuning, and what it saw."""

    def __init__(self, planned: Planned, settings: ExportSettings, bench: Workbench) -> None:
        self._planned, self._settings, self._bench = planned, settings, bench
        self._batches = settings.tune_batches(planned.source.tune_batch)
        self._candidates = list(priced(planned))
        self._layers: dict[int, LayerTimes] = {}
        self._tried: dict[int, dict[str, Speed]] = {}
        self._speeds: dict[int, dict[str, Speed]] = {}
        self._crossover: dict[str, dict[int, Speed]] = {}
        self._chunks: dict[int | None, Speed] = {}
        self._chosen: list[dict[str, Any]] = []
        self._failed: dict[int, str] = {}

    def graphs(self) -> tuple[PlannedGraph, ...]:
        """Measure, and choose the graphs of the bundle."""
        for batch in self._batches:
            self._unless_it_fails(batch, self._try)
        finalists = self._finalists()
        for batch in self._measured():
            self._unless_it_fails(batch, lambda batch: self._compare(finalists, batch))
        gains = {batch: {name: one.gain for name, one in seen.items()} for batch, seen in self._speeds.items()}
        single = self._settings.one_graph or self._settings.batch is not None
        return self._graphs_of(choose(gains, 1 if single else MOST_GRAPHS))

    def _measured(self) -> list[int]:
        return [batch for batch in self._batches if batch not in self._failed]

    def _unless_it_fails(self, batch: int, measure: Callable[[int], None]) -> None:
        """Measure a batch size; one that does not fit into memory says nothing about the others."""
        try:
            measure(batch)
        except BenchFailed as failed:
            self._failed[batch] = str(failed)
            if not self._measured():
                raise

    def _try(self, batch: int) -> None:
        """Measure and profile the candidates of a batch size, and what prices chose."""
        taking_part = self._taking_part(by_strategy(self._planned, batch, self._settings.fold), batch)
        self._know(taking_part)
        seen = self._bench.compare(taking_part, batch, self._priced_for(batch))
        self._layers[batch] = layer_times(self._bench.profile(seen, taking_part), self._planned)
        self._tried[batch] = speeds(seen)

    def _compare(self, candidates: Sequence[Candidate], batch: int) -> None:
        """Let candidates of all batch sizes take turns at one."""
        taking_part = self._taking_part(candidates, batch)
        self._speeds[batch] = speeds(self._bench.compare(taking_part, batch, self._priced_for(batch)))

    def _taking_part(self, candidates: Sequence[Candidate], batch: int) -> list[Candidate]:
        """Those that are worth measuring, behind what prices chose for this batch size and for the largest."""
        found = [self._priced_for(batch)]
        for one in (priced(self._planned)[-1], *worth_measuring(candidates, self._planned, batch)):
            add(found, one)
        return found

    def _priced_for(self, batch: int) -> Candidate:
        """What answers such a batch where nothing is measured."""
        graphs = self._planned.graphs
        fitting = [place for place, graph in enumerate(graphs) if graph.graph.from_batch <= batch]
        return priced(self._planned)[max(fitting, default=0)]

    def _finalists(self) -> list[Candidate]:
        """What prices chose, the fastest candidate of each batch size, and the plans made layer by layer."""
        found = list(priced(self._planned))
        named = {one.name: one for one in self._candidates}
        for batch in self._measured():
            add(found, named[max(self._tried[batch], key=lambda name: self._tried[batch][name].gain)])
        for batch in self._measured():
            add(found, layer_by_layer(self._planned, batch, self._settings.fold, self._layers[batch]))
        self._know(found)
        return found

    def _know(self, candidates: Sequence[Candidate]) -> None:
        known = {one.name for one in self._candidates}
        self._candidates += [one for one in candidates if one.name not in known]

    def _graphs_of(self, choice: Choice) -> tuple[PlannedGraph, ...]:
        named = {one.name: one for one in self._candidates}
        chosen = [named[name] for name in choice.names]
        pairs = zip(pairwise(chosen), choice.last, strict=True)
        starts = [1, *(self._measured_crossover(*pair, last) for pair, last in pairs)]
        chunk = self._measured_chunk(chosen[-1], starts[-1])
        plans = [self._explained(one.plan, self._last_of(choice, one.name)) for one in chosen]
        graphs = named_graphs(plans, starts, chunk)
        self._chosen = [
            {**asdict(graph.graph), "candidate": name} for graph, name in zip(graphs, choice.names, strict=True)
        ]
        return graphs

    def _last_of(self, choice: Choice, name: str) -> int:
        """The largest of the measured batch sizes that a candidate was chosen for."""
        return max(batch for batch in self._measured() if choice.at(batch) == name)

    def _measured_crossover(self, smaller: Candidate, larger: Candidate, last: int) -> int:
        def is_larger_faster(batch: int) -> bool:
            seen = speeds(self._bench.compare([smaller, larger], batch, smaller))[larger.name]
            self._crossover.setdefault(larger.name, {})[batch] = seen
            return seen.ratio >= 1

        return crossover(last, min(batch for batch in self._measured() if batch > last), is_larger_faster)

    def _measured_chunk(self, main: Candidate, start: int) -> int | None:
        """How many images at a time of the largest batch."""
        largest, usual = self._measured()[-1], usual_chunk(main.plan)
        usual = usual and max(usual, start)
        if self._settings.batch is not None or largest <= PIECES_FROM:
            return usual
        sizes = piece_sizes(largest, usual, start)
        self._chunks = _by_chunk(sizes, speeds(self._bench.compare_pieces(main, sizes, largest)))
        return fastest_piece({size: speed.gain for size, speed in self._chunks.items()}, usual)

    def _explained(self, plan: Plan, batch: int) -> Plan:
        """The plan, whose reasons are measured times where there are any."""
        times = self._layers[batch]
        return replace(plan, decisions=tuple(_with_times(found, times, batch) for found in plan.decisions))

    def to_json(self) -> dict[str, Any]:
        """What the manifest tells of a tuning."""
        machine = {key: value for key, value in environment().items() if key != "command"}
        return {
            "backend": self._bench.backend,
            "device": "cpu",
            "batches": list(self._batches),
            "seconds": self._bench.seconds,
            "candidates": {one.name: one.rules for one in self._candidates},
            "tried": {str(batch): _told(seen) for batch, seen in self._tried.items()},
            "speeds": {str(batch): _told(seen) for batch, seen in self._speeds.items()},
            "layers": {str(batch): times for batch, times in self._layers.items()},
            "crossover": {
                name: {str(batch): speed.to_json() for batch, speed in seen.items()}
                for name, seen in self._crossover.items()
            },
            "chunks": {str(size or "whole"): speed.to_json() for size, speed in self._chunks.items()},
            "failed": {str(batch): why for batch, why in self._failed.items()},
            "chosen": self._chosen,
            "environment": machine,
        }


def _by_chunk(sizes: Sequence[int | None], seen: Mapping[str, Speed]) -> dict[int | None, Speed]:
    return {size: seen[str(size)] for size in sizes}


def _told(seen: Mapping[str, Speed]) -> dict[str, Any]:
    return {name: speed.to_json() for name, speed in seen.items()}


def _with_times(decision: Decision, times: LayerTimes, batch: int) -> Decision:
    seen = times.get(decision.site.path, {})
    if decision.rule not in seen:
        return decision
    own = seen[decision.rule] * 1e6
    told = {
        rule: f"measured {seconds * 1e6:.0f} µs per image against {own:.0f} at batch {batch}"
        for rule, seconds in seen.items()
        if rule != decision.rule
    }
    return replace(decision, passed_over={**decision.passed_over, **told})
