"""Every reference model against its baseline, on the CPU: exports both, proves them, and lets them take turns.

    python benchmarks/zoo.py [--batch 8] [--seconds 3] [--backend onnxruntime] [--only NAME …]

Bundles go to bundles/zoo and are kept; what is there already is not exported again. Each pair is one interleaved run,
written to benchmarks/results/zoo/<model>.json; the rules that were chosen to benchmarks/results/zoo-rules.json.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dyx
from dyx.bench import Contender, bench, bundle_contender
from dyx.bench.contender import OPEN_BUNDLE
from dyx.bench.measure import Progress
from dyx.bench.report import tabulate
from dyx.bundle import MANIFEST, Bundle, read_bundle
from dyx.console import stdout
from dyx.environment import environment
from dyx.exporter.rule import Target
from dyx.zoo import MODELS, find_model

BUNDLES = Path("bundles/zoo")
RESULTS = Path(__file__).parent / "results"
RULES = RESULTS / "zoo-rules.json"
PAIRS = RESULTS / "zoo"


def has_avx512(cpu: Mapping[str, Any]) -> bool:
    """Whether a CPU, as records tell of it, has AVX-512."""
    return any(flag.startswith("avx512") for flag in cpu["flags"])


def records_here() -> Path:
    """Where records of this machine belong: those of cores without AVX-512 have a folder of their own."""
    return RESULTS if has_avx512(environment()["cpu"]) else RESULTS / "avx2"


def add_out(parser: argparse.ArgumentParser) -> None:
    """`--out`, the folder of a script's records: made at once, not missed when minutes of measuring are over."""
    parser.add_argument("--out", type=_made, default=records_here(), help="folder of the records")


def _made(folder: str) -> Path:
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    return path


def bundle_of(name: str) -> Bundle:
    """The bundle of a model with seeded weights, exported and proven where it is not there yet."""
    return _bundle(name, BUNDLES / name)


def bundle_planned_for(backend: str, name: str) -> Bundle:
    """The same as one exports it for a backend; what is planned for the first one is the bundle itself."""
    if backend == Target().backend:
        return bundle_of(name)
    return _bundle(name, BUNDLES / f"{name}-for-{backend}", tune_backend=backend)


def planned_for_its_backend(one: Contender) -> Contender:
    """A dynamic network with the bundle that is planned for the backend it runs on; any other contender as it is."""
    if one.opener != OPEN_BUNDLE or one.baseline:
        return one
    return bundle_contender(bundle_planned_for(one.backend, one.name), one.backend, device="cpu")


def plain_bundle_of(name: str) -> Bundle:
    """The same as one gets it without dyx: no convolution of its own is rewritten."""
    return _bundle(name, BUNDLES / "plain" / name, fold=("conv/direct",), one_graph=True)


def _bundle(name: str, folder: Path, **settings: Any) -> Bundle:
    if (folder / MANIFEST).is_file():
        return read_bundle(folder)
    print(f"exporting {name}", flush=True)
    return dyx.export(name, out=folder, formats=("onnx", "paddle"), **settings)


def pair(name: str, backend: str) -> list[Contender]:
    """A model and its baseline."""
    sides = [(bundle_of(name), False), (plain_bundle_of(find_model(name).baseline or name), True)]
    return [bundle_contender(bundle, backend, device="cpu", baseline=base) for bundle, base in sides]


def tell_on_stdout() -> Progress:
    """A progress that prints a line whenever another contender has its turn."""
    told: list[str] = []

    def tell(text: str, share: float) -> None:
        if text not in told[-1:]:
            told.append(text)
            print(f"{share:4.0%} {text}", flush=True)

    return tell


def record_rules(names: Sequence[str]) -> None:
    """Add to the record which rules the plans of these models chose, and how often."""
    known = json.loads(RULES.read_text()) if RULES.is_file() else {}
    for name in names:
        sites = bundle_of(name).manifest["plan"]["sites"]
        known[name] = dict(sorted(Counter(site["rule"] for site in sites).items()))
    RULES.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--only", nargs="*", default=[model.name for model in MODELS if model.baseline])
    options = parser.parse_args()
    PAIRS.mkdir(exist_ok=True)
    for name in options.only:
        contenders = pair(name, options.backend)
        record_rules([name])
        found = bench(contenders, batch=options.batch, seconds=options.seconds, progress=tell_on_stdout())
        found.save(PAIRS / f"{name}.json")
        stdout().print(tabulate(found))


if __name__ == "__main__":
    main()
