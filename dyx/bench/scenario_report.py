"""Results of LoadGen as a table to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dyx.bench.report import figure
from dyx.bench.scenario_result import ScenarioResult, ScenarioRun

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

HEADINGS = {
    "offline": "samples/s",
    "server": "completed/s",
    "single-stream": "p90 ms (judged)",
    "multi-stream": "p99 ms (judged)",
}
"""Scenario to what its figure is called that LoadGen judges by."""

_SHOWN = ("p50", "p90", "p99")
_METHOD = (
    "{scenario}, by MLPerf LoadGen {version}: figures and verdict are its own. Contenders ran one after the other, not"
    " in turns: a machine that changes meanwhile shows as a difference between rows. Timed: end to end on the host,"
    " from when a sample was due until its answer was there, the wait and putting batches together included."
)
INTERRUPTED = "Note: interrupted: those who would have come later are missing."
_ALONE = {
    "offline": "All samples are asked for at once, so latencies tell when in the run an answer came.",
    "server": "Samples come one by one at random instants (Poisson), {rates} a second on average; 99 % must be answered"
    " within {bounds} ms.",
}


def scenario_table(run: ScenarioRun) -> Group:
    """One row per contender, why a run is INVALID beneath, then who was skipped and how it was measured."""
    from rich.console import Group
    from rich.text import Text

    return Group(_table(run.results), *(Text(line) for line in explanation(run)))


def explanation(run: ScenarioRun) -> list[str]:
    """The lines beneath the table."""
    results = run.results
    lines = [INTERRUPTED] if run.interrupted else []
    lines += [
        f"{result.name} on {result.backend} is INVALID: {' '.join(result.reasons)}"
        for result in results
        if not result.valid
    ]
    lines += [f"{each.name} on {each.backend} was skipped: {each.reason}" for each in run.skipped]
    return lines + (how_measured(results) if results else [])


def how_measured(results: Sequence[ScenarioResult]) -> list[str]:
    """What LoadGen asked for, how, and what was timed."""
    first = results[0]
    settings = [result.settings for result in results]
    rates = _listed([each.get("server_target_qps", 0) for each in settings])
    bounds = _listed([each.get("server_target_latency_ns", 0) / 1e6 for each in settings])
    lines = [
        _ALONE.get(first.scenario, "").format(rates=rates, bounds=bounds),
        f"Up to {first.batch} sample{'s' * (first.batch != 1)} a call.",
        _METHOD.format(scenario=first.scenario, version=first.versions.get("mlcommons-loadgen", "")),
    ]
    return [line for line in lines if line]


def _listed(values: Sequence[float]) -> str:
    """Different values, in the order in which they first come."""
    return ", ".join(dict.fromkeys(figure(value) for value in values))


def _table(results: Sequence[ScenarioResult]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heading = HEADINGS[results[0].scenario] if results else "metric"
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for name in ("network", "backend"):
        table.add_column(name, overflow="fold")
    for name in (heading, *(f"{key} ms" if key == _SHOWN[0] else key for key in _SHOWN)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for result in results:
        figures = (judged(result), *(figure(result.percentiles_ms[key]) for key in _SHOWN))
        verdict = Text("VALID", "green") if result.valid else Text("INVALID", "bold red")
        table.add_row(*map(Text, (result.name, result.backend, *figures)), verdict)
    return table


def judged(result: ScenarioResult) -> str:
    """The figure that LoadGen judges by: latencies in ms, where LoadGen gives ns."""
    return figure(result.value / 1e6 if result.metric.endswith("(ns)") else result.value)
