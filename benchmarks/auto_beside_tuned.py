"""What prices choose beside what `--tune` chooses: a planner that is any good is within 10 % of it.

    python benchmarks/auto_beside_tuned.py [--only NAME …] [--batch 1 8] [--backend onnxruntime]

Both bundles of a network take turns at each batch size, in processes of their own. Bundles go to bundles/zoo and
bundles/tuned and are kept. Writes benchmarks/results/tuned/<model>-<backend>-<batch>.json, with all samples, and what
each tuning measured to benchmarks/results/tuned/<model>-<backend>.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from zoo import RESULTS, bundle_of, tell_on_stdout

import dyx
from dyx.bench import bench, bundle_contender
from dyx.bench.report import tabulate
from dyx.bundle import MANIFEST, Bundle, read_bundle
from dyx.console import stdout
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
        tuned = tuned_bundle_of(name, options.backend, batches)
        record = {"model": name, **tuned.manifest["tuning"]}
        (RECORDS / f"{name}-{options.backend}.json").write_text(json.dumps(record, indent=1) + "\n")
        for batch in batches:
            sides = [
                bundle_contender(bundle_of(name), options.backend, device="cpu", name=f"{name} (priced)"),
                bundle_contender(tuned, options.backend, device="cpu", name=f"{name} (tuned)", baseline=True),
            ]
            found = bench(sides, batch=batch, seconds=options.seconds, progress=tell_on_stdout())
            found.save(RECORDS / f"{name}-{options.backend}-{batch}.json")
            stdout().print(tabulate(found))


if __name__ == "__main__":
    main()
