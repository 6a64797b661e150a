"""Commands of the deploy half: a bundle and one backend are enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dyx import console
from dyx.cli.app import INTERRUPTED, app
from dyx.cli.options import (
    Backends,
    Bundle,
    Data,
    Device,
    Json,
    Threads,
    number,
    numbers,
    print_json,
)
from dyx.errors import OptionsClash, ParityMissed

if TYPE_CHECKING:
    from dyx.bench import Scenario
    from dyx.checks import CheckReport
    from dyx.evaluation import Evaluation
    from dyx.lineup import Where


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
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Also: ms per layer with the rule that made it, from each runtime's own profiler, in calls made after"
            " the timed ones; copies and preprocessing apart.",
        ),
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
    from dyx.lineup import Where, measure

    _check_outputs(csv_file, plot, None if save in (None, "-") else Path(str(save)))
    if (scenario, target_qps, latency_ms) != (None, None, None):
        others = {"--runs": runs != 1, "--load": load, "--fail-under": fail_under is not None}
        others |= {"--csv": csv_file, "--plot": plot, "--peers": with_peers, "--profile": profile}
        for option in (option for option, given in others.items() if given):
            raise OptionsClash(option, "--scenario", "LoadGen asks and judges in its own way")
        size, count = number("--batch", batch), number("--threads", threads)
        asked = benchmark.Scenario.of(scenario, size, seconds, target_qps, latency_ms)
        return _scenario(bundles or [], baseline, Where(backend, device, count), asked, save)
    plan = benchmark.Plan(numbers("--batch", batch) or (512,), seconds, runs, profile)
    if load:
        _check_measures_nothing(profile)
        found = benchmark.pool([comparison for path in load for comparison in benchmark.read_record(path)])
    else:
        places = [Where(backend, device, count) for count in numbers("--threads", threads) or (None,)]
        with console.Steps() as steps, console.Bar(quiet=save == "-") as bar:
            found = measure(bundles or [], baseline, places, plan, steps, bar, with_peers=with_peers)
    if csv_file is not None:
        benchmark.save_csv(found, csv_file)
    if save == "-":
        print_json(benchmark.sweep_json(found))
    else:
        if save is not None:
            benchmark.save(found, Path(save))
        console.stdout().print(benchmark.tabulate_all(found), *benchmark.profile_tables(found), sep="\n")
    if plot is not None:
        from dyx.figures import save_figure
        from dyx.report.comparison import answer

        save_figure(answer(found), plot)
    if any(comparison.interrupted for comparison in found):
        raise typer.Exit(INTERRUPTED)
    if fail_under is not None:
        benchmark.check_ratios(found, fail_under)
    return None


def _check_measures_nothing(profile: bool) -> None:
    """Raises OptionsClash where --load stands beside an option that measures."""
    if profile:
        raise OptionsClash("--profile", "--load", "a record shows what was profiled when it was made")


def _check_outputs(csv_file: Path | None, plot: Path | None, save: Path | None) -> None:
    """Raises what writing them would: better said before minutes of measuring."""
    from dyx.bench import check_writable

    if plot is not None:
        from dyx.figures import check_drawable

        check_drawable(plot)
    for path in (csv_file, plot, save):
        if path is not None:
            check_writable(path)


def _scenario(bundles: list[Path], baseline: str | None, where: Where, asked: Scenario, save: str | None) -> None:
    """The part of `dyx bench` that is LoadGen's."""
    from dyx.bench import run_scenarios, scenario_table
    from dyx.lineup import check_batch, line_up

    with console.Steps() as steps, console.Bar(quiet=save == "-") as bar:
        lineup = line_up(bundles, baseline, where, steps)
        check_batch(lineup.contenders, asked.batch, filled_up=True)
        run = run_scenarios(lineup.contenders, asked, skipped=lineup.skipped, progress=bar)
    if save == "-":
        print_json(run.to_json())
    else:
        if save is not None:
            run.save(Path(save))
        console.stdout().print(scenario_table(run))
    if run.interrupted:
        raise typer.Exit(INTERRUPTED)


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
