"""KernelWarehouse beside dynamic convolution of like size, both as dyx exports them for a backend: published is .55.

    python benchmarks/kw_beside_dy.py [--batch 8] [--seconds 8] [--out FOLDER]

Writes kw1x-beside-dy4x-resnet18-cpu-<batch>.json. Published: Li and Yao, ICML 2024, 178.5 images/s
for KernelWarehouse where dynamic convolution has 322.7.
"""

from __future__ import annotations

import argparse

from zoo import add_out, bundle_planned_for, tell_on_stdout

from dyx.bench import bench, bundle_contender
from dyx.bench.report import tabulate
from dyx.console import stdout
from dyx.runtime import BACKENDS

KW, DY = "kw1x-resnet18", "dy4x-resnet18"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8.0)
    add_out(parser)
    options = parser.parse_args()
    contenders = [
        bundle_contender(bundle_planned_for(backend, name), backend, device="cpu", baseline=name == DY)
        for backend in BACKENDS.names
        for name in (KW, DY)
    ]
    found = bench(contenders, batch=options.batch, seconds=options.seconds, progress=tell_on_stdout())
    found.save(options.out / f"kw1x-beside-dy4x-resnet18-cpu-{options.batch}.json")
    stdout().print(tabulate(found))


if __name__ == "__main__":
    main()
