"""Writes the tables of speed in README.md and docs/speed.md from the records, so that none can drift from them.

python benchmarks/readme_tables.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from against_frozen import NETWORKS
from known_batch import NETWORKS as KNOWN

from dyx.bench import Comparison, Contender
from dyx.bench.samples import Measurement

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BACKENDS = ("onnxruntime", "openvino", "paddle")
BATCHES = (1, 8, 64, 512)
EAGER = "alexnet-dy in eager Paddle"


@cache
def record_of(file: str) -> dict[str, Any]:
    """A record, read once."""
    entry: dict[str, Any] = json.loads((RESULTS / file).read_text())
    return entry


def rows_of(file: str) -> list[dict[str, Any]]:
    """What a record says, a row per contender."""
    rows: list[dict[str, Any]] = record_of(file)["summary"]
    return rows


def told(value: float, low: float, high: float) -> str:
    """A ratio with its interval, as the tables have it."""
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def ratio(file: str, network: str, backend: str) -> str:
    """A recorded ratio to the baseline; a dash where that backend was not measured."""
    rows = (row for row in rows_of(file) if row["name"].split()[0] == network and row["backend"] == backend)
    found = next(rows, None)
    if found is None:
        return "–"
    return told(*(found["ratio"][key] for key in ("value", "low", "high")))


def ratios(file: str, network: str) -> list[str]:
    """A recorded ratio to the baseline on each backend."""
    return [ratio(file, network, backend) for backend in BACKENDS]


def table(heading: str, rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table with a column per backend."""
    lines = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    return "\n".join([f"| {heading} | {' | '.join(BACKENDS)} |", f"|{'---|' * (len(BACKENDS) + 1)}", *lines])


def dynamic() -> str:
    """alexnet-dy beside alexnet-bn on each backend, on both kinds of cores."""
    rows = [
        (f"{cores}, {batch}", ratios(f"{folder}alexnet-dy-cpu-{batch}.json", "alexnet-dy"))
        for cores, folder, batches in (
            ("AVX-512", "", BATCHES),
            ("AVX2", AVX2, BATCHES),
            ("AVX2, busy", BUSY, (8, 64, 512)),
        )
        for batch in batches
    ]
    return table("cores, batch: alexnet-dy ÷ alexnet-bn", rows)


def beside(name: str, batch: int, folder: str = "") -> list[str]:
    """alexnet-dy ÷ another contender of the same run, on each backend; "–" where that took no part.

    As the inverse of the other's ratio to alexnet-dy: a slow reference takes few turns, and those alone are paired.
    """
    record = Comparison.from_json(record_of(f"{folder}alexnet-dy-cpu-{batch}.json"))
    sides = [
        replace(seen, contender=replace(seen.contender, baseline=_called(seen.contender) == "alexnet-dy"))
        for seen in record.measurements
    ]
    turned = replace(record, measurements=tuple(sides))
    seen = {
        side.contender.group: row.ratio
        for side, row in zip(turned.measurements, turned.rows, strict=True)
        if _called(side.contender) == name and _is_right(side)
    }
    return ["–" if (one := seen.get(at)) is None else told(1 / one.value, 1 / one.high, 1 / one.low) for at in BACKENDS]


def _called(contender: Contender) -> str:
    """Its name; the eager network's own."""
    return EAGER if contender.backend == "paddle-eager" else contender.name


def _is_right(side: Measurement) -> bool:
    """Whether it answered rightly: a frozen export with Paddle's oneDNN keeps the kernels of its first call."""
    return not (side.contender.name.endswith("(frozen)") and side.options.get("onednn"))


def peak(batch: int, folder: str = "") -> list[str]:
    """How much of the machine's matrix product alexnet-dy reaches, by the arithmetic that it really does."""
    rows = [row for row in rows_of(f"{folder}alexnet-dy-cpu-{batch}.json") if row["name"] == "alexnet-dy"]
    shares = {row["backend"]: row["peak_share"] for row in rows}
    return [f"{shares[backend]:.0%}" for backend in BACKENDS]


def memory(batch: int, folder: str = "") -> list[str]:
    """Peak memory of alexnet-dy's process ÷ that of alexnet-bn's."""
    rows = rows_of(f"{folder}alexnet-dy-cpu-{batch}.json")
    peaks = {(row["name"], row["backend"]): row["peak_bytes"] for row in rows}
    return [f"{peaks['alexnet-dy', backend] / peaks['alexnet-bn', backend]:.2f}" for backend in BACKENDS]


def start(key: str, batch: int) -> list[str]:
    """A figure of opening or of the first call: alexnet-dy's, and alexnet-bn's in brackets."""
    figures = {(row["name"], row["backend"]): row[key] for row in rows_of(f"alexnet-dy-cpu-{batch}.json")}
    return [f"{figures['alexnet-dy', at]:.2g} ({figures['alexnet-bn', at]:.2g})" for at in BACKENDS]


def speed() -> str:
    """alexnet-dy beside everything else that was measured with it."""
    rows = peers(PEERS)
    rows += [(f"share of the matrix product's speed, batch {batch}", peak(batch)) for batch in (64, 512)]
    rows += [("peak memory of alexnet-bn, batch 512", memory(512))]
    rows += [("to open, s (alexnet-bn)", start("open_s", 1))]
    rows += [("first call, ms (alexnet-bn), batch 1", start("first_call_ms", 1))]
    return table("alexnet-dy ÷", rows)


def peers(names: Iterable[str], folder: str = "") -> list[tuple[str, list[str]]]:
    """alexnet-dy beside these, a row per batch size."""
    return [(f"{name}, batch {batch}", beside(name, batch, folder)) for name in names for batch in PEERS[name]]


def avx2() -> str:
    """The same on cores without AVX-512; the eager network in turns with every backend."""
    rows = peers([name for name in PEERS if name != EAGER], AVX2)
    for words, mkl in (("", ""), (" with its MKL as it comes", "-mkl-as-it-comes")):
        for batch in PEERS[EAGER]:
            file = f"{AVX2}alexnet-dy-beside-eager-cpu-{batch}{mkl}.json"
            rows.append((f"{EAGER}{words}, batch {batch}", ratios(file, "alexnet-dy")))
    rows += [(f"share of the matrix product's speed, batch {batch}", peak(batch, AVX2)) for batch in (64, 512)]
    rows += [("peak memory of alexnet-bn, batch 512", memory(512, AVX2))]
    return table("alexnet-dy ÷", rows)


AVX2 = "avx2/"
"""Folder of the records of a machine without AVX-512."""
BUSY = "avx2-busy/"
"""Folder of those of one such that was slowed down by its neighbours."""
PEERS = {
    "alexnet-bn": BATCHES,
    "alexnet-bn (rewritten)": BATCHES,
    "alexnet-dy (frozen)": (8, 64),
    EAGER: (8, 64),
}
"""Who stands beside alexnet-dy, at which batches."""


def others() -> str:
    """Gates beside plain AlexNet."""
    measured = product(("alexnet-na", "alexnet-eca"), (64, 512))
    rows = [(f"`{name}`, {batch}", ratios(f"gates-cpu-{batch}.json", name)) for name, batch in measured]
    return table("network, batch", rows)


def frozen() -> str:
    """Backbones beside their batch-frozen exports."""
    measured = [(name, batch) for name, batches in NETWORKS.items() for batch in batches]
    rows = [(f"`{name}`, {batch}", ratios(f"{AVX2}{name}-cpu-{batch}.json", name)) for name, batch in measured]
    return table("network, batch", rows)


def backbones() -> str:
    """KernelWarehouse beside dynamic convolution of like size."""
    file = "kw1x-beside-dy4x-resnet18-cpu-8.json"
    rows = [
        (f"kw1x-resnet18 ÷ dy4x-resnet18, {machine}, 8", ratios(f"{folder}{file}", "kw1x-resnet18"))
        for machine, folder in (("AVX-512, before tiles", ""), ("AVX2", AVX2))
    ]
    return table("networks, cores and batch", rows)


def tiles() -> str:
    """Kernels of each sample in tiles beside the same on gathered rows."""
    files = sorted((RESULTS / "tiles").glob("*.json"))
    rows = []
    for file in files:
        network, _, batch = file.stem.partition("-cpu-")
        rows.append((f"`{network}`, {batch}", ratios(f"tiles/{file.name}", network)))
    return table("in tiles ÷ on rows, network and batch", rows)


def known() -> str:
    """A model for a known batch size beside one for all sizes, on OpenVINO."""
    measured = [(name, batch) for name, batches in KNOWN.items() for batch in batches]
    cells = [ratio(f"{AVX2}openvino-{name}-cpu-{batch}.json", name, "openvino") for name, batch in measured]
    lines = [f"| `{name}`, {batch} | {cell} |" for (name, batch), cell in zip(measured, cells, strict=True)]
    return "\n".join(["| network, batch | known ÷ free |", "|---|---|", *lines])


def tuned() -> str:
    """What prices chose beside what tuning chose: a row per tuned network."""
    records = [json.loads(path.read_text()) for path in sorted((RESULTS / "tuned").glob("*.json"))]
    lines = [_tuned_row(record) for record in records if "candidates" in record]
    heading = "| priced ÷ tuned | backend | plans measured | tuning kept | " + " | ".join(map(str, BATCHES)) + " |"
    return "\n".join([heading, f"|{'---|' * (len(BATCHES) + 4)}", *lines])


def _tuned_row(record: dict[str, Any]) -> str:
    """A network's ratios; where tuning kept the very graphs there may be none."""
    network, backend, same = record["model"], record["backend"], record["same_graphs"]
    files = {batch: f"tuned/{network}-{backend}-{batch}.json" for batch in BATCHES}
    absent = {batch: "1" if same and batch in record["batches"] else "–" for batch in BATCHES}
    cells = [
        ratio(file, network, backend) if (RESULTS / file).is_file() else absent[batch] for batch, file in files.items()
    ]
    kept = "the priced graphs" if same else "others"
    return f"| `{network}` | {backend} | {len(record['candidates'])} | {kept} | {' | '.join(cells)} |"


PAGES = {
    ROOT / "README.md": {make.__name__: make for make in (dynamic, others, frozen)},
    ROOT / "docs" / "speed.md": {make.__name__: make for make in (speed, avx2, tuned, known, backbones, tiles)},
}


def page(path: Path) -> str:
    """A page with its tables made anew."""
    text = path.read_text()
    for name, make in PAGES[path].items():
        before, begin, rest = text.partition(f"<!-- {name}: made by benchmarks/readme_tables.py -->\n")
        assert begin, f"{path.name} has no place for the table {name!r}"
        text = f"{before}{begin}{make()}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    return text


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(page(path))
