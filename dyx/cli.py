"""The command line: options in, one library call, the result printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dyx import console
from dyx.errors import DyxError, InvalidOption, ParityMissed

if TYPE_CHECKING:
    from dyx.checks import CheckReport

app = typer.Typer(
    name="dyx",
    help="Fold, export, prove, benchmark and serve dynamic convolutional networks from PaddlePaddle.",
    epilog="Start with `dyx export` and `dyx bench --batch 512`. Bundles land in bundles/<model>.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name of `dyx models`, file.py:Class or package.module:callable.")
]
BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder that `dyx export` wrote.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON to stdout instead of tables.")]
WeightsOption = Annotated[
    Path | None, typer.Option(help=".pdparams or .safetensors; without it, seeded untrained weights.")
]
TemperatureOption = Annotated[float, typer.Option(help="Of every dynamic layer; a checkpoint does not carry it.")]
FoldOption = Annotated[list[str], typer.Option(help="auto, or a rule for its kind of layer. May be repeated.")]
BatchOption = Annotated[str, typer.Option(metavar="dynamic|N", help="A free batch size, or the one to freeze to.")]
ShapeOption = Annotated[str | None, typer.Option(metavar="3,H,W", help="Of the input, for a network of your own.")]
SeedOption = Annotated[int, typer.Option(help="Of untrained weights and of the inputs that prove the bundle.")]
TuneBatchOption = Annotated[int, typer.Option(help="Batch size that rules are priced at when the batch is free.")]
TuneBackendOption = Annotated[str, typer.Option(help="Backend that rules are priced for.")]


def main() -> None:
    """The entry point `dyx`: runs a command and turns errors into one sentence and an exit code."""
    try:
        app()
    except DyxError as error:
        if "--debug" in sys.argv:
            raise
        console.show_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console.stderr().print("interrupted; nothing half-made was left behind")
        sys.exit(130)


def _version(wanted: bool) -> None:
    if wanted:
        from dyx import __version__

        typer.echo(f"dyx {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    """Fold, export, prove, benchmark and serve dynamic convolutional networks from PaddlePaddle."""


@app.command()
def models(as_json: JsonFlag = False) -> None:
    """List the reference models: name, layers, parameters, input, baseline, paper."""
    from dataclasses import asdict

    from dyx.zoo import MODELS

    if as_json:
        return _print_json([asdict(model) for model in MODELS])
    from dyx.tables import models_table

    return console.stdout().print(models_table(MODELS))


@app.command()
def plan(
    model: ModelArgument = "alexnet-dy",
    weights: WeightsOption = None,
    temperature: TemperatureOption = 1.0,
    fold: FoldOption = ["auto"],
    batch: BatchOption = "dynamic",
    shape: ShapeOption = None,
    tune_batch: TuneBatchOption = 512,
    tune_backend: TuneBackendOption = "onnxruntime",
    seed: SeedOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Show which rule would fold each dynamic layer, what it costs, and why each other rule was passed over."""
    from dyx.exporter.pipeline import plan as plan_model

    with console.Steps() as steps:
        planned = plan_model(
            model,
            progress=steps,
            weights=weights,
            temperature=temperature,
            fold=tuple(fold),
            batch=_batch(batch),
            shape=_shape(shape),
            tune_batch=tune_batch,
            tune_backend=tune_backend,
            seed=seed,
        )
    if as_json:
        return _print_json({"model": model, **planned.plan.to_json()})
    from dyx.tables import plan_table

    return console.stdout().print(plan_table(planned.plan.to_json()))


@app.command()
def export(
    model: ModelArgument = "alexnet-dy",
    weights: WeightsOption = None,
    temperature: TemperatureOption = 1.0,
    fold: FoldOption = ["auto"],
    formats: Annotated[list[str], typer.Option("--format", help="paddle, onnx; both by default. May be repeated.")] = [
        "paddle",
        "onnx",
    ],
    opset: Annotated[int, typer.Option(help="Of the ONNX file, 17 to 21.")] = 17,
    batch: BatchOption = "dynamic",
    out: Annotated[Path | None, typer.Option(help="The bundle's folder; bundles/<model> by default.")] = None,
    shape: ShapeOption = None,
    labels: Annotated[Path | None, typer.Option(help="A text file, one label a line.")] = None,
    preprocess: Annotated[Path | None, typer.Option(help="A JSON file: size, mean, std, order.")] = None,
    seed: SeedOption = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle that is there, whole.")] = False,
    tolerance: Annotated[float, typer.Option(help="Share of max |y| that an artifact may be off.")] = 2e-5,
    tune_batch: TuneBatchOption = 512,
    tune_backend: TuneBackendOption = "onnxruntime",
    as_json: JsonFlag = False,
) -> None:
    """Fold a network, export it to Paddle Inference and ONNX, and prove that both compute the same.

    The bundle appears whole or not at all: a miss, an error or a kill leaves what was there before.
    """
    from dyx.exporter.pipeline import export as export_model

    with console.Steps() as steps:
        bundle = export_model(
            model,
            progress=steps,
            weights=weights,
            temperature=temperature,
            fold=tuple(fold),
            formats=tuple(dict.fromkeys(formats)),
            opset=opset,
            batch=_batch(batch),
            out=out,
            shape=_shape(shape),
            labels=labels,
            preprocess=preprocess,
            seed=seed,
            force=force,
            tolerance=tolerance,
            tune_batch=tune_batch,
            tune_backend=tune_backend,
        )
    for note in bundle.manifest["notes"]:
        console.show_note(note)
    if as_json:
        return _print_json({"bundle": str(bundle.path), **bundle.manifest})
    from dyx.tables import export_summary

    return console.stdout().print("\n".join(export_summary(bundle)))


@app.command()
def check(
    bundle: BundleArgument,
    backend: Annotated[list[str], typer.Option(help="All that are installed by default. May be repeated.")] = [],
    as_json: JsonFlag = False,
) -> None:
    """Compare hashes, take the operator census and repeat the parity proof, with every installed backend."""
    from dyx.checks import check as check_bundle

    with console.Steps() as steps:
        report = check_bundle(str(bundle), backends=backend, progress=steps)
    if as_json:
        _print_json(report.to_json())
    else:
        _print_check(report)
    if not report.passed:
        raise typer.Exit(ParityMissed.exit_code)


def _print_check(report: CheckReport) -> None:
    from dyx.tables import check_summary, verdicts_table

    out = console.stdout()
    out.print(verdicts_table(report.parity.verdicts))
    out.print("\n".join(check_summary(report)))
    word = "[bold green]passed[/]" if report.passed else "[bold red]failed[/]"
    out.print(f"{word}: {report.bundle.path} (allowed: {report.parity.applied})")
    for miss in report.parity.misses():
        out.print(f"[red]{miss}[/]")


@app.command()
def inspect(bundle: BundleArgument, as_json: JsonFlag = False) -> None:
    """Show what a bundle holds: specs, plan, operators, parameters, MACs, files."""
    from dyx.bundle import read_bundle
    from dyx.census import take_census

    opened = read_bundle(bundle)
    censuses = take_census(opened)
    if as_json:
        return _print_json({**opened.manifest, "graphs": [census.to_json() for census in censuses]})
    from dyx.tables import bundle_tables

    return console.stdout().print(*bundle_tables(opened, censuses))


@app.command()
def predict(
    bundle: BundleArgument,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE…", help="PNG, JPEG or what else Pillow reads.")],
    top: Annotated[int, typer.Option(help="How many classes per picture.")] = 5,
    backend: Annotated[str, typer.Option(help="onnxruntime, openvino, paddle, or auto.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, gpu, or auto.")] = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Classify pictures with a bundle's own preprocessing and labels."""
    from dyx.runtime import open_bundle

    with open_bundle(bundle, backend, device) as runner:
        predictions = runner.predict(images, top=top)
    if as_json:
        from dataclasses import asdict

        rows = zip(images, predictions, strict=True)
        return _print_json([{"file": file, "top": [asdict(score) for score in scores]} for file, scores in rows])
    from dyx.tables import predictions_table

    return console.stdout().print(predictions_table(images, predictions))


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.lstrip("-").isdigit() or int(text) < 1:
        raise InvalidOption("--batch", text, "'dynamic' or a number from 1 up")
    return int(text)


def _shape(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise InvalidOption("--shape", text, "three numbers: 3,height,width")
    channels, height, width = (int(part) for part in parts)
    return channels, height, width


if __name__ == "__main__":
    main()
