"""Records of benchmarks read again: statistics taken anew, runs of the same comparison taken together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dyx.bench.compare import KIND, SCHEMA, Comparison
from dyx.bench.contender import Contender
from dyx.bench.records import read_json_record
from dyx.bench.samples import Measurement, Turn
from dyx.errors import UnlikeMachines

SWEEP = "dyx-bench-sweep"
SWEEP_SCHEMA = 1


def read_record(path: Path) -> tuple[Comparison, ...]:
    """The comparisons that `dyx bench --json` wrote. Raises RecordUnreadable."""
    return read_json_record(path, {(KIND, SCHEMA): _alone, (SWEEP, SWEEP_SCHEMA): _all})


def _alone(entry: Mapping[str, Any]) -> tuple[Comparison, ...]:
    return (Comparison.from_json(entry),)


def _all(entry: Mapping[str, Any]) -> tuple[Comparison, ...]:
    return tuple(map(Comparison.from_json, entry["comparisons"]))


def sweep_json(comparisons: Sequence[Comparison], *, raw: bool = False) -> dict[str, Any]:
    """What is kept of comparisons: the one itself, or all of them in one record; `raw` leaves figures out."""
    told = [each.raw() if raw else each.to_json() for each in comparisons]
    return told[0] if len(told) == 1 else {"kind": SWEEP, "schema": SWEEP_SCHEMA, "comparisons": told}


def pool(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Comparisons of the same contenders with the same settings taken together, as runs of one comparison.

    Raises UnlikeMachines where they come from machines or software that differ: their times say nothing together.
    """
    check_alike([comparison.environment for comparison in comparisons])
    groups: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault(_identity(comparison), []).append(comparison)
    return tuple(_joined(members) for members in groups.values())


def check_alike(environments: Sequence[Mapping[str, Any]]) -> None:
    """Raises UnlikeMachines, with every difference, where records are not of one machine and its software."""
    machines = [_machine(environment) for environment in environments]
    first = machines[0] if machines else {}
    for other in machines[1:]:
        differing = {
            key: (first.get(key), other.get(key))
            for key in first.keys() | other.keys()
            if first.get(key) != other.get(key)
        }
        if differing:
            raise UnlikeMachines(dict(sorted(differing.items())))


def _machine(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What a time depends on, and what does not change from run to run."""
    cpu = environment["cpu"]
    hardware = {key: cpu[key] for key in ("model", "architecture", "cores", "usable_cores")}
    gpus = [gpu["name"] for gpu in environment["gpus"]]
    software = {key: environment[key] for key in ("python", "os", "variables")}
    return {**hardware, "memory": environment["memory_bytes"], "GPUs": gpus, **software, **environment["packages"]}


def _identity(comparison: Comparison) -> str:
    """The same text for comparisons of the same contenders with the same settings."""
    settings = comparison.settings
    who = [(_told(seen.contender), seen.device, seen.threads) for seen in comparison.measurements]
    return json.dumps([settings.batch, who])


def _told(contender: Contender) -> dict[str, Any]:
    """A contender without where its files lie: the hashes say which they are."""
    told = contender.to_json()
    if contender.sha256:
        told["arguments"] = {key: value for key, value in contender.arguments.items() if key != "bundle"}
    return told


def _joined(comparisons: Sequence[Comparison]) -> Comparison:
    first = comparisons[0]
    if len(comparisons) == 1:
        return first
    columns = zip(*(comparison.measurements for comparison in comparisons), strict=True)
    return replace(first, measurements=tuple(_in_runs(seen) for seen in columns))


def _in_runs(seen: Sequence[Measurement]) -> Measurement:
    """Measurements of one contender as runs of one measurement."""
    turns: list[Turn] = []
    for measurement in seen:
        behind = 1 + max((turn.run for turn in turns), default=-1)
        turns += [replace(turn, run=behind + turn.run) for turn in measurement.turns]
    return replace(
        seen[0],
        turns=tuple(turns),
        warm_ups=tuple(warm_up for measurement in seen for warm_up in measurement.warm_ups),
        peak_bytes=max(measurement.peak_bytes for measurement in seen),
        gpu_samples=tuple(sample for measurement in seen for sample in measurement.gpu_samples),
        profile=next((measurement.profile for measurement in seen if measurement.profile), None),
    )
