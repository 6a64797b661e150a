"""What a run leaves for people: run.json, log.csv, curves, pictures with their predictions, a log for TensorBoard."""

from __future__ import annotations

import csv
import importlib
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dyx.datasets import ImageSet
from dyx.errors import PackageMissing
from dyx.figures import learning_curves, picture_grid, save_figure
from dyx.folder import write_file_whole
from dyx.runs import CURVES, LOG, PREDICTIONS, RECORD, SCHEMA
from dyx.train.state import State

SHOWN_PICTURES = 18
_DRAW_EVERY_S = 60.0
"""Drawing takes a second or so: an epoch of a small network takes less."""
_LOG_WRITERS = (("visualdl", "LogWriter"), ("tensorboardX", "SummaryWriter"))
"""Package → its writer, in the order in which they are tried."""


class Journal:
    """Keeps the figures of a run as they come, and draws them now and then.

    Args:
        folder: Of the run.
        facts: What run.json says from the first moment on.
        held_out: The pictures, some of which are shown.
        log_dir: Where VisualDL or TensorBoard finds curves, or None.

    Raises:
        PackageMissing: A log was asked for that nothing installed can write.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], held_out: ImageSet, log_dir: Path | str | None) -> None:
        self._folder, self._facts, self._held_out = folder, facts, held_out
        self._log = None if log_dir is None else open_log(Path(log_dir))
        self._drawn_s = time.monotonic()

    def keep(self, state: State, *, finished: bool) -> list[str]:
        """Write the record and what is drawn from it; what the user should hear, in words. Raises OutputUnwritable."""
        history = state.history
        record = {
            "schema": SCHEMA,
            **self._facts,
            "finished": finished,
            "best": state.best,
            "history": history,
            "held_out_images_per_s": history[-1]["held_out_images_per_s"] if history else None,
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        write_file_whole(self._folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())
        if not history:
            return []
        write_file_whole(self._folder / LOG, _table(history).encode())
        return self._draw(state) if finished or time.monotonic() - self._drawn_s > _DRAW_EVERY_S else []

    def _draw(self, state: State) -> list[str]:
        """Training does not fail for want of a package that draws; the user hears of it at the end."""
        try:
            save_figure(learning_curves(state.history), self._folder / CURVES)
            save_figure(self._shown(state), self._folder / PREDICTIONS)
        except PackageMissing as missing:
            return [f"no pictures were drawn: {missing}; {missing.hint}"]
        self._drawn_s = time.monotonic()
        return []

    def _shown(self, state: State) -> Any:
        """Some held-out pictures, each titled with the best weights' prediction and the truth."""
        assert state.best is not None  # the first epoch is the best one so far
        predicted, labels = state.best["predicted"], self._facts["labels"]
        truth = self._held_out.classes[: len(predicted)].tolist()
        titles = [f"{labels[answer]} ({labels[right]})" for answer, right in zip(predicted, truth, strict=True)]
        right = [answer == right for answer, right in zip(predicted, truth, strict=True)]
        return picture_grid([self._held_out.picture(index) for index in range(len(predicted))], titles, right)

    def log(self, row: Mapping[str, Any]) -> None:
        """Add an epoch to the log for TensorBoard or VisualDL, where one was asked for."""
        if self._log is None:
            return
        for key, value in flat(row).items():
            self._log.add_scalar(key, value, row["epoch"])
        self._log.flush()

    def close(self) -> None:
        """Finish that log."""
        if self._log is not None:
            self._log.close()


def flat(row: Mapping[str, Any]) -> dict[str, float]:
    """A row with one number per name: `temperature.dyconv`, `entropy.features.8`."""
    numbers: dict[str, float] = {}
    for key, value in row.items():
        parts = {f"{key}.{part}": each for part, each in value.items()} if isinstance(value, Mapping) else {key: value}
        numbers |= parts
    return numbers


def _table(history: list[dict[str, Any]]) -> str:
    """The rows of a run as CSV."""
    rows = [flat(row) for row in history]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def open_log(folder: Path) -> Any:
    """A writer of curves, by VisualDL or TensorBoard's format. Raises PackageMissing where neither is installed."""
    for package, name in _LOG_WRITERS:
        try:
            return getattr(importlib.import_module(package), name)(str(folder))
        except ModuleNotFoundError:
            continue
    raise PackageMissing(" or ".join(package for package, _ in _LOG_WRITERS), "log")
