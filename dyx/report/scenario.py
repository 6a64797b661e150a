"""The page of a run under MLPerf LoadGen: verdicts with their reasons, its percentiles, and dyx's own beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dyx.bench.report import figure
from dyx.bench.scenario_report import HEADINGS, INTERRUPTED, how_measured, judged
from dyx.bench.scenario_result import ScenarioResult, ScenarioRun
from dyx.bench.stats import PERCENTS
from dyx.figures import CallTimes, as_svg, latencies
from dyx.report.contenders import hashes_table, opened_with, options_cell
from dyx.report.page import Page, Section, Table, facts_table, told

_PERCENTILES = (
    "LoadGen's are those that it judges by, from when a sample was due; in a multi-stream, one per query. dyx's are one"
    " per sample, from when it was asked for until its answer was there."
)
_LATENCY = "Of every sample, as dyx noted it: the rows of dyx in the table of percentiles."


def scenario_report(run: ScenarioRun) -> Page:
    """The page of a record of `dyx bench --scenario`. Raises PackageMissing."""
    results = run.results
    method = [*([INTERRUPTED] if run.interrupted else []), *(how_measured(results) if results else [])]
    sections = [
        Section("Verdicts", method, tables=[_verdicts_table(results), _reasons_table(results), _skipped_table(run)]),
        Section("Percentiles", [_PERCENTILES], tables=[_percentiles_table(results)]),
        Section("Latency", [_LATENCY], _drawings(results)),
        Section("Contenders", tables=[_contenders_table(results), hashes_table([each.contender for each in results])]),
        Section(
            "Settings", tables=[_facts_table("What LoadGen was told", {_name(each): each.settings for each in results})]
        ),
        Section(
            "LoadGen's log",
            tables=[_facts_table("Every result in it", {_name(each): each.loadgen for each in results})],
        ),
        Section("Environment", tables=[facts_table("The machine and its software", run.environment)]),
    ]
    return Page(_title(results), verdict(run), sections)


def verdict(run: ScenarioRun) -> str:
    """The run in a sentence: who is VALID, and where it ran."""
    invalid = [_name(each) for each in run.results if not each.valid]
    valid = len(run.results) - len(invalid)
    told_invalid = f"; INVALID: {', '.join(invalid)}" if invalid else ""
    return f"{valid} of {len(run.results)} VALID on {run.environment['cpu']['model']}{told_invalid}."


def _title(results: Sequence[ScenarioResult]) -> str:
    if not results:
        return "Nothing asked by MLPerf LoadGen"
    names = ", ".join(dict.fromkeys(each.name for each in results))
    return f"{names}: {results[0].scenario} by MLPerf LoadGen"


def _name(result: ScenarioResult) -> str:
    return f"{result.name} on {result.backend}"


def _verdicts_table(results: Sequence[ScenarioResult]) -> Table:
    """LoadGen's judgement, and the figure that it judged by."""
    rows = [
        (
            *(each.name, each.backend, "VALID" if each.valid else "✗ INVALID", judged(each)),
            *(told(each.queries), told(len(each.latencies_ns)), figure(each.seconds)),
        )
        for each in results
    ]
    figures = (HEADINGS[results[0].scenario] if results else "figure", "queries", "samples", "seconds")
    return Table("By LoadGen", ("network", "backend", "verdict", *figures), rows, figures)


def _reasons_table(results: Sequence[ScenarioResult]) -> Table:
    rows = [(each.name, each.backend, " ".join(each.reasons)) for each in results if not each.valid]
    return Table("Why INVALID, in LoadGen's words", ("network", "backend", "reasons"), rows)


def _skipped_table(run: ScenarioRun) -> Table:
    rows = [(each.name, each.backend, each.reason) for each in run.skipped]
    return Table("Skipped", ("network", "backend", "why"), rows)


def _percentiles_table(results: Sequence[ScenarioResult]) -> Table:
    """Two rows per contender: LoadGen's and dyx's."""
    keys = list(dict.fromkeys(key for each in results for key in each.percentiles_ms))
    rows = [
        (each.name, each.backend, who, *(figure(found.get(key)) for key in keys))
        for each in results
        for who, found in (("LoadGen", each.percentiles_ms), ("dyx", each.own_percentiles_ms))
    ]
    return Table("Latency in ms", ("network", "backend", "by", *keys), rows, keys)


def _drawings(results: Sequence[ScenarioResult]) -> list[str]:
    """A figure per backend: distributions of its contenders on one axis."""
    backends = dict.fromkeys(each.backend for each in results)
    return [
        as_svg(latencies([_times(each) for each in results if each.backend == one], one, "sample")) for one in backends
    ]


def _times(result: ScenarioResult) -> CallTimes:
    marks = {f"p{percent}": result.own_percentiles_ms[f"p{percent}"] for percent in PERCENTS}
    return CallTimes(result.name, [latency / 1e6 for latency in result.latencies_ns], marks)


def _contenders_table(results: Sequence[ScenarioResult]) -> Table:
    rows = [
        (
            *(each.name, each.backend, each.device, told(each.threads), told(each.batch)),
            *(options_cell(each.options), opened_with(each.contender)),
        )
        for each in results
    ]
    headings = ("network", "backend", "device", "threads", "batch", "options", "opened with")
    return Table("Who took part", headings, rows, ("threads", "batch"))


def _facts_table(caption: str, facts: Mapping[str, Mapping[str, object]]) -> Table:
    """A row per fact, a column per contender; names are LoadGen's own."""
    keys = dict.fromkeys(key for each in facts.values() for key in each)
    rows = [(key, *(told(each.get(key)) for each in facts.values())) for key in keys]
    return Table(caption, ("what", *facts), rows)
