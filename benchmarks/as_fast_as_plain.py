"""AlexNet with dynamic convolutions against plain AlexNet: an exact dynamic network beside the one that is none.

    python benchmarks/as_fast_as_plain.py [--batch 1 8 64 512] [--seconds 6]

Each backend runs the bundle that is planned for it. The baseline is alexnet-bn as one gets it without dyx; a second row
is alexnet-bn as dyx exports it for that backend, its convolutions rewritten too. Beside them stand the network in eager
Paddle, at 8 and 64 its batch-frozen export, and a matrix product as the machine's limit. Writes
alexnet-dy-cpu-<batch>.json.
"""

from __future__ import annotations

import argparse

from zoo import add_out, bundle_of, bundle_planned_for, plain_bundle_of, planned_for_its_backend, tell_on_stdout

from dyx.bench import Contender, bench, bundle_contender
from dyx.bench.contender import OPEN_BUNDLE
from dyx.bench.report import tabulate
from dyx.console import stdout
from dyx.lineup import FROZEN, Lineup, Where, line_up, peers
from dyx.runtime import BACKENDS

NETWORK, BASELINE = "alexnet-dy", "alexnet-bn"
FROZEN_AT = (8, 64)
"""Batches at which the batch-frozen export takes part; it is slow at large ones."""


def contenders(batch: int) -> tuple[Contender, ...]:
    """Who takes part at a batch size."""
    where = Where(device="cpu")
    lineup = line_up([bundle_of(NETWORK).path], str(plain_bundle_of(BASELINE).path), where, print)
    meant = [planned_for_its_backend(one) for one in lineup.contenders]
    meant += [
        bundle_contender(bundle_planned_for(backend, BASELINE), backend, device="cpu", name=f"{BASELINE} (rewritten)")
        for backend in BACKENDS.names
    ]
    known = {(one.name, one.backend) for one in meant}
    found = peers(Lineup(tuple(meant), ()), where, batch, print)
    return tuple(one for one in found.contenders if _takes_part(one, batch, known))


def _takes_part(one: Contender, batch: int, known: set[tuple[str, str]]) -> bool:
    """Whether it is one of the networks as they are meant, a frozen one where that is asked for, or the limit."""
    if (one.name, one.backend) in known or one.opener != OPEN_BUNDLE:
        return True
    return batch in FROZEN_AT and FROZEN in one.name


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8, 64, 512])
    parser.add_argument("--seconds", type=float, default=6.0)
    add_out(parser)
    options = parser.parse_args()
    for batch in options.batch:
        found = bench(contenders(batch), batch=batch, seconds=options.seconds, progress=tell_on_stdout())
        found.save(options.out / f"{NETWORK}-cpu-{batch}.json")
        stdout().print(tabulate(found))


if __name__ == "__main__":
    main()
