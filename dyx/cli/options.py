"""The options that commands share, and how their texts are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dyx.errors import InvalidOption

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name of `dyx models`, file.py:Class or package.module:callable.")
]
Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder that `dyx export` wrote.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout instead of tables.")]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help=".pdparams, .safetensors or .pth; without it, seeded untrained weights."),
]
Temperature = Annotated[
    float | None,
    typer.Option(metavar="T", help="Of every dynamic layer; by default where training ends: 1, KernelWarehouse 0."),
]
Fold = Annotated[
    list[str],
    typer.Option(metavar="auto|RULE", help="A rule, as `dyx plan` lists them, for its kind of layer. May be repeated."),
]
Formats = Annotated[
    list[str], typer.Option("--format", metavar="paddle|onnx", help="May be repeated; both by default.")
]
Opset = Annotated[int, typer.Option(metavar="N", help="Of the ONNX file, 17 to 21.")]
Batch = Annotated[str, typer.Option(metavar="dynamic|N", help="A free batch size, or the one to freeze to.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="The bundle's folder; bundles/<model> by default.")]
Shape = Annotated[str | None, typer.Option(metavar="3,H,W", help="Of the input, for a network of your own.")]
Labels = Annotated[Path | None, typer.Option(metavar="FILE", help="A text file, one label a line.")]
Prep = Annotated[Path | None, typer.Option("--preprocess", metavar="FILE", help="A JSON file: size, mean, std, order.")]
Input = Annotated[
    str,
    typer.Option(metavar="float32|uint8", help="What the graph takes: normalised values, or pixels as they are."),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Of untrained weights and of the inputs that prove the bundle.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the bundle that is there, whole.")]
Tolerance = Annotated[float, typer.Option(metavar="SHARE", help="How far off an artifact may be, of max |y|.")]
Tune = Annotated[
    bool,
    typer.Option("--tune", help="Measure candidates on this machine, and choose by that instead of by prices."),
]
TuneBatch = Annotated[
    str | None,
    typer.Option(
        metavar="N[,N]",
        help="Batch size that rules are priced at when the batch is free: 512, or the model's. Several for --tune.",
    ),
]
OneGraph = Annotated[
    bool,
    typer.Option("--one-graph", help="No other graphs for smaller batches, even where they are predicted to pay."),
]
TuneBackend = Annotated[str, typer.Option(metavar="NAME", help="Backend that rules are priced for, or measured on.")]
Calibrate = Annotated[
    Path | None,
    typer.Option(metavar="DIR|NPZ", help="Images for rules that fix attention at its mean, as dyconv/mean-attention."),
]
Data = Annotated[
    str | None,
    typer.Option(metavar="NAME[:PATH]", help="digits, cifar10:FILE.tar.gz, cifar100:FILE.tar.gz or folder:DIR."),
]
Backends = Annotated[
    list[str],
    typer.Option("--backend", metavar="NAME", help="onnxruntime, openvino, paddle; all installed ones by default."),
]
Device = Annotated[str, typer.Option(metavar="cpu|gpu|auto", help="gpu is an error where there is none.")]
Threads = Annotated[int | None, typer.Option(metavar="N", help="On a CPU; all cores by default.")]


def print_json(value: Any) -> None:
    """JSON to stdout."""
    typer.echo(json.dumps(value, indent=2, default=str))


def numbers(option: str, text: str | None) -> tuple[int, ...]:
    """Numbers from 1 up, separated by commas; none for None. Raises InvalidOption."""
    parts = [] if text is None else text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise InvalidOption(option, text, "a number from 1 up, or several as 1,8,64")
    return tuple(dict.fromkeys(int(part) for part in parts))


def number(option: str, text: str | None) -> int | None:
    """One number from 1 up; None for None. Raises InvalidOption."""
    found = numbers(option, text)
    if len(found) > 1:
        raise InvalidOption(option, text, "one number, where LoadGen measures (--scenario)")
    return found[0] if found else None


def batch_size(text: str) -> int | None:
    """A batch size from 1 up, or None for "dynamic". Raises InvalidOption."""
    if text == "dynamic":
        return None
    if not text.lstrip("-").isdigit() or int(text) < 1:
        raise InvalidOption("--batch", text, "'dynamic' or a number from 1 up")
    return int(text)


def input_shape(text: str | None) -> tuple[int, int, int] | None:
    """Channels, height, width; None for None. Raises InvalidOption."""
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise InvalidOption("--shape", text, "three numbers: 3,height,width")
    channels, height, width = (int(part) for part in parts)
    return channels, height, width
