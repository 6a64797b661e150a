"""What folding is worth: a dynamic network as dyx exports it, beside the export that a user gets without dyx.

Without dyx, `paddle.jit.save` of the dynamic network needs a fixed batch: the batch moves into the channels, and every
dynamic layer becomes one convolution with groups · batch groups and a kernel that is computed. paddle2onnx turns that
into ONNX. Each backend runs the bundle that is planned for it. Both exports get the same weights; they are timed taking
turns, each in a process of its own.

    python benchmarks/against_frozen.py [--model NAME …] [--batch 8 32] [--backend NAME …] [--out FOLDER]

Writes <model>-cpu-<batch>.json: samples and figures, how far both answers are apart, and how large their
files are, those of the bundle for the first backend.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from zoo import BUNDLES, add_out, bundle_planned_for

from dyx.bench import bench, bundle_contender, tabulate
from dyx.bundle import FORMAT_FILES, Bundle
from dyx.console import stdout
from dyx.exporter.frozen import export_frozen
from dyx.inputs import input_pool
from dyx.runtime import BACKENDS, open_bundle

NETWORKS = {
    "kw1x-resnet18": (8, 32),
    "dy4x-resnet18": (8, 32),
    "odconv4x-resnet18": (8, 32),
    "dy4x-mobilenetv2-100": (8, 32),
    "odconv4x-mobilenetv2-100": (8, 32),
    "kw1x-mobilenetv2-100": (8,),
    "condconv8x-mobilenetv2-100": (8,),
    "dy4x-mobilenetv3-small": (8,),
}
"""Networks of the README's table, and the batch sizes that each is measured at."""


def apart(one: Bundle, other: Bundle, backend: str, images: np.ndarray) -> float:
    """How far the answers of two bundles are apart, as a share of the largest.

    Both are called twice, with the images in another order: a runtime may keep the kernels of a first call.
    """
    answers = []
    for bundle in (one, other):
        with open_bundle(bundle, backend, device="cpu") as runner:
            answers.append(np.stack([runner.run(images), runner.run(images[::-1])]))
    return float(np.abs(answers[0] - answers[1]).max() / np.abs(answers[0]).max())


def sizes(bundle: Bundle) -> dict[str, int]:
    """Bytes of each file with weights."""
    names = [name for form in FORMAT_FILES.values() for name in form]
    return {name: bundle.file(name).stat().st_size for name in names if bundle.file(name).is_file()}


def tell(text: str, *_: Any) -> None:
    """Say what goes on."""
    print(f"· {text}", flush=True)


def measure(model: str, batch: int, backends: Sequence[str], seconds: float, out: Path) -> None:
    """Export both, compare their answers, time them, write and print."""
    ours = {backend: bundle_planned_for(backend, model) for backend in backends}
    theirs = export_frozen(model, batch, BUNDLES / f"{model}-frozen-{batch}", progress=tell)
    images = input_pool(tuple(theirs.input.shape[1:]), 0)[0][:batch]
    difference = {backend: apart(bundle, theirs, backend, images) for backend, bundle in ours.items()}
    contenders = [
        bundle_contender(bundle, backend, device="cpu", name=name, baseline=bundle is theirs)
        for backend in backends
        for bundle, name in ((ours[backend], f"{model} folded"), (theirs, f"{model} frozen"))
    ]
    comparison = bench(contenders, batch=batch, seconds=seconds)
    record = {"bytes": {"folded": sizes(ours[backends[0]]), "frozen": sizes(theirs)}, "apart": difference}
    path = out / f"{model}-cpu-{batch}.json"
    path.write_text(json.dumps({**comparison.to_json(), "against_frozen": record}) + "\n", encoding="utf-8")
    stdout().print(tabulate(comparison))
    for backend, distance in difference.items():
        print(f"{backend}: the two answer {distance:.1e} of max |y| apart")
    for name, files in record["bytes"].items():
        print(f"{name}: " + ", ".join(f"{file} {size / 1e6:.1f} MB" for file, size in files.items()))


def main() -> None:
    """Every network at every batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="*", default=list(NETWORKS), help="of the zoo")
    parser.add_argument(
        "--batch", type=int, nargs="*", help="images per call; by default as the README has it, or 8 and 32"
    )
    parser.add_argument("--backend", nargs="*", choices=BACKENDS.names, default=list(BACKENDS.names))
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each side is measured at the least")
    add_out(parser)
    asked = parser.parse_args()
    for model in asked.model:
        for batch in asked.batch or NETWORKS.get(model, (8, 32)):
            measure(model, batch, asked.backend, asked.seconds, asked.out)


if __name__ == "__main__":
    main()
