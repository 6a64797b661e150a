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
    from dyx.bench import Scenario
    from dyx.checks import CheckReport
    from dyx.evaluation import Evaluation
    from dyx.lineup import Where

_INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""

ABOUT = "Fold, export, prove and benchmark dynamic convolutional networks from PaddlePaddle."

app = typer.Typer(
    name="dyx",
    help=ABOUT,
    epilog="Start with `dyx export` and `dyx bench --batch 512`. Bundles land in bundles/<model>.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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
Seed = Annotated[int, typer.Option(metavar="N", help="Of untrained weights and of the inputs that prove the bundle.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the bundle that is there, whole.")]
Tolerance = Annotated[float, typer.Option(metavar="SHARE", help="How far off an artifact may be, of max |y|.")]
TuneBatch = Annotated[
    int | None,
    typer.Option(metavar="N", help="Batch size that rules are priced at when the batch is free: 512, or the model's."),
]
TuneBackend = Annotated[str, typer.Option(metavar="NAME", help="Backend that rules are priced for.")]
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
        sys.exit(_INTERRUPTED)


def _version(wanted: bool) -> None:
    if wanted:
        from dyx import __version__

        typer.echo(f"dyx {__version__}")
        raise typer.Exit


@app.callback(help=ABOUT)
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    """Options that stand before the command; `main` reads `--debug`."""


@app.command()
def models(as_json: Json = False) -> None:
    """List the reference models: name, layers, parameters, input, baseline; with --json also paper and accuracy."""
    from dyx.zoo import MODELS

    if as_json:
        return _print_json([model.to_json() for model in MODELS])
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
    from dyx.exporter.pipeline import plan as plan_model

    settings = _settings(locals())
    with console.Steps() as steps:
        planned = plan_model(model, progress=steps, **settings)
    if as_json:
        return _print_json({"model": model, **planned.plan.to_json()})
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
    seed: Seed = 0,
    force: Force = False,
    tolerance: Tolerance = 2e-5,
    tune_batch: TuneBatch = None,
    tune_backend: TuneBackend = "onnxruntime",
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
        return _print_json({"bundle": str(bundle.path), **bundle.manifest})
    from dyx.tables import export_summary

    return console.stdout().print("\n".join(export_summary(bundle)), soft_wrap=True)


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """A command's options as the library takes them."""
    from dyx.exporter.settings import ExportSettings

    settings = {key: value for key, value in given.items() if key in ExportSettings.__dataclass_fields__}
    return settings | {
        "fold": tuple(settings["fold"]),
        "formats": tuple(dict.fromkeys(settings["formats"])),
        "batch": _batch(settings["batch"]),
        "shape": _shape(settings["shape"]),
    }


@app.command(epilog="Example: dyx check bundles/alexnet-dy")
def check(
    bundle: Bundle,
    backend: Backends = [],
    as_json: Json = False,
) -> None:
    """Compare hashes, take the operator census and repeat the parity proof, with every installed backend."""
    from dyx.checks import check as check_bundle

    with console.Steps() as steps:
        report = check_bundle(bundle, backends=backend, progress=steps)
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
    out.print("\n".join(check_summary(report)), soft_wrap=True)
    word = "[bold green]passed[/]" if report.passed else "[bold red]failed[/]"
    out.print(f"{word}: {report.bundle.path} (allowed: {report.parity.applied})", soft_wrap=True)
    for miss in report.parity.misses():
        out.print(f"[red]{miss}[/]", soft_wrap=True)


@app.command(epilog="Example: dyx inspect bundles/alexnet-dy --json")
def inspect(bundle: Bundle, as_json: Json = False) -> None:
    """Show what a bundle holds: specs, plan, operators, parameters, MACs, files."""
    from dyx.bundle import read_bundle
    from dyx.census import take_census

    opened = read_bundle(bundle)
    censuses = take_census(opened)
    if as_json:
        return _print_json({**opened.manifest, "graphs": [census.to_json() for census in censuses]})
    from dyx.tables import bundle_tables

    return console.stdout().print(*bundle_tables(opened, censuses))


@app.command(epilog="Example: dyx predict bundles/alexnet-dy cat.png dog.jpg --top 3")
def predict(
    bundle: Bundle,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="PNG, JPEG or what else Pillow reads.")],
    top: Annotated[int, typer.Option(metavar="N", help="How many classes per picture.")] = 5,
    backend: Annotated[str, typer.Option(metavar="NAME", help="onnxruntime, openvino, paddle, or auto.")] = "auto",
    device: Device = "auto",
    as_json: Json = False,
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


@app.command(epilog="Example: dyx bench bundles/mine --batch 512 --backend onnxruntime --json run.json")
def bench(
    bundles: Annotated[
        list[Path] | None, typer.Argument(metavar="BUNDLE", help="bundles/alexnet-dy, exported first if missing.")
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N…]", help="Images per call; 512, or what a scenario usually takes; several for a sweep."
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME|BUNDLE", help="What to compare with; the zoo baseline by default.")
    ] = None,
    backend: Backends = [],
    device: Device = "auto",
    threads: Annotated[
        str | None, typer.Option(metavar="N[,N…]", help="On a CPU; all cores by default; several for a sweep.")
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="How long each side is measured at the least.")] = 3.0,
    runs: Annotated[
        int, typer.Option(metavar="N", help="Times that all is measured anew, with processes of its own.")
    ] = 1,
    with_peers: Annotated[
        bool, typer.Option("--peers", help="Also: backends' own defaults, the export without folds, the matmul limit.")
    ] = False,
    load: Annotated[
        list[Path], typer.Option(metavar="FILE", help="Measure nothing: take statistics of records anew. Repeatable.")
    ] = [],
    fail_under: Annotated[
        float | None, typer.Option(metavar="RATIO", help="Exit with 1 where a ratio to the baseline is below this.")
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Let MLPerf LoadGen ask and judge, one contender after the other. offline: all samples at once;"
            " single-stream: one after the other; multi-stream: 8 a query; server: one by one at random instants.",
        ),
    ] = None,
    target_qps: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Samples per second: at which a server is asked, by default half of what one at a time could do; or"
            " that offline is expected to reach.",
        ),
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Within which a server must answer 99 % of its samples; by default 100."),
    ] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Figures, a line per row.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw ratios and throughput: .png, .svg or .pdf.")
    ] = None,
    save: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Keep raw samples and figures; - for stdout.")
    ] = None,
) -> None:
    """Compare bundles with their baseline, taking turns: images/s, latency, memory, and the ratio with its interval.

    Each network and backend runs in a process of its own. Beside them stands the same network in Paddle's eager mode.
    """
    from dyx import bench as benchmark
    from dyx.figures import save_figure
    from dyx.lineup import Where, measure
    from dyx.report.comparison import answer

    _check_outputs(csv_file, plot, None if save in (None, "-") else Path(str(save)))
    if (scenario, target_qps, latency_ms) != (None, None, None):
        others = {"--runs": runs != 1, "--load": load, "--fail-under": fail_under is not None}
        others |= {"--csv": csv_file, "--plot": plot, "--peers": with_peers}
        for option in (option for option, given in others.items() if given):
            raise InvalidOption("--scenario", scenario, f"one that takes {option}: none does")
        size, count = _number("--batch", batch), _number("--threads", threads)
        asked = benchmark.Scenario.of(scenario, size, seconds, target_qps, latency_ms)
        return _scenario(bundles or [], baseline, Where(backend, device, count), asked, save)
    plan = benchmark.Plan(_numbers("--batch", batch) or (512,), seconds, runs)
    if load:
        found = benchmark.pool([comparison for path in load for comparison in benchmark.read_record(path)])
    else:
        places = [Where(backend, device, count) for count in _numbers("--threads", threads) or (None,)]
        with console.Steps() as steps, console.Bar(quiet=save == "-") as bar:
            found = measure(bundles or [], baseline, places, plan, steps, bar, with_peers=with_peers)
    if csv_file is not None:
        benchmark.save_csv(found, csv_file)
    if save == "-":
        _print_json(benchmark.sweep_json(found))
    else:
        if save is not None:
            benchmark.save(found, Path(save))
        console.stdout().print(benchmark.tabulate_all(found))
    if plot is not None:
        save_figure(answer(found), plot)
    if any(comparison.interrupted for comparison in found):
        raise typer.Exit(_INTERRUPTED)
    if fail_under is not None:
        benchmark.check_ratios(found, fail_under)
    return None


def _check_outputs(csv_file: Path | None, plot: Path | None, save: Path | None) -> None:
    """Raises what writing them would: better said before minutes of measuring."""
    from dyx.bench import check_writable
    from dyx.figures import check_drawable

    if plot is not None:
        check_drawable(plot)
    for path in (csv_file, plot, save):
        if path is not None:
            check_writable(path)


def _scenario(bundles: list[Path], baseline: str | None, where: Where, asked: Scenario, save: str | None) -> None:
    """The part of `dyx bench` that is LoadGen's."""
    from dyx.bench import run_scenarios, scenario_table
    from dyx.lineup import line_up

    with console.Steps() as steps, console.Bar(quiet=save == "-") as bar:
        lineup = line_up(bundles, baseline, where, steps)
        run = run_scenarios(lineup.contenders, asked, skipped=lineup.skipped, progress=bar)
    if save == "-":
        return _print_json(run.to_json())
    if save is not None:
        run.save(Path(save))
    return console.stdout().print(scenario_table(run.results, run.skipped))


@app.command(epilog="Example: dyx train alexnet-dy --data cifar10:cifar-10-python.tar.gz --out runs/mine")
def train(
    model: Model = "alexnet-dy",
    data: Data = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="dyconv, gates, digits, imagenet; by default the model's own.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="In place of the recipe's.")] = None,
    batch: Annotated[int | None, typer.Option(metavar="N", help="Pictures per step, in place of the recipe's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(metavar="R", help="In place of the recipe's.")] = None,
    mixup: Annotated[float | None, typer.Option(metavar="ALPHA", help="Mix pairs of pictures; 0 for none.")] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Of weights, order, augmentation, dropout; 42 by default.")
    ] = None,
    shape: Shape = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder; runs/<model> by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is there.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run that is there.")] = False,
    form: Annotated[
        str, typer.Option(metavar="auto|NAME", help="Of dynamic layers: grouped, columns, mix-outputs, or the fastest.")
    ] = "auto",
    precision: Annotated[
        str | None, typer.Option(metavar="float32|mixed", help="mixed: bfloat16 where that is safe.")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    workers: Annotated[int, typer.Option(metavar="N", help="Processes that prepare pictures.")] = 0,
    save_every: Annotated[
        float, typer.Option(metavar="S", help="Seconds after which the state is kept: what a kill costs at most.")
    ] = 60.0,
    log_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For VisualDL or TensorBoard, where either is installed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a network by its article's recipe: on digits without any download, on CIFAR or on folders of pictures.

    A run keeps its best and last weights, its temperature, curves and figures. Killed, it goes on with --resume as if
    nothing had happened. The recipes: dyconv (SGD, 100 epochs), gates (Adam, 50), digits (Adam, 10), imagenet.
    """
    from dyx.train.loop import train as train_model

    given = {key: value for key, value in locals().items() if key not in ("model", "as_json", "train_model")}
    with console.TrainingLines() as lines:
        run = train_model(model, watch=lines, **given | {"shape": _shape(shape)})
    if as_json:
        return _print_json({"run": str(run.path), **run.record})
    from dyx.tables import run_table

    out_console = console.stdout()
    out_console.print(run_table(run.record))
    return out_console.print(
        f"{run.path}: best/ and final/ weights, run.json, log.csv, pictures\n"
        f"next: dyx export {model} --weights {run.path}",
        soft_wrap=True,
    )


@app.command(name="eval", epilog="Example: dyx eval bundles/alexnet-dy --backend openvino --against runs/alexnet-dy")
def evaluate(
    target: Annotated[Path, typer.Argument(metavar="RUN|BUNDLE", help="A training run, or an exported bundle.")],
    data: Data = None,
    split: Annotated[str, typer.Option(metavar="held-out|train", help="Which of its pictures.")] = "held-out",
    against: Annotated[
        Path | None, typer.Option(metavar="RUN|BUNDLE", help="Count where another network answers the same.")
    ] = None,
    backend: Annotated[str, typer.Option(metavar="NAME", help="Of a bundle: onnxruntime, openvino, paddle.")] = "auto",
    device: Device = "auto",
    threads: Threads = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the confusion matrix: .png, .svg or .pdf.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Count right answers on labelled pictures: of a run's dynamic network, or of an artifact on any backend."""
    from dyx.evaluation import evaluate as evaluate_runner
    from dyx.target import Agreement, data_of, open_target, pictures_of

    images = pictures_of(data or data_of(target), split)

    def answers(path: Path, chosen: str) -> Evaluation:
        with open_target(path, chosen, device, threads) as runner, console.Bar() as bar:
            return evaluate_runner(runner, images, meter=lambda share: bar(f"{runner.contract.name}", share))

    found = answers(target, backend)
    agreement = None if against is None else Agreement.between(found, answers(against, "auto"))
    if plot is not None:
        from dyx.figures import confusion, save_figure

        save_figure(confusion(found.confusion, found.labels), plot)
    if as_json:
        return _print_json({**found.to_json(), "against": agreement and agreement.to_json()})
    from dyx.tables import evaluation_tables

    console.stdout().print(*evaluation_tables(found, f"{split} pictures"))
    return console.stdout().print(agreement.sentence(), soft_wrap=True) if agreement else None


@app.command(epilog="Example: dyx report runs/alexnet-dy bundles/alexnet-dy bench.json --out report.html")
def report(
    places: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|BUNDLE|JSON…",
            help="What `dyx train`, `dyx export` or `dyx bench --json` wrote; all on one page.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page; by default report.html, in a run's own folder where it is alone."),
    ] = None,
) -> None:
    """Draw a page that needs nothing else: a training run, what a bundle folds and proves, a benchmark's samples."""
    from dyx.report.page import write_page
    from dyx.report.places import default_page, page_of

    place = out or default_page(places)
    write_page(page_of(places), place)
    console.stdout().print(f"{place}", soft_wrap=True, markup=False)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _numbers(option: str, text: str | None) -> tuple[int, ...]:
    """Numbers from 1 up, separated by commas; none for None. Raises InvalidOption."""
    parts = [] if text is None else text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise InvalidOption(option, text, "a number from 1 up, or several as 1,8,64")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _number(option: str, text: str | None) -> int | None:
    """One number from 1 up; None for None. Raises InvalidOption."""
    numbers = _numbers(option, text)
    if len(numbers) > 1:
        raise InvalidOption(option, text, "one number, where LoadGen measures (--scenario)")
    return numbers[0] if numbers else None


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
