"""`bench`: contenders in, a comparison out."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dyx.bench.breakdown import broken_down
from dyx.bench.contender import Contender, Skipped, grouped
from dyx.bench.measure import WARM_UP, Interrupted, Progress, measure, within
from dyx.bench.samples import Measurement, Settings
from dyx.bench.stats import AGREE_WITHIN, RESAMPLES
from dyx.bench.summary import Row, summarize
from dyx.bench.turns import LEAST_WINDOWS, MOST_WINDOWS
from dyx.environment import environment
from dyx.errors import InvalidOption, OutputUnwritable
from dyx.folder import write_file_whole

SCHEMA = 1
KIND = "dyx-bench"
METHOD = {
    "timed": "end to end on the host: input array in, float32 array out, copies to and from a device included",
    "warm_up": WARM_UP,
    "lead_in": "a turn of ten calls or more opens with one that is not timed",
    "windows": {"least": LEAST_WINDOWS, "most": MOST_WINDOWS, "agree_within": AGREE_WITHIN},
    "interval": {"percent": 95, "resamples": RESAMPLES, "of": "pairs of turns of one round"},
}


@dataclass(frozen=True)
class Comparison:
    """What a benchmark saw: raw samples and the environment; statistics are taken when they are asked for.

    Attributes:
        environment: The machine and its software.
        settings: What was asked.
        measurements: One per contender, group by group.
        skipped: Who could not take part.
        notes: What a reader must know of the whole, in words.
        interrupted: Whether it was stopped before its time.
        method: How it was measured; a record's own, as the dyx that wrote it told.
    """

    environment: Mapping[str, Any]
    settings: Settings
    measurements: tuple[Measurement, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    method: Mapping[str, Any] = field(default_factory=lambda: METHOD)

    def noted(self, note: str) -> Comparison:
        """The same with one more note; one that tells of an interruption marks it."""
        return replace(self, notes=(*self.notes, note), interrupted=self.interrupted or note.startswith("interrupted"))

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """One row of figures per measurement."""
        return summarize(self.measurements, self.settings)

    def raw(self) -> dict[str, Any]:
        """Everything that was seen, without a statistic; JSON values only."""
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "environment": dict(self.environment),
            "settings": {**asdict(self.settings), "method": dict(self.method)},
            "contenders": [measurement.to_json() for measurement in self.measurements],
            "skipped": [skipped.to_json() for skipped in self.skipped],
            "notes": list(self.notes),
            "interrupted": self.interrupted,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything that was seen, and the figures computed from it under `summary` and `breakdowns`."""
        found = [None if seen.profile is None else broken_down(seen.profile).to_json() for seen in self.measurements]
        return {**self.raw(), "summary": [row.to_json() for row in self.rows], "breakdowns": found}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Comparison:
        """The comparison that `raw` or `to_json` wrote; its statistics are taken anew. Raises InvalidOption."""
        if entry.get("kind") != KIND or entry.get("schema") != SCHEMA:
            seen = f"{entry.get('kind')} schema {entry.get('schema')}"
            raise InvalidOption("the benchmark", seen, f"{KIND} schema {SCHEMA}")
        settings = entry["settings"]
        return cls(
            entry["environment"],
            Settings(settings["batch"], settings["seconds"], settings["seed"]),
            tuple(map(Measurement.from_json, entry["contenders"])),
            tuple(map(Skipped.from_json, entry["skipped"])),
            tuple(entry.get("notes", ())),
            entry.get("interrupted", False),
            settings.get("method", METHOD),
        )

    def save(self, path: Path) -> None:
        """Write the raw samples and the environment, then the same with the figures. Raises OutputUnwritable."""
        for content in (self.raw, self.to_json):
            write_file_whole(path, (json.dumps(content()) + "\n").encode())


def check_writable(path: Path) -> None:
    """Raises OutputUnwritable where `Comparison.save` could not write: better said before minutes of measuring."""
    if path.is_dir():
        raise OutputUnwritable(path, "it is a folder")
    if not path.parent.is_dir():
        raise OutputUnwritable(path, f"there is no folder {path.parent}")
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputUnwritable(path, "permission denied")
    try:
        # Tried, not asked: who may write everywhere cannot write into every folder.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputUnwritable(path, error.strerror or str(error)) from error


def bench(
    contenders: Sequence[Contender],
    *,
    batch: int = 512,
    seconds: float = 3.0,
    skipped: Sequence[Skipped] = (),
    progress: Progress | None = None,
) -> Comparison:
    """Measure contenders against the baseline of their group.

    Each runs in a process of its own; those of a group take turns, group after group.

    Args:
        contenders: Who takes part; a group has at most one baseline.
        batch: Images per call.
        seconds: How long each side is measured at the least; up to three times as long where windows disagree.
        skipped: Who could not take part, for the report.
        progress: Told what goes on.

    Raises:
        InvalidOption: A batch or a time that cannot be, or two baselines in one group.
        BenchFailed: A worker died or answered with an error; no process is left behind.
        KeyboardInterrupt: Where nothing was measured yet; else what was measured so far is given back, marked.
    """
    settings = Settings(batch, seconds)
    groups = grouped(contenders)
    surroundings = environment()
    measurements: list[Measurement] = []
    for number, group in enumerate(groups):
        try:
            measurements += measure(group, settings, within(progress, number, len(groups)))
        except Interrupted as stopped:
            measurements += stopped.measurements
            if not measurements:
                raise KeyboardInterrupt from stopped
            seen = Comparison(surroundings, settings, tuple(measurements), tuple(skipped))
            return seen.noted("interrupted: figures are of what was measured so far")
    return Comparison(surroundings, settings, tuple(measurements), tuple(skipped))
