"""Writes the tables of speed in README.md from the records, so that neither can drift from the other.

python benchmarks/readme_tables.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
BACKENDS = ("onnxruntime", "openvino", "paddle")
OTHERS = (
    ("alexnet-na", 64, "gates-cpu-64.json"),
    ("alexnet-na", 512, "gates-cpu-512.json"),
    ("alexnet-eca", 64, "gates-cpu-64.json"),
    ("alexnet-eca", 512, "gates-cpu-512.json"),
    ("kw1x-resnet18", 8, "kw1x-resnet18-cpu-8.json"),
)


def ratio(file: str, network: str, backend: str) -> str:
    """A recorded ratio with its interval, as the tables have it."""
    rows: list[dict[str, Any]] = json.loads((RESULTS / file).read_text())["summary"]
    found = next(row["ratio"] for row in rows if row["name"].split()[0] == network and row["backend"] == backend)
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def dynamic() -> str:
    """alexnet-dy beside alexnet-bn on each backend."""
    rows = [f"| {backend} | {ratio('alexnet-dy-cpu-512.json', 'alexnet-dy', backend)} |" for backend in BACKENDS]
    return "\n".join(["| backend | alexnet-dy ÷ alexnet-bn, images/s [95 % interval] |", "|---|---|", *rows])


def others() -> str:
    """Gates beside plain AlexNet; KernelWarehouse beside its batch-frozen export."""
    rows = [
        f"| `{network}`, {batch} | {' | '.join(ratio(file, network, backend) for backend in BACKENDS)} |"
        for network, batch, file in OTHERS
    ]
    return "\n".join([f"| network, batch | {' | '.join(BACKENDS)} |", "|---|---|---|---|", *rows])


def page() -> str:
    """The README with both tables made anew."""
    text = README.read_text()
    for name, table in (("dynamic", dynamic()), ("others", others())):
        before, begin, rest = text.partition(f"<!-- {name}: made by benchmarks/readme_tables.py -->\n")
        assert begin, f"README.md has no place for the table {name!r}"
        text = f"{before}{begin}{table}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    return text


if __name__ == "__main__":
    README.write_text(page())
