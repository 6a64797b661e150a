"""Commands of the deploy half: a bundle and one backend are enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dyx import console
from dyx.cli.app import app
from dyx.cli.options import Backends, Bundle, Data, Device, Json, Threads, print_json
from dyx.errors import ParityMissed

if TYPE_CHECKING:
    from dyx.checks import CheckReport
    from dyx.evaluation import Evaluation


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
        print_json(report.to_json())
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
        return print_json({**opened.manifest, "graphs": [census.to_json() for census in censuses]})
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
        return print_json([{"file": file, "top": [asdict(score) for score in scores]} for file, scores in rows])
    from dyx.tables import predictions_table

    return console.stdout().print(predictions_table(images, predictions))


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
        return print_json({**found.to_json(), "against": agreement and agreement.to_json()})
    from dyx.tables import evaluation_tables

    console.stdout().print(*evaluation_tables(found, f"{split} pictures"))
    return console.stdout().print(agreement.sentence(), soft_wrap=True) if agreement else None
