"""What OpenVINO gains where it knows the batch size: models as dyx's runner compiles them, beside one for all sizes.

    python benchmarks/known_batch.py [--model NAME …] [--batch 1 8] [--seconds 6]

Both open the same bundle, planned for OpenVINO, and take turns, each in a process of its own; the second is opened with
OpenVINO's defaults. On a CPU that has bfloat16 it would compute with that, so there this says nothing. Writes
openvino-<model>-cpu-<batch>.json.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from zoo import add_out, bundle_planned_for, tell_on_stdout

from dyx.bench import bench, bundle_contender
from dyx.bench.report import tabulate
from dyx.console import stdout

BACKEND = "openvino"
NETWORKS = {
    "alexnet-dy": (1, 8, 64),
    "dy4x-resnet18": (1, 8),
    "dy4x-mobilenetv2-100": (1, 8, 32),
    "dy4x-mobilenetv3-small": (1, 8),
}
"""Networks of the table in docs/speed.md, and the batch sizes that each is measured at."""


def measure(name: str, batch: int, seconds: float, out: Path) -> None:
    """Let both take turns, write and print."""
    ours = bundle_contender(bundle_planned_for(BACKEND, name), BACKEND, device="cpu", name=name)
    arguments = {**ours.arguments, "tuned": False}
    theirs = replace(ours, name=f"{name} (one model for all sizes)", arguments=arguments, baseline=True)
    found = bench([ours, theirs], batch=batch, seconds=seconds, progress=tell_on_stdout())
    found.save(out / f"{BACKEND}-{name}-cpu-{batch}.json")
    stdout().print(tabulate(found))


def main() -> None:
    """Every network at every batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="*", default=list(NETWORKS), help="of the zoo")
    parser.add_argument("--batch", type=int, nargs="*", help="images per call; by default as docs/speed.md has it")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each side is measured at the least")
    add_out(parser)
    asked = parser.parse_args()
    for name in asked.model:
        for batch in asked.batch or NETWORKS.get(name, (1, 8)):
            measure(name, batch, asked.seconds, asked.out)


if __name__ == "__main__":
    main()
