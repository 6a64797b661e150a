"""The main job, from pictures to a prediction: train, export, prove, evaluate, benchmark, classify, report.

Run by `make demo`. Everything goes through the command line, as a user would type it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

DEMO = Path("demo")
RUN = DEMO / "run"
RESULT = DEMO / "bench-512.json"
ANSWERS = DEMO / "eval.json"
PAGE = DEMO / "report.html"
MODELS = ("alexnet-dy", "alexnet-bn")
BUNDLE = f"bundles/{MODELS[0]}"


def dyx(*arguments: str, to: Path | None = None) -> None:
    """Type one dyx command, and show it; with `to`, keep what it prints in a file."""
    print(f"\n$ dyx {' '.join(arguments)}{f' > {to}' if to else ''}", flush=True)
    ran = subprocess.run(
        [sys.executable, "-m", "dyx", *arguments], check=True, stdout=subprocess.PIPE if to else None, text=True
    )
    if to is not None:
        to.write_text(ran.stdout)


def write_digits(folder: Path, count: int = 4) -> list[str]:
    """Save some of the held-out scans of handwritten digits as PNG files, named after what they show."""
    from dyx.datasets import read_data

    folder.mkdir(parents=True, exist_ok=True)
    held_out, files = read_data("digits").held_out, []
    for index in range(count):
        files.append(str(folder / f"{index}-shows-{held_out.classes[index]}.png"))
        held_out.picture(index).save(files[-1])
    return files


def accuracy() -> str:
    """The artifact's accuracy beside the dynamic network's, from the saved evaluation."""
    found = json.loads(ANSWERS.read_text())
    network = found["against"]
    return (
        f"  {found['correct']} of {found['images']} held-out digits right on {found['backend']},"
        f" {network['correct']} by the dynamic network in eager Paddle; the same class for {network['same_class']}"
    )


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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", default="3", help="of training")
    epochs = parser.parse_args().epochs
    started = time.monotonic()
    DEMO.mkdir(exist_ok=True)
    dyx("train", MODELS[0], "--epochs", epochs, "--out", str(RUN), "--force")
    dyx("export", MODELS[0], "--weights", str(RUN), "--force")
    dyx("export", MODELS[1], "--force")
    dyx("check", BUNDLE)
    dyx("eval", BUNDLE, "--against", str(RUN), "--json", to=ANSWERS)
    dyx("bench", "--batch", "512", "--json", str(RESULT))
    dyx("predict", BUNDLE, *write_digits(DEMO / "digits"), "--top", "3")
    dyx("report", str(RUN), "--out", str(PAGE))
    print(f"\nDone in {time.monotonic() - started:.0f} s. What lies where:")
    print(f"  {RUN}               the training run: weights, temperature, curves; {PAGE} shows it")
    print("  bundles/alexnet-dy     the trained dynamic network: model.onnx, model.json + model.pdiparams, dyx.json")
    print("  bundles/alexnet-bn     its plain baseline (untrained: only its speed counts here)")
    print(f"  {RESULT}    raw samples and figures of the benchmark")
    print("  demo/digits            the pictures that were classified")
    print("The exported network beside the one that was trained:")
    print(accuracy())
    print("Batch 512, the dynamic network beside its baseline:")
    print("\n".join(ratios()))
    print("Your own checkpoint: .venv/bin/dyx export alexnet-dy --weights FILE.pdparams --out bundles/mine")


if __name__ == "__main__":
    main()
