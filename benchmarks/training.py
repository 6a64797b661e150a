"""alexnet-dy and its baseline from the same budget: the `digits` recipe, then a table as the articles have it.

    python benchmarks/training.py [--models alexnet-bn alexnet-dy] [--epochs 10]

Runs go to runs/benchmark (kept: an unfinished one goes on). Writes benchmarks/results/training-digits.json, and from it
the table of docs/how-to/train.md. A few minutes per network on two cores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dyx.console import TrainingLines
from dyx.runs import Run, is_run
from dyx.train import train

RECORD = Path(__file__).parent / "results" / "training-digits.json"
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "train.md"
RUNS = Path("runs/benchmark")
BEGIN, END = "<!-- made by benchmarks/training.py -->", "<!-- end -->"


def facts(run: Run) -> dict[str, Any]:
    """What the table and whoever doubts it need of a run."""
    record = run.record
    kept = ("model", "parameters", "recipe", "seed", "forms", "best", "history", "held_out_images_per_s", "environment")
    return {key: record[key] for key in kept}


def table() -> str:
    """The rows of the record, in Markdown."""
    lines = [
        "| network | parameters | held out | train | images/s training | images/s held out |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in json.loads(RECORD.read_text()):
        best, history = row["best"], row["history"]
        seconds = sum(epoch["seconds"] for epoch in history)
        pictures = sum(epoch["images_per_s"] * epoch["seconds"] for epoch in history)
        lines.append(
            f"| `{row['model']}` | {row['parameters']:,} | {best['held_out_accuracy']:.4f} (epoch {best['epoch']})"
            f" | {max(epoch['accuracy'] for epoch in history):.4f} | {pictures / seconds:.0f}"
            f" | {row['held_out_images_per_s']:.0f} |"
        )
    return "\n".join(lines)


def page() -> str:
    """The page with its table made anew."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["alexnet-bn", "alexnet-dy"])
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    rows = []
    for model in options.models:
        out = RUNS / model
        with TrainingLines() as lines:
            rows.append(facts(train(model, epochs=options.epochs, out=out, resume=is_run(out), watch=lines)))
    RECORD.write_text(json.dumps(rows, indent=1) + "\n")
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
