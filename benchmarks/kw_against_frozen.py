"""What folding is worth: a dynamic network as dyx exports it, beside the export that a user gets without dyx.

Without dyx, `paddle.jit.save` of the dynamic network needs a fixed batch: the batch moves into the channels, and every
dynamic layer becomes one convolution with groups · batch groups and a kernel that is computed. paddle2onnx turns that
into ONNX. Both exports get the same weights; they are timed taking turns, each in a process of its own.

    python benchmarks/kw_against_frozen.py --model kw1x-resnet18 --batch 8 --out kw1x-resnet18-cpu-8.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import dyx
from dyx.bench import bench, bundle_contender, tabulate
from dyx.bundle import FORMAT_FILES, Bundle, read_bundle
from dyx.console import stdout
from dyx.exporter.frozen import export_frozen
from dyx.inputs import input_pool
from dyx.runtime import BACKENDS, open_bundle

IMAGENET = (3, 224, 224)


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="kw1x-resnet18", help="a zoo network")
    parser.add_argument("--batch", type=int, default=8, help="images per call")
    parser.add_argument("--shape", default="3,224,224", help="of one input")
    parser.add_argument("--backend", action="append", choices=BACKENDS.names, help="all by default; may be repeated")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each side is measured at the least")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"), help="where both exports go")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file with all samples and figures")
    return parser.parse_args()


def folded(asked: argparse.Namespace, shape: tuple[int, ...]) -> Bundle:
    """The export of dyx, with a free batch, made if it is not there."""
    folder = asked.bundles / asked.model
    if folder.is_dir():
        return read_bundle(folder)
    return dyx.export(asked.model, out=folder, **sized(shape), progress=tell)


def frozen(asked: argparse.Namespace, shape: tuple[int, ...]) -> Bundle:
    """The dynamic network as it stands, frozen to a batch, made if it is not there."""
    folder = asked.bundles / f"{asked.model}-frozen-{asked.batch}"
    return export_frozen(asked.model, asked.batch, folder, progress=tell, **sized(shape))


def sized(shape: tuple[int, ...]) -> dict[str, Any]:
    """The option that says another input than ImageNet's; preprocessing stays the zoo's without it."""
    return {} if shape == IMAGENET else {"shape": shape}


def apart(one: Bundle, other: Bundle, backend: str, images: np.ndarray) -> float:
    """How far the answers of two bundles are apart, as a share of the largest."""
    answers = []
    for bundle in (one, other):
        with open_bundle(bundle, backend, device="cpu") as runner:
            answers.append(runner.run(images))
    return float(np.abs(answers[0] - answers[1]).max() / np.abs(answers[0]).max())


def sizes(bundle: Bundle) -> dict[str, int]:
    """Bytes of each file with weights."""
    names = [name for form in FORMAT_FILES.values() for name in form]
    return {name: bundle.file(name).stat().st_size for name in names if bundle.file(name).is_file()}


def tell(text: str, *_: Any) -> None:
    """Say what goes on."""
    print(f"· {text}", flush=True)


def main() -> None:
    """Export both, compare their answers, time them, write and print."""
    asked = options()
    shape = tuple(int(size) for size in asked.shape.split(","))
    backends = asked.backend or BACKENDS.names
    ours, theirs = folded(asked, shape), frozen(asked, shape)
    images = input_pool(shape, 0)[0][: asked.batch]
    difference = {backend: apart(ours, theirs, backend, images) for backend in backends}
    contenders = [
        bundle_contender(bundle, backend, device="cpu", name=name, baseline=bundle is theirs)
        for backend in backends
        for bundle, name in ((ours, f"{asked.model} folded"), (theirs, f"{asked.model} frozen"))
    ]
    comparison = bench(contenders, batch=asked.batch, seconds=asked.seconds)
    record = {"bytes": {"folded": sizes(ours), "frozen": sizes(theirs)}, "apart": difference}
    asked.out.write_text(json.dumps({**comparison.to_json(), "kw_against_frozen": record}) + "\n", encoding="utf-8")
    stdout().print(tabulate(comparison))
    for backend, distance in difference.items():
        print(f"{backend}: the two answer {distance:.1e} of max |y| apart")
    for name, files in record["bytes"].items():
        print(f"{name}: " + ", ".join(f"{file} {size / 1e6:.1f} MB" for file, size in files.items()))


if __name__ == "__main__":
    main()
