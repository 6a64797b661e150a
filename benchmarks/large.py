"""The networks of more than 80 million parameters: exported at 224 pixels and proved on every backend at 1, 3 and 8.

    python benchmarks/large.py

Too large for the tests. Bundles are those of zoo.py. Writes benchmarks/results/large.json.
"""

from __future__ import annotations

import json

from zoo import RESULTS, bundle_of

import dyx
from dyx.zoo import MODELS

LARGE = 80_000_000
BATCHES = (1, 3, 8)


def main() -> None:
    """Export, prove, write; a miss is an error."""
    rows = []
    for model in MODELS:
        if model.parameters <= LARGE:
            continue
        bundle = bundle_of(model.name)
        report = dyx.check(bundle, batches=BATCHES)
        print(f"{model.name}: {'passed' if report.passed else report.parity.misses()}", flush=True)
        parity = report.parity.to_json()
        rows.append({"model": model.name, "parameters": model.parameters, "passed": report.passed, "parity": parity})
    (RESULTS / "large.json").write_text(json.dumps(rows, indent=1) + "\n")
    if not all(row["passed"] for row in rows):
        raise SystemExit("a large network missed parity")


if __name__ == "__main__":
    main()
