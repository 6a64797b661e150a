"""What prices choose for a backend beside what `--tune` chooses there: a planner that is any good is within 10 % of it.

    python benchmarks/auto_beside_tuned.py [--only NAME …] [--batch 1 8] [--backend onnxruntime]

Where every layer has one exact fold alone, nothing is tuned. Otherwise what tuning measured goes to
benchmarks/results/tuned/<model>-<backend>.json, and there under "same_graphs" whether it kept the graphs that prices
chose: then both bundles hold the same files, and there is nothing to compare. If not, both take turns at each batch
size, in processes of their own, and all samples go to benchmarks/results/tuned/<model>-<backend>-<batch>.json. Bundles
go to bundles/zoo and bundles/tuned and are kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from zoo import RESULTS, bundle_planned_for, tell_on_stdout

import dyx
from dyx.bench import bench, bundle_contender
from dyx.bench.report import tabulate
from dyx.bundle import MANIFEST, Bundle, read_bundle
from dyx.console import stdout
from dyx.exporter.candidates import add, by_strategy, priced
from dyx.exporter.planned import Planned, plan
from dyx.exporter.tune import PIECES_FROM
from dyx.runtime import BACKEND_FORMATS
from dyx.zoo import MODELS, find_model

TUNED = Path("bundles/tuned")
RECORDS = RESULTS / "tuned"
DYNAMIC = [model.name for model in MODELS if model.baseline]


def batches_of(name: str) -> tuple[int, ...]:
    """Where a network is compared, unless told otherwise."""
    return (1, 64, 512) if find_model(name).data.tune_batch > 8 else (1, 8)


def tuned_bundle_of(name: str, backend: str, batches: tuple[int, ...]) -> Bundle:
    """The bundle of a network with seeded weights, tuned on this machine where it is not there yet."""
    folder = TUNED / f"{name}-{backend}"
    if (folder / MANIFEST).is_file():
        return read_bundle(folder)
    formats = (BACKEND_FORMATS[backend],)
    options = {"tune": True, "tune_batch": batches, "tune_backend": backend, "formats": formats}
    return dyx.export(name, out=folder, progress=lambda step: print(f"{name}: {step}", flush=True), **options)


def nothing_to_choose(planned: Planned, batches: tuple[int, ...]) -> dict[str, Any] | None:
    """The record of a network with one plan alone, whose batches are not cut in pieces; None of any other."""
    found = list(priced(planned))
    for batch in batches:
        for one in by_strategy(planned, batch, ()):
            add(found, one)
    if len(found) > 1 or max(batches) > PIECES_FROM:
        return None
    return {"batches": batches, "candidates": {one.name: one.rules for one in found}}


def graphs_of(told: list[dict[str, Any]]) -> list[Any]:
    """What files depend on: of every graph its name, batches and pieces, and what folds each of its sites."""
    return [
        [graph["stem"], graph["from_batch"], graph["chunk"]]
        + [[site["path"], site["rule"], site["form"]] for site in graph["plan"]["sites"]]
        for graph in told
    ]


def is_as_priced(planned: Planned, tuned: Bundle) -> bool:
    """Whether tuning kept the graphs that prices choose."""
    return graphs_of([graph.to_json() for graph in planned.graphs]) == graphs_of(tuned.manifest["graphs"])


def compare(name: str, tuned: Bundle, backend: str, batch: int, seconds: float) -> None:
    """Let both bundles take turns, and write that down."""
    sides = [
        bundle_contender(bundle_planned_for(backend, name), backend, device="cpu", name=f"{name} (priced)"),
        bundle_contender(tuned, backend, device="cpu", name=f"{name} (tuned)", baseline=True),
    ]
    found = bench(sides, batch=batch, seconds=seconds, progress=tell_on_stdout())
    found.save(RECORDS / f"{name}-{backend}-{batch}.json")
    stdout().print(tabulate(found))


def main() -> None:
    """Tune, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=DYNAMIC)
    parser.add_argument("--batch", type=int, nargs="*", help="by default 1, 64 and 512, or 1 and 8 at 224 pixels")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    RECORDS.mkdir(exist_ok=True)
    for name in options.only:
        batches = tuple(options.batch or batches_of(name))
        planned = plan(name, tune_backend=options.backend)
        seen, same = nothing_to_choose(planned, batches), True
        if seen is None:
            tuned = tuned_bundle_of(name, options.backend, batches)
            seen, same = tuned.manifest["tuning"], is_as_priced(planned, tuned)
        record = {"model": name, "backend": options.backend, "same_graphs": same, **seen}
        (RECORDS / f"{name}-{options.backend}.json").write_text(json.dumps(record, indent=1) + "\n")
        kept = "the priced graphs" if same else "others"
        print(f"{name}: {len(record['candidates'])} plans, {kept} kept", flush=True)
        for batch in () if same else batches:
            compare(name, tuned, options.backend, batch, options.seconds)


if __name__ == "__main__":
    main()
