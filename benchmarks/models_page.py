"""Writes docs/models.md from the table of models and the recorded benchmark, so that the page cannot drift from them.

python benchmarks/models_page.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dyx.zoo import MODELS, PUBLISHED, Model

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RECORD = RESULTS / "zoo-cpu-8.json"
RULES = RESULTS / "zoo-rules.json"
PAGE = ROOT / "docs" / "models.md"

HEAD = """# Models

Every network that `dyx export` knows by name. This page is written by `python benchmarks/models_page.py`.

- **parameters** are counted as `paddle.summary` does: running statistics of batch norms included.
- **published** is top-1 accuracy in percent, with its source beneath the table. dyx brings no weights: `--weights`
  takes them from the official repositories' checkpoints.
- **rules** are those that `auto` chose for onnxruntime, and for how many layers.
- **× baseline** is the speed relative to the plain network in its place, [95 % interval], at batch {batch} on
  {backend}: {cpu}, {threads} threads, float32, seeded weights. Recorded in `benchmarks/results/{record}`.

"""


def page() -> str:
    """The whole text."""
    record = json.loads(RECORD.read_text())
    rules = json.loads(RULES.read_text())
    ratios = dict(_ratios(record))
    sources = list(dict.fromkeys(source for _, source in PUBLISHED.values()))
    rows = "\n".join(_row(model, rules.get(model.name, {}), ratios, sources) for model in MODELS)
    notes = "\n".join(f"{number}. {source}" for number, source in enumerate(sources, 1))
    title = (
        "| model | layers | parameters | published | rules | × baseline | paper |\n|---|---|---:|---:|---|---|---|\n"
    )
    return f"{_head(record)}{title}{rows}\n\nPublished where:\n\n{notes}\n"


def _head(record: Mapping[str, Any]) -> str:
    first = record["contenders"][0]
    return HEAD.format(
        batch=record["settings"]["batch"],
        backend=first["contender"]["backend"],
        cpu=record["environment"]["cpu"]["model"],
        threads=first["threads"],
        record=RECORD.name,
    )


def _ratios(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for row in record["summary"]:
        if row["ratio"]:
            low, high = row["ratio"]["low"], row["ratio"]["high"]
            yield row["name"], f"{row['ratio']['value']:.2f} [{low:.2f} {high:.2f}]"


def _row(model: Model, rules: Mapping[str, int], ratios: Mapping[str, str], sources: list[str]) -> str:
    accuracy = "–"
    if model.name in PUBLISHED:
        top1, source = PUBLISHED[model.name]
        accuracy = f"{top1:.2f} ({sources.index(source) + 1})"
    chosen = ", ".join(f"{count} × {rule}" for rule, count in rules.items()) or "–"
    ratio = f"{ratios[model.name]} {model.baseline}" if model.name in ratios else "–"
    cells = (f"`{model.name}`", model.layers, f"{model.parameters:,}", accuracy, chosen, ratio, model.paper)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
