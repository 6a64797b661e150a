"""Writes docs/models.md from the table of models and the recorded benchmark, so that the page cannot drift from them.

python benchmarks/models_page.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo import PAIRS, RULES, has_avx512

from dyx.zoo import MODELS, PUBLISHED, Model

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"

HEAD = """# Models

Every network that `dyx export` knows by name. This page is written by `python benchmarks/models_page.py`.

- **parameters** are counted as `paddle.summary` does: running statistics of batch norms included.
- **published** is top-1 accuracy in percent, with its source beneath the table. dyx brings no weights: `--weights`
  takes them from the official repositories' checkpoints.
- **rules** are those that `auto` chose for onnxruntime, and for how many layers; of the graph for large batches where
  there are two.
- **× baseline** is the speed relative to the plain network in its place, [95 % interval], float32, seeded weights, each
  pair one interleaved run ({how}). `make bench` writes the records; – where there is none.

[Speed](speed.md) has other batch sizes and backends of some.

"""


def page() -> str:
    """The whole text."""
    records = {path.stem: json.loads(path.read_text()) for path in sorted(PAIRS.glob("*.json"))}
    rules = json.loads(RULES.read_text())
    ratios = {name: _ratio(name, record) for name, record in records.items()}
    sources = list(dict.fromkeys(source for _, source in PUBLISHED.values()))
    rows = "\n".join(_row(model, rules.get(model.name, {}), ratios, sources) for model in MODELS)
    notes = "\n".join(f"{number}. {source}" for number, source in enumerate(sources, 1))
    names = "model", "layers", "parameters", "published", "rules", "× baseline", "paper"
    title = f"| {' | '.join(names)} |\n|---|---|---:|---:|---|---|---|\n"
    how = "; ".join(dict.fromkeys(map(_how, records.values()))) or "none is recorded yet"
    return f"{HEAD.format(how=how)}{title}{rows}\n\nPublished where:\n\n{notes}\n"


def _how(record: Mapping[str, Any]) -> str:
    """Where and how a pair was measured, in words."""
    first = record["contenders"][0]
    cpu = record["environment"]["cpu"]
    width = "AVX-512" if has_avx512(cpu) else "AVX2"
    place = f"{cpu['model']} with {width}, {first['threads']} threads"
    return f"batch {record['settings']['batch']} on {first['contender']['backend']}, {place}"


def _ratio(name: str, record: Mapping[str, Any]) -> str:
    (ratio,) = [row["ratio"] for row in record["summary"] if row["name"] == name]
    return f"{ratio['value']:.2f} [{ratio['low']:.2f} {ratio['high']:.2f}]"


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
