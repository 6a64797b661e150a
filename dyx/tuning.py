"""What `dyx export --tune` measured, as the manifest of a bundle tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TunedBatch:
    """The graph that was chosen for a batch size, and its speed.

    Attributes:
        batch: The batch size.
        candidate: What the record calls the plan behind the graph.
        images_per_s: In turns with the other candidates.
        ratio: Its speed over that of what prices had chosen, with the ends of the 95 % interval where there is one.
    """

    batch: int
    candidate: str
    images_per_s: float
    ratio: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" [{self.low:.2f} {self.high:.2f}]"
        return f"batch {self.batch}: {self.images_per_s:.0f} images/s, {self.ratio:.2f}{interval} × what prices chose"


def tuned_batches(tuning: Mapping[str, Any]) -> tuple[TunedBatch, ...]:
    """One entry per batch size that was measured."""
    found = []
    for batch, seen in tuning["speeds"].items():
        graph = [each for each in tuning["chosen"] if each["from_batch"] <= int(batch)][-1]
        speed = seen[graph["candidate"]]
        figures = (speed[key] for key in ("images_per_s", "ratio", "low", "high"))
        found.append(TunedBatch(int(batch), graph["candidate"], *figures))
    return tuple(found)


def machine_of(tuning: Mapping[str, Any]) -> str:
    """Where it was measured, in words."""
    cpu = tuning["environment"]["cpu"]
    return f"{tuning['backend']} on {cpu['model']}, {cpu['usable_cores']} cores"
