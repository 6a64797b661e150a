"""What LoadGen said of a contender, read from its own log, and what dyx noted beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dyx.bench.contender import Contender, Skipped
from dyx.bench.records import read_json_record
from dyx.errors import InvalidOption
from dyx.folder import write_file_whole

SCHEMA = 1
KIND = "dyx-scenario"
PERCENTS = (50.0, 90.0, 95.0, 97.0, 99.0, 99.9)
_DETAIL = "mlperf_log_detail.txt"
_MARK = ":::MLLOG "
_KEPT = ("result_", "early_stopping_", "generated_", "loadgen_version", "num_")


@dataclass(frozen=True)
class ScenarioResult:
    """One contender in one scenario.

    Attributes:
        contender: Who.
        device: Where it computed: `"cpu"` or `"gpu"`.
        threads: How many threads its runner took.
        options: What was asked of the runtime.
        scenario: The scenario's name.
        batch: The most samples that were answered in one call.
        valid: LoadGen's verdict.
        reasons: Why it is INVALID, in LoadGen's words; empty where it is VALID.
        metric: What LoadGen judges the scenario by, as its summary calls it.
        value: Of the metric, in the unit that its name tells.
        percentiles_ms: By LoadGen: `"p50"` … `"p99.9"`, `"mean"`, `"min"`, `"max"`.
        queries: How many queries were answered.
        seconds: From the first sample asked for to the last answer.
        settings: What LoadGen was told, by its own names.
        loadgen: Every result in LoadGen's log, as it stands there.
        versions: Of LoadGen and of the packages that compute.
        latencies_ns: What dyx noted of each sample, from when it was asked for until its answer was there.
    """

    contender: Contender
    device: str
    threads: int
    options: Mapping[str, Any]
    scenario: str
    batch: int
    valid: bool
    reasons: tuple[str, ...]
    metric: str
    value: float
    percentiles_ms: Mapping[str, float]
    queries: int
    seconds: float
    settings: Mapping[str, Any]
    loadgen: Mapping[str, Any]
    versions: Mapping[str, str]
    latencies_ns: tuple[int, ...]

    @property
    def name(self) -> str:
        """The contender's name."""
        return self.contender.name

    @property
    def backend(self) -> str:
        """The contender's backend."""
        return self.contender.backend

    @cached_property
    def own_percentiles_ms(self) -> dict[str, float]:
        """The same percentiles from what dyx noted, by the rank that LoadGen takes."""
        times = sorted(self.latencies_ns)
        ranked = {f"p{percent:g}": times[int(len(times) * (percent / 100))] for percent in PERCENTS}
        values = {**ranked, "mean": sum(times) / len(times), "min": times[0], "max": times[-1]}
        return {key: value / 1e6 for key, value in values.items()}

    @property
    def own_samples_per_s(self) -> float:
        """Samples over the time from the first that was asked for to the last answer."""
        return len(self.latencies_ns) / self.seconds

    def to_json(self) -> dict[str, Any]:
        """The form kept in a saved run, with what dyx takes from its own notes under `own`."""
        own = {"percentiles_ms": self.own_percentiles_ms, "samples_per_s": self.own_samples_per_s}
        return {**asdict(self), "own": own}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> ScenarioResult:
        """The result that `to_json` wrote."""
        parsed: dict[str, Any] = {
            "contender": Contender.from_json(entry["contender"]),
            "reasons": tuple(entry["reasons"]),
            "latencies_ns": tuple(entry["latencies_ns"]),
        }
        return cls(**{key: parsed.get(key, entry[key]) for key in cls.__dataclass_fields__})


@dataclass(frozen=True)
class ScenarioRun:
    """Contenders in one scenario, one after the other.

    Attributes:
        environment: The machine and its software.
        results: One per contender, in the order in which they ran.
        skipped: Who could not take part.
        interrupted: Whether it was stopped before its last contender.
    """

    environment: Mapping[str, Any]
    results: tuple[ScenarioResult, ...]
    skipped: tuple[Skipped, ...] = ()
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Everything that was seen; JSON values only."""
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "environment": dict(self.environment),
            "results": [result.to_json() for result in self.results],
            "skipped": [skipped.to_json() for skipped in self.skipped],
            "interrupted": self.interrupted,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> ScenarioRun:
        """The run that `to_json` wrote. Raises InvalidOption."""
        if entry.get("kind") != KIND or entry.get("schema") != SCHEMA:
            seen = f"{entry.get('kind')} schema {entry.get('schema')}"
            raise InvalidOption("the scenario run", seen, f"{KIND} schema {SCHEMA}")
        results = tuple(map(ScenarioResult.from_json, entry["results"]))
        skipped = tuple(map(Skipped.from_json, entry["skipped"]))
        return cls(entry["environment"], results, skipped, entry.get("interrupted", False))

    def save(self, path: Path) -> None:
        """Write it as JSON. Raises OutputUnwritable."""
        write_file_whole(path, (json.dumps(self.to_json()) + "\n").encode())


def read_scenario_run(path: Path) -> ScenarioRun:
    """The run that `dyx bench --scenario NAME --json FILE` wrote. Raises RecordUnreadable."""
    return read_json_record(path, {(KIND, SCHEMA): ScenarioRun.from_json})


@dataclass(frozen=True)
class Log:
    """What LoadGen logged of one test: every result by its name, and its errors in words."""

    results: Mapping[str, Any]
    errors: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """LoadGen's verdict."""
        return bool(self.results["result_validity"] == "VALID")

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why a test is INVALID: errors, recommendations, and what early stopping still wants; in LoadGen's words."""
        if self.valid:
            return ()
        advice = re.split(r"(?<=\.)\s+", self.results.get("result_invalid_reason", ""))
        stopping = "" if self.results.get("early_stopping_met") else self.results.get("early_stopping_result", "")
        lines = [" ".join(line.split()) for line in (*self.errors, *advice, *stopping.split(" * "))]
        return tuple(line for line in lines if line)

    @property
    def percentiles_ms(self) -> dict[str, float]:
        """LoadGen's own, of queries; of samples where a query is answered in parts."""
        found = {f"p{percent:g}": self._latency_ns(f"{percent:.2f}_percentile") for percent in PERCENTS}
        found |= {name: self._latency_ns(name) for name in ("mean", "min", "max")}
        return {name: value / 1e6 for name, value in found.items()}

    def _latency_ns(self, name: str) -> float:
        of_queries = (
            f"result_{name}_per_query_latency_ns" if "percentile" in name else f"result_{name}_query_latency_ns"
        )
        return float(self.results.get(of_queries, self.results[f"result_{name}_latency_ns"]))


def read_log(folder: Path) -> Log | None:
    """What the detail log in a folder says; None where it holds no verdict."""
    path = folder / _DETAIL
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    entries = [json.loads(line.removeprefix(_MARK)) for line in lines if line.startswith(_MARK)]
    results = {entry["key"]: entry["value"] for entry in entries if entry["key"].startswith(_KEPT)}
    if "result_validity" not in results:
        return None
    return Log(results, _errors(entries))


def _errors(entries: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(str(entry["value"]) for entry in entries if entry["metadata"]["is_error"])
