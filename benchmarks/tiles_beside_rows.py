"""Kernels of each sample in tiles, where prices choose that, beside the same kernels on gathered rows everywhere.

    python benchmarks/tiles_beside_rows.py [--model NAME …] [--batch 8] [--backend NAME …] [--seconds 5]

Both bundles of a network hold the same weights and take turns, each in a process of its own. Bundles go to bundles/zoo
and bundles/rows and are kept. Writes benchmarks/results/tiles/<model>-cpu-<batch>.json with all samples.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from zoo import RESULTS, bundle_of, tell_on_stdout

import dyx
from dyx.bench import bench, bundle_contender
from dyx.bench.report import tabulate
from dyx.bundle import MANIFEST, Bundle, read_bundle
from dyx.console import stdout
from dyx.runtime import BACKENDS

NETWORKS = {"dy4x-resnet18": "dyconv", "odconv1x-resnet18": "odconv", "odconv4x-resnet18": "odconv"}
NETWORKS |= {"kw1x-resnet18": "kw"}
"""Network → its kind of layer."""
ROWS = Path("bundles/rows")
RECORDS = RESULTS / "tiles"


def rows_bundle_of(name: str) -> Bundle:
    """The bundle of a network without tiles, exported and proven where it is not there yet."""
    folder = ROWS / name
    if (folder / MANIFEST).is_file():
        return read_bundle(folder)
    print(f"exporting {name} on rows", flush=True)
    return dyx.export(name, out=folder, fold=(f"{NETWORKS[name]}/aggregate-kernel",))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="*", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--batch", type=int, nargs="*", default=[8])
    parser.add_argument("--backend", nargs="*", choices=BACKENDS.names, default=list(BACKENDS.names))
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    RECORDS.mkdir(exist_ok=True)
    for name in options.model:
        tiles, rows = bundle_of(name), rows_bundle_of(name)
        for batch in options.batch:
            contenders = [
                bundle_contender(bundle, backend, device="cpu", name=f"{name} {how}", baseline=bundle is rows)
                for backend in options.backend
                for bundle, how in ((tiles, "in tiles"), (rows, "on rows"))
            ]
            found = bench(contenders, batch=batch, seconds=options.seconds, progress=tell_on_stdout())
            found.save(RECORDS / f"{name}-cpu-{batch}.json")
            stdout().print(tabulate(found))


if __name__ == "__main__":
    main()
