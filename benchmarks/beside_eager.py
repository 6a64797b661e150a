"""alexnet-dy as dyx exports it for every backend, beside the same network in eager Paddle, all in turns.

    python benchmarks/beside_eager.py [--batch 8 64] [--seconds 6] [--mkl-as-it-comes]

Writes alexnet-dy-beside-eager-cpu-<batch>.json. On an AMD CPU dyx tells Paddle's MKL to use AVX2;
with --mkl-as-it-comes it does not, and the file's name ends in -mkl-as-it-comes.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

from zoo import add_out, bundle_of, planned_for_its_backend, tell_on_stdout

from dyx.bench import Contender, bench
from dyx.bench.report import tabulate
from dyx.console import stdout
from dyx.lineup import EAGER, Where, line_up

NETWORK = "alexnet-dy"


def contenders() -> list[Contender]:
    """The network on every backend and in eager mode, which is the baseline: one group."""
    found = line_up([bundle_of(NETWORK).path], None, Where(device="cpu"), print).contenders
    return [
        replace(planned_for_its_backend(one), group=NETWORK, baseline=one.backend == EAGER, reference=False)
        for one in found
        if one.name == NETWORK
    ]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="*", default=[8, 64])
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--mkl-as-it-comes", action="store_true")
    add_out(parser)
    options = parser.parse_args()
    mkl = "-mkl-as-it-comes" if options.mkl_as_it_comes else ""
    if mkl:
        os.environ["MKL_DEBUG_CPU_TYPE"] = ""
    for batch in options.batch:
        found = bench(contenders(), batch=batch, seconds=options.seconds, progress=tell_on_stdout())
        found.save(options.out / f"{NETWORK}-beside-eager-cpu-{batch}{mkl}.json")
        stdout().print(tabulate(found))


if __name__ == "__main__":
    main()
