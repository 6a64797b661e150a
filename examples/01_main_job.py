"""The main job, from nothing to a prediction: export, check, benchmark at batch 512, classify real pictures.

Run by `make demo`. Everything goes through the command line, as a user would type it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

DEMO = Path("demo")
RESULT = DEMO / "bench-512.json"
MODELS = ("alexnet-dy", "alexnet-bn")


def dyx(*arguments: str) -> None:
    """Type one dyx command, and show it."""
    print(f"\n$ dyx {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "dyx", *arguments], check=True)


def write_digits(folder: Path, count: int = 4) -> list[str]:
    """Save a few of scikit-learn's scans of handwritten digits as PNG files."""
    from PIL import Image
    from sklearn.datasets import load_digits

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index, image in enumerate(load_digits().images[:count]):
        files.append(str(folder / f"digit-{index}.png"))
        Image.fromarray((image / 16 * 255).astype("uint8")).save(files[-1])
    return files


def ratios() -> list[str]:
    """The ratio to the baseline on each backend, from the saved result."""
    rows = json.loads(RESULT.read_text())["summary"]
    found = [row for row in rows if not row["baseline"] and row["ratio"] and row["backend"] != "paddle-eager"]
    return [
        f"  {row['backend']:12} {row['images_per_s']:6.0f} images/s, {row['ratio']['value']:.2f} × {MODELS[1]}"
        for row in found
    ]


def main() -> None:
    """Run every step; stop at the first that fails."""
    started = time.monotonic()
    for model in MODELS:
        dyx("export", model, "--force")
    dyx("check", f"bundles/{MODELS[0]}")
    DEMO.mkdir(exist_ok=True)
    dyx("bench", "--batch", "512", "--json", str(RESULT))
    dyx("predict", f"bundles/{MODELS[0]}", *write_digits(DEMO / "digits"), "--top", "3")
    print(f"\nDone in {time.monotonic() - started:.0f} s. What lies where:")
    print("  bundles/alexnet-dy     the dynamic network: model.onnx, model.json + model.pdiparams, dyx.json")
    print("  bundles/alexnet-bn     its plain baseline")
    print(f"  {RESULT}    raw samples and figures of the benchmark")
    print("  demo/digits            the pictures that were classified (weights are untrained: so are the answers)")
    print("Batch 512, the dynamic network beside its baseline:")
    print("\n".join(ratios()))
    print("Your own checkpoint: .venv/bin/dyx export alexnet-dy --weights FILE.pdparams --out bundles/mine")


if __name__ == "__main__":
    main()
