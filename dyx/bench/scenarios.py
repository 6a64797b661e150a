"""Contenders under MLPerf LoadGen: it asks, a contender answers, and it judges by its own rules.

LoadGen asks and the contender answers in one worker process; the verdict and the figures are read from its log.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from math import ceil, isfinite
from pathlib import Path
from typing import Any

from dyx.bench.contender import Contender, Skipped
from dyx.bench.measure import Progress, within
from dyx.bench.process import WorkerProcess
from dyx.bench.samples import Settings
from dyx.bench.scenario_result import Log, ScenarioResult, ScenarioRun, read_log
from dyx.environment import environment, packages
from dyx.errors import BenchFailed, InvalidOption, OptionNeeded, OutputUnwritable, PackageMissing

PACKAGE = "mlcommons-loadgen"
LATENCY_MS = 100.0
"""The server's bound where none is given: LoadGen's own."""

_MODULE = "mlperf_loadgen"
_WORKER = "dyx.bench.loadgen"
_LEAST_SAMPLES = 64
_MOST_QPS = 1e6
_GIVE_UP_S = 60.0
_GIVE_UP_TIMES = 10
_OFFLINE_MARGIN = 1.25
_LOADGEN_SLACK = 1.1
_SERVER_SHARE = 0.5


@dataclass(frozen=True)
class Kind:
    """What LoadGen calls a scenario, and what it wants of it.

    Attributes:
        loadgen: LoadGen's name of it.
        batch: Samples that are answered in one call, unless told otherwise.
        least_queries: Fewest queries with which LoadGen may say VALID: its early stopping wants 99 % confidence in the
            percentile, and refuses fewer. Offline is one query.
        metric: What LoadGen's summary calls the figure that the scenario is judged by.
        key: The figure's name in LoadGen's detail log.
    """

    loadgen: str
    batch: int
    least_queries: int
    metric: str
    key: str


SCENARIOS = {
    "offline": Kind("Offline", 512, 1, "Samples per second", "result_samples_per_second"),
    "single-stream": Kind(
        "SingleStream", 1, 64, "90.0th percentile latency (ns)", "result_90.00_percentile_latency_ns"
    ),
    "multi-stream": Kind(
        "MultiStream", 8, 662, "99.0th percentile latency (ns)", "result_99.00_percentile_per_query_latency_ns"
    ),
    "server": Kind("Server", 8, 459, "Completed samples per second", "result_completed_samples_per_sec"),
}
_TAKES_RATE = ("offline", "server")
_TAKES_BOUND = ("server",)


@dataclass(frozen=True)
class Scenario:
    """What is asked of LoadGen.

    Attributes:
        name: One of `SCENARIOS`.
        batch: Samples that are answered in one call, at the most; in a multi-stream also those of one query.
        seconds: How long LoadGen asks at the least.
        target_qps: Samples per second: at which a server is asked, or which offline is expected to reach; None to take
            it from a calibration.
        latency_ms: Within which a server must answer 99 % of its samples; None for LoadGen's 100 ms.

    Raises:
        InvalidOption: A value that cannot be, or one that this scenario does not take.
    """

    name: str
    batch: int
    seconds: float
    target_qps: float | None = None
    latency_ms: float | None = None

    def __post_init__(self) -> None:
        if self.name not in SCENARIOS:
            raise InvalidOption("--scenario", self.name, f"one of {', '.join(SCENARIOS)}")
        Settings(self.batch, self.seconds)
        if self.name == "single-stream" and self.batch != 1:
            raise InvalidOption("--batch", self.batch, "1, the only one of single-stream, which asks for one sample")
        for option, value, takers in (
            ("--target-qps", self.target_qps, _TAKES_RATE),
            ("--latency-ms", self.latency_ms, _TAKES_BOUND),
        ):
            if value is not None and self.name not in takers:
                raise InvalidOption("--scenario", self.name, f"one that takes {option}: {', '.join(takers)}")
            if value is not None and not (value > 0 and isfinite(value)):
                raise InvalidOption(option, value, "a number above 0")
        if self.target_qps is not None and self.target_qps > _MOST_QPS:
            raise InvalidOption("--target-qps", self.target_qps, f"a number up to {_MOST_QPS:.0f}")

    @classmethod
    def of(
        cls,
        name: str | None,
        batch: int | None = None,
        seconds: float = 3.0,
        target_qps: float | None = None,
        latency_ms: float | None = None,
    ) -> Scenario:
        """The same with the batch that the scenario usually takes where none is given, and LoadGen there to ask.

        Raises:
            OptionNeeded: No name.
            InvalidOption: As above.
            PackageMissing: LoadGen is not installed.
        """
        if name is None:
            raise OptionNeeded("--scenario", "--target-qps and --latency-ms tell LoadGen how to ask", "server")
        usual = SCENARIOS[name].batch if name in SCENARIOS else 1
        asked = cls(name, usual if batch is None else batch, seconds, target_qps, latency_ms)
        if find_spec(_MODULE) is None:
            raise PackageMissing(PACKAGE, "loadgen")
        return asked

    @property
    def kind(self) -> Kind:
        """What LoadGen calls it and wants of it."""
        return SCENARIOS[self.name]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch sizes to calibrate and warm up; a server also answers samples that come alone."""
        return tuple(dict.fromkeys((1, self.batch))) if self.name == "server" else (self.batch,)


def run_scenarios(
    contenders: Sequence[Contender],
    asked: Scenario,
    *,
    skipped: Sequence[Skipped] = (),
    logs: Path | None = None,
    progress: Progress | None = None,
) -> ScenarioRun:
    """Every contender in one scenario, one after the other; they do not take turns.

    Args:
        contenders: Who takes part.
        asked: The scenario, from `Scenario.of`.
        skipped: Who could not take part, for the report.
        logs: Where each contender's logs of LoadGen are kept, in a folder of its own; they go where there is none.
        progress: Told what goes on.

    Raises:
        BenchFailed: A worker died or answered with an error; no process is left behind.
        KeyboardInterrupt: Before the first contender was through; else the results so far are given back, marked.
    """
    surroundings = environment()
    results: list[ScenarioResult] = []
    for place, contender in enumerate(contenders):
        name = re.sub(r"[^\w.-]+", "-", f"{place + 1}-{contender.name}-{contender.backend}")
        tell = within(progress, place, len(contenders))
        try:
            results.append(_run(contender, asked, logs and logs / name, tell))
        except KeyboardInterrupt:
            if not results:
                raise
            break
    return ScenarioRun(surroundings, tuple(results), tuple(skipped), len(results) < len(contenders))


def run_scenario(  # noqa: PLR0913 - the options of the command, by their names
    contender: Contender,
    scenario: str,
    *,
    batch: int | None = None,
    seconds: float = 3.0,
    target_qps: float | None = None,
    latency_ms: float | None = None,
    logs: Path | None = None,
    progress: Progress | None = None,
) -> ScenarioResult:
    """One contender in one scenario.

    Args:
        contender: Who.
        scenario: One of `SCENARIOS`.
        batch: As in `Scenario`; None for what the scenario usually takes.
        seconds: As in `Scenario`.
        target_qps: As in `Scenario`.
        latency_ms: As in `Scenario`.
        logs: A folder in which LoadGen's logs are kept; they go where there is none.
        progress: Told what goes on.

    Raises:
        InvalidOption: A value that cannot be, or that the scenario does not take.
        PackageMissing: LoadGen is not installed.
        BenchFailed: The worker died or answered with an error; no process is left behind.
    """
    asked = Scenario.of(scenario, batch, seconds, target_qps, latency_ms)
    return _run(contender, asked, logs, within(progress, 0, 1))


def _run(contender: Contender, asked: Scenario, logs: Path | None, tell: Progress) -> ScenarioResult:
    tell(f"{contender.name}: opening", 0.0)
    with _folder(logs) as folder, WorkerProcess(contender, _WORKER) as worker:
        samples = max(_LEAST_SAMPLES, asked.batch)
        opened = worker.ask(opener=contender.opener, arguments=dict(contender.arguments), batch=samples, seed=0)
        tell(f"{contender.name}: warm-up", 0.1)
        fastest_s = worker.ask(do="calibrate", sizes=asked.sizes)["fastest_s"]
        settings = loadgen_settings(asked, dict(zip(asked.sizes, fastest_s, strict=True)))
        tell(f"{contender.name}: {asked.name}", 0.3)
        order = {"scenario": asked.kind.loadgen, "settings": settings, "batch": asked.batch, "folder": folder}
        noted = worker.ask(do="play", **order)
        log = read_log(Path(folder))
        if log is None:
            raise BenchFailed(f"{contender.name} on {contender.backend}", "LoadGen left no verdict in its log")
        return _result(contender, asked, opened, settings, log, noted)


def _result(
    contender: Contender,
    asked: Scenario,
    opened: Mapping[str, Any],
    settings: Mapping[str, Any],
    log: Log,
    noted: Mapping[str, Any],
) -> ScenarioResult:
    return ScenarioResult(
        contender=contender,
        device=opened["device"],
        threads=opened["threads"],
        options=opened["options"],
        scenario=asked.name,
        batch=asked.batch,
        valid=log.valid,
        reasons=log.reasons,
        metric=asked.kind.metric,
        value=float(log.results[asked.kind.key]),
        percentiles_ms=log.percentiles_ms,
        queries=log.results["result_query_count"],
        seconds=noted["seconds"],
        settings=settings,
        loadgen=log.results,
        versions={PACKAGE: version(PACKAGE), **packages()},
        latencies_ns=tuple(noted["latencies_ns"]),
    )


def loadgen_settings(asked: Scenario, fastest_s: Mapping[int, float]) -> dict[str, Any]:
    """What LoadGen is told, by the names of its TestSettings.

    Args:
        asked: The scenario.
        fastest_s: Batch size to seconds of the fastest call, for each of the scenario's sizes.
    """
    given = {"min_duration_ms": ceil(1000 * asked.seconds), "min_query_count": asked.kind.least_queries}
    if asked.name == "offline":
        return given | _offline(asked, fastest_s[asked.batch])
    # What LoadGen wants for a verdict may take far longer than was asked: there is an end to it.
    given["max_duration_ms"] = ceil(1000 * max(_GIVE_UP_S, _GIVE_UP_TIMES * asked.seconds))
    if asked.name == "server":
        return given | _server(asked, fastest_s)
    prefix = asked.name.replace("-", "_")
    several = {"multi_stream_samples_per_query": asked.batch} if asked.name == "multi-stream" else {}
    # LoadGen makes its queries beforehand, for calls as fast as expected: were it told more, they could run out.
    expected_ns = max(1, round(fastest_s[asked.batch] * 1e9 / 2))
    return given | several | {f"{prefix}_expected_latency_ns": expected_ns}


def _offline(asked: Scenario, fastest_s: float) -> dict[str, Any]:
    """The samples that take so many seconds, all at once; a little more than calibration says, in whole batches."""
    expected = asked.target_qps or _OFFLINE_MARGIN * asked.batch / fastest_s
    batches = max(1, ceil(_LOADGEN_SLACK * expected * asked.seconds / asked.batch))
    return {"offline_expected_qps": expected, "min_query_count": batches * asked.batch}


def _server(asked: Scenario, fastest_s: Mapping[int, float]) -> dict[str, Any]:
    """A rate, by default half of what calls of one sample could do, and a bound for 99 % of the samples."""
    bound_s = (asked.latency_ms or LATENCY_MS) / 1e3
    most_per_s = asked.batch / fastest_s[asked.batch]
    return {
        "server_target_qps": asked.target_qps or _SERVER_SHARE / fastest_s[1],
        "server_target_latency_ns": max(1, round(bound_s * 1e9)),
        "server_target_latency_percentile": 0.99,
        # As many may wait as can be answered in the seconds asked for; with more, LoadGen gives up early.
        "server_max_async_queries": asked.batch + ceil(most_per_s * (asked.seconds + bound_s)),
    }


def _folder(kept: Path | None) -> AbstractContextManager[str]:
    """The folder that LoadGen logs into; gone afterwards unless it was asked for. Raises OutputUnwritable."""
    if kept is None:
        return tempfile.TemporaryDirectory(prefix="dyx-loadgen-")
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputUnwritable(kept, error.strerror or str(error)) from error
    return nullcontext(str(kept))
