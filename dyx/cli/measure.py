"""Commands that measure, and that draw what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dyx import console
from dyx.cli.app import INTERRUPTED, app
from dyx.cli.options import Backends, Device, number, numbers, print_json
from dyx.errors import OptionsClash

if TYPE_CHECKING:
    from dyx.bench import Comparison, Scenario
    from dyx.lineup import Where

Bundles = Annotated[
    list[Path] | None, typer.Argument(metavar="BUNDLE", help="bundles/alexnet-dy, exported first if missing.")
]
Batches = Annotated[
    str | None,
    typer.Option(metavar="N[,N…]", help="Images per call; 512, or what a scenario usually takes; several for a sweep."),
]
Baseline = Annotated[
    str | None, typer.Option(metavar="NAME|BUNDLE", help="What to compare with; the zoo baseline by default.")
]
ThreadCounts = Annotated[
    str | None, typer.Option(metavar="N[,N…]", help="On a CPU; all cores by default; several for a sweep.")
]
Seconds = Annotated[float, typer.Option(metavar="S", help="How long each side is measured at the least.")]
Runs = Annotated[int, typer.Option(metavar="N", help="Times that all is measured anew, with processes of its own.")]
Peers = Annotated[
    bool, typer.Option("--peers", help="Also: backends' own defaults, the export without folds, the matmul limit.")
]
Profile = Annotated[
    bool,
    typer.Option(
        "--profile",
        help="Also: ms per layer with the rule that made it, from each runtime's own profiler, in calls made after"
        " the timed ones; copies and preprocessing apart.",
    ),
]
Load = Annotated[
    list[Path], typer.Option(metavar="FILE", help="Measure nothing: take statistics of records anew. Repeatable.")
]
FailUnder = Annotated[
    float | None, typer.Option(metavar="RATIO", help="Exit with 1 where a ratio to the baseline is below this.")
]
ScenarioName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Let MLPerf LoadGen ask and judge, one contender after the other. offline: all samples at once;"
        " single-stream: one after the other; multi-stream: 8 a query; server: one by one at random instants.",
    ),
]
TargetQps = Annotated[
    float | None,
    typer.Option(
        metavar="R",
        help="Samples per second: at which a server is asked, by default half of what one at a time could do; or"
        " that offline is expected to reach.",
    ),
]
LatencyMs = Annotated[
    float | None,
    typer.Option(metavar="MS", help="Within which a server must answer 99 % of its samples; by default 100."),
]
Csv = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Figures, a line per row.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw ratios and throughput: .png, .svg or .pdf.")]
Save = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Keep raw samples and figures; - for stdout.")]


@app.command(epilog="Example: dyx bench bundles/mine --batch 512 --backend onnxruntime --json run.json")
def bench(
    bundles: Bundles = None,
    batch: Batches = None,
    baseline: Baseline = None,
    backend: Backends = [],
    device: Device = "auto",
    threads: ThreadCounts = None,
    seconds: Seconds = 3.0,
    runs: Runs = 1,
    with_peers: Peers = False,
    profile: Profile = False,
    load: Load = [],
    fail_under: FailUnder = None,
    scenario: ScenarioName = None,
    target_qps: TargetQps = None,
    latency_ms: LatencyMs = None,
    csv_file: Csv = None,
    plot: Plot = None,
    save: Save = None,
) -> None:
    """Compare bundles with their baseline, taking turns: images/s, latency, memory, and the ratio with its interval.

    Each network and backend runs in a process of its own. Beside them stands the same network in Paddle's eager mode.
    """
    from dyx import bench as benchmark
    from dyx.lineup import Where, measure

    _check_outputs(csv_file, plot, None if save in (None, "-") else Path(str(save)))
    if (scenario, target_qps, latency_ms) != (None, None, None):
        others = {"--runs": runs != 1, "--load": load, "--fail-under": fail_under is not None}
        _check_alone(others | {"--csv": csv_file, "--plot": plot, "--peers": with_peers, "--profile": profile})
        size, count = number("--batch", batch), number("--threads", threads)
        asked = benchmark.Scenario.of(scenario, size, seconds, target_qps, latency_ms)
        return _scenario(bundles or [], baseline, Where(backend, device, count), asked, save)
    plan = benchmark.Plan(numbers("--batch", batch) or (512,), seconds, runs, profile)
    if load:
        found = _loaded(load, profile)
    else:
        places = [Where(backend, device, count) for count in numbers("--threads", threads) or (None,)]
        with console.Steps() as steps, console.Bar(quiet=save == "-") as bar:
            found = measure(bundles or [], baseline, places, plan, steps, bar, with_peers=with_peers)
    _hand_over(found, csv_file, plot, save)
    if any(comparison.interrupted for comparison in found):
        raise typer.Exit(INTERRUPTED)
    return None if fail_under is None else benchmark.check_ratios(found, fail_under)


def _check_outputs(csv_file: Path | None, plot: Path | None, save: Path | None) -> None:
    """Raises what writing them would: better said before minutes of measuring."""
    from dyx.bench import check_writable

    if plot is not None:
        from dyx.figures import check_drawable

        check_drawable(plot)
    for path in (csv_file, plot, save):
        if path is not None:
            check_writable(path)


def _check_alone(others: dict[str, Any]) -> None:
    """Raises OptionsClash for the first of these options that is given beside --scenario."""
    for option in (option for option, given in others.items() if given):
        raise OptionsClash(option, "--scenario", "LoadGen asks and judges in its own way")


def _loaded(records: list[Path], profile: bool) -> tuple[Comparison, ...]:
    """What records tell, pooled. Raises OptionsClash where a profile is asked for."""
    from dyx.bench import pool, read_record

    if profile:
        raise OptionsClash("--profile", "--load", "a record shows what was profiled when it was made")
    return pool([comparison for path in records for comparison in read_record(path)])


def _hand_over(found: tuple[Comparison, ...], csv_file: Path | None, plot: Path | None, save: str | None) -> None:
    """Write what was asked for, and print tables unless JSON goes to stdout."""
    from dyx import bench as benchmark

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
