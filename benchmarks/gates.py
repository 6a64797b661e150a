"""AlexNet with ECA and with NA against plain AlexNet: what an exact gate costs, on every backend.

    python benchmarks/gates.py [--batch 64 512] [--seconds 12]

Writes benchmarks/results/gates-cpu-<batch>.json. Bundles are those of zoo.py.
"""

from __future__ import annotations

import argparse

from zoo import RESULTS, bundle_of, plain_bundle_of, tell_on_stdout

from dyx.bench import bench, bundle_contender
from dyx.bench.report import tabulate
from dyx.console import stdout
from dyx.runtime import BACKENDS

BASELINE = "alexnet"
NETWORKS = ("alexnet-na", "alexnet-eca", "alexnet-nanet")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="*", default=[64, 512])
    parser.add_argument("--seconds", type=float, default=12.0)
    options = parser.parse_args()
    contenders = [
        bundle_contender(bundle, backend, device="cpu", baseline=bundle.model == BASELINE)
        for backend in BACKENDS.names
        for bundle in (plain_bundle_of(BASELINE), *map(bundle_of, NETWORKS))
    ]
    for batch in options.batch:
        found = bench(contenders, batch=batch, seconds=options.seconds, progress=tell_on_stdout())
        found.save(RESULTS / f"gates-cpu-{batch}.json")
        stdout().print(tabulate(found))


if __name__ == "__main__":
    main()
