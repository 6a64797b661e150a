"""The export, one line per step: load, trace, plan, fold, convert, prove, write."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import pairwise
from typing import Any

from dyx.bundle import ONNX_MODEL, STEM, Bundle, read_bundle, write_manifest, write_samples
from dyx.exporter.apply import apply_plan
from dyx.exporter.converter import Converter
from dyx.exporter.draft import convert, draft_of
from dyx.exporter.graphs import PlannedGraph
from dyx.exporter.planned import Planned, checked, make_planned
from dyx.exporter.proof import Reference, check_promises, few, findings, prove_graph, reference_of, report_of
from dyx.exporter.settings import ExportSettings
from dyx.exporter.sharing import share_weights
from dyx.exporter.tune import tuned
from dyx.folder import written_whole
from dyx.parity import Verdict
from dyx.progress import Progress, silent


def export(model: str = "alexnet-dy", *, progress: Progress = silent, **settings: Any) -> Bundle:
    """Write the proven bundle of a network, whole or not at all. Also `dyx export`.

    Eager Paddle computes on all cores in this process from then on; see `use_whole_cpu`.

    Args:
        model: A name of `dyx models`, `file.py:Class` or `package.module:callable`.
        progress: Called with each step's name.
        settings: See ExportSettings.

    Raises:
        UsageError, CheckpointError, ModelUnusable, LayerUnreadable, FoldRefused, FoldDiffers, ConversionFailed,
        ParityMissed, BenchFailed, OutputUnwritable, PackageMissing. Whatever stood at the output before still does.
    """
    chosen = checked(settings)
    chosen.check_formats()
    folder = chosen.folder(model)
    chosen.check_folder(folder)
    planned = make_planned(model, chosen, progress)
    with written_whole(folder, replace=chosen.force) as staging, Converter() as converter:
        if "onnx" in chosen.formats:
            converter.start()
        if chosen.tune:
            planned = tuned(planned, chosen, staging, converter, progress)
        draft = draft_of(staging, planned, planned.graphs, chosen)
        progress(_found(planned))
        static = apply_plan(planned.plan, planned.network, planned.trace.inputs)
        progress("computing the float64 reference")
        reference = reference_of(planned, static, chosen)
        static = (copy.deepcopy(static) if static is reference.network else static).to(dtype="float32")
        convert(static, draft, chosen, converter, progress)
        for graph, larger in pairwise(planned.graphs):
            progress(f"folding once more, for batches below {larger.graph.from_batch}")
            other = apply_plan(graph.plan, planned.network, planned.trace.inputs).to(dtype="float32")
            convert(other, draft.of_graph(graph.graph), chosen, converter, progress)
        converter.close()
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


def _proved(
    draft: Bundle, graph: PlannedGraph, reference: Reference, settings: ExportSettings, progress: Progress
) -> list[Verdict]:
    """What the files of one graph hold and compute. Raises ConversionFailed."""
    one = draft.of_graph(graph.graph)
    if one.stem != STEM and "onnx" in settings.formats:
        share_weights(one.file(ONNX_MODEL), draft.file(ONNX_MODEL))
    check_promises(one, graph.plan)
    return prove_graph(one, graph, reference, settings, progress)
