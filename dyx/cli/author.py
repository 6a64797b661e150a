"""Commands of the author half: they need Paddle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dyx import console
from dyx.cli.app import app
from dyx.cli.options import (
    Batch,
    Calibrate,
    Data,
    Device,
    Fold,
    Force,
    Formats,
    Input,
    Json,
    Labels,
    Model,
    OneGraph,
    Opset,
    Out,
    Prep,
    Seed,
    Shape,
    Temperature,
    Threads,
    Tolerance,
    Tune,
    TuneBackend,
    TuneBatch,
    Weights,
    batch_size,
    input_shape,
    numbers,
    print_json,
)

Recipe = Annotated[
    str | None, typer.Option(metavar="NAME", help="dyconv, gates, digits, imagenet; by default the model's own.")
]
Epochs = Annotated[int | None, typer.Option(metavar="N", help="In place of the recipe's.")]
StepBatch = Annotated[int | None, typer.Option(metavar="N", help="Pictures per step, in place of the recipe's.")]
LearningRate = Annotated[float | None, typer.Option(metavar="R", help="In place of the recipe's.")]
Mixup = Annotated[float | None, typer.Option(metavar="ALPHA", help="Mix pairs of pictures; 0 for none.")]
TrainingSeed = Annotated[
    int | None, typer.Option(metavar="N", help="Of weights, order, augmentation, dropout; 42 by default.")
]
RunOut = Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder; runs/<model> by default.")]
Form = Annotated[
    str, typer.Option(metavar="auto|NAME", help="Of dynamic layers: grouped, columns, mix-outputs, or the fastest.")
]
Precision = Annotated[str | None, typer.Option(metavar="float32|mixed", help="mixed: bfloat16 where that is safe.")]
SaveEvery = Annotated[
    float, typer.Option(metavar="S", help="Seconds after which the state is kept: what a kill costs at most.")
]
LogDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="For VisualDL or TensorBoard, where either is installed.")
]


@app.command()
def models(as_json: Json = False) -> None:
    """List the reference models: name, layers, parameters, input, baseline; with --json also paper and accuracy."""
    from dyx.zoo import MODELS

    if as_json:
        return print_json([model.to_json() for model in MODELS])
    from dyx.tables import models_table

    return console.stdout().print(models_table(MODELS))


@app.command(epilog="Example: dyx plan alexnet-dy --tune-batch 1 --tune-backend openvino")
def plan(
    model: Model = "alexnet-dy",
    weights: Weights = None,
    temperature: Temperature = None,
    fold: Fold = ["auto"],
    formats: Formats = ["paddle", "onnx"],
    batch: Batch = "dynamic",
    shape: Shape = None,
    tune_batch: TuneBatch = None,
    tune_backend: TuneBackend = "onnxruntime",
    calibrate: Calibrate = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Show which rule would fold each dynamic layer, what it costs, and why each other rule was passed over."""
    from dyx.exporter.planned import plan as plan_model

    settings = _settings(locals())
    with console.Steps() as steps:
        planned = plan_model(model, progress=steps, **settings)
    if as_json:
        return print_json({"model": model, **planned.plan.to_json()})
    from dyx.tables import plan_table

    return console.stdout().print(plan_table(planned.plan.to_json()))


@app.command(epilog="Example: dyx export alexnet-dy --weights alexnet_dy.pdparams --out bundles/mine")
def export(
    model: Model = "alexnet-dy",
    weights: Weights = None,
    temperature: Temperature = None,
    fold: Fold = ["auto"],
    formats: Formats = ["paddle", "onnx"],
    opset: Opset = 17,
    batch: Batch = "dynamic",
    out: Out = None,
    shape: Shape = None,
    labels: Labels = None,
    preprocess: Prep = None,
    input: Input = "float32",  # noqa: A002 - the name of the setting
    seed: Seed = 0,
    force: Force = False,
    tolerance: Tolerance = 2e-5,
    tune: Tune = False,
    tune_batch: TuneBatch = None,
    tune_backend: TuneBackend = "onnxruntime",
    one_graph: OneGraph = False,
    calibrate: Calibrate = None,
    as_json: Json = False,
) -> None:
    """Fold a network, export it to Paddle Inference and ONNX, and prove that both compute the same.

    The bundle appears whole or not at all: a miss, an error or a kill leaves what was there before.
    """
    from dyx.exporter.pipeline import export as export_model

    settings = _settings(locals())
    with console.Steps() as steps:
        bundle = export_model(model, progress=steps, **settings)
    for note in bundle.manifest["notes"]:
        console.show_note(note)
    if as_json:
        return print_json({"bundle": str(bundle.path), **bundle.manifest})
    from dyx.tables import export_summary

    return console.stdout().print("\n".join(export_summary(bundle)), soft_wrap=True)


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """A command's options as the library takes them."""
    from dyx.exporter.settings import ExportSettings

    settings = {key: value for key, value in given.items() if key in ExportSettings.__dataclass_fields__}
    return settings | {
        "fold": tuple(settings["fold"]),
        "formats": tuple(dict.fromkeys(settings["formats"])),
        "batch": batch_size(settings["batch"]),
        "shape": input_shape(settings["shape"]),
        "tune_batch": numbers("--tune-batch", settings["tune_batch"]) or None,
    }


@app.command(epilog="Example: dyx train alexnet-dy --data cifar10:cifar-10-python.tar.gz --out runs/mine")
def train(
    model: Model = "alexnet-dy",
    data: Data = None,
    recipe: Recipe = None,
    epochs: Epochs = None,
    batch: StepBatch = None,
    learning_rate: LearningRate = None,
    mixup: Mixup = None,
    seed: TrainingSeed = None,
    shape: Shape = None,
    out: RunOut = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is there.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run that is there.")] = False,
    form: Form = "auto",
    precision: Precision = None,
    device: Device = "auto",
    threads: Threads = None,
    workers: Annotated[int, typer.Option(metavar="N", help="Processes that prepare pictures.")] = 0,
    save_every: SaveEvery = 60.0,
    log_dir: LogDir = None,
    as_json: Json = False,
) -> None:
    """Train a network by its article's recipe: on digits without any download, on CIFAR or on folders of pictures.

    A run keeps its best and last weights, its temperature, curves and figures. Killed, it goes on with --resume as if
    nothing had happened. The recipes: dyconv (SGD, 100 epochs), gates (Adam, 50), digits (Adam, 10), imagenet.
    """
    from dyx.train.loop import train as train_model

    given = {key: value for key, value in locals().items() if key not in ("model", "as_json", "train_model")}
    with console.TrainingLines() as lines:
        run = train_model(model, watch=lines, **given | {"shape": input_shape(shape)})
    if as_json:
        return print_json({"run": str(run.path), **run.record})
    from dyx.tables import run_table

    out_console = console.stdout()
    out_console.print(run_table(run.record))
    return out_console.print(
        f"{run.path}: best/ and final/ weights, run.json, log.csv, pictures\n"
        f"next: dyx export {model} --weights {run.path}",
        soft_wrap=True,
    )
