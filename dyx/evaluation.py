"""How well a network answers labelled pictures: the dynamic one or any exported artifact, by the same steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dyx.datasets import ImageSet
from dyx.errors import DataUnusable
from dyx.runtime.runner import Runner

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Evaluation:
    """What a network answered.

    Attributes:
        name: The network's.
        backend: What ran it.
        labels: One per class.
        classes: The truth, `(N,)`.
        predicted: The class with the best logit, `(N,)`.
        loss: Mean cross entropy, without label smoothing.
        prepare_s: Spent on turning pictures into inputs.
        infer_s: Spent on answering.
    """

    name: str
    backend: str
    labels: tuple[str, ...]
    classes: np.ndarray
    predicted: np.ndarray
    loss: float
    prepare_s: float
    infer_s: float

    @property
    def correct(self) -> int:
        """Pictures whose class was the best one."""
        return int((self.classes == self.predicted).sum())

    @property
    def accuracy(self) -> float:
        """Share of pictures whose class was the best one."""
        return self.correct / len(self.classes)

    @property
    def images_per_s(self) -> float:
        """Pictures answered per second, preparation included."""
        return len(self.classes) / (self.prepare_s + self.infer_s)

    @cached_property
    def confusion(self) -> np.ndarray:
        """Counts `(C, C)`: a row per true class, a column per predicted one."""
        import numpy as np

        counts = np.zeros((len(self.labels), len(self.labels)), np.int64)
        np.add.at(counts, (self.classes, self.predicted), 1)
        return counts

    def per_class(self) -> list[dict[str, Any]]:
        """Label, pictures, recall, precision and the class most often mistaken for it; None where nothing counts."""
        rows = []
        for index, label in enumerate(self.labels):
            row, column = self.confusion[index], self.confusion[:, index]
            right, wrong = int(row[index]), row.copy()
            wrong[index] = 0
            rows.append(
                {
                    "label": label,
                    "images": int(row.sum()),
                    "recall": right / int(row.sum()) if row.any() else None,
                    "precision": right / int(column.sum()) if column.any() else None,
                    "mistaken_for": self.labels[int(wrong.argmax())] if wrong.any() else None,
                }
            )
        return rows

    def to_json(self) -> dict[str, Any]:
        """Every figure; JSON values only."""
        return {
            "network": self.name,
            "backend": self.backend,
            "images": len(self.classes),
            "correct": self.correct,
            "accuracy": self.accuracy,
            "loss": self.loss,
            "images_per_s": self.images_per_s,
            "prepare_s": self.prepare_s,
            "infer_s": self.infer_s,
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
            "per_class": self.per_class(),
            "predicted": self.predicted.tolist(),
        }


def evaluate(runner: Runner, images: ImageSet, *, meter: Callable[[float], None] | None = None) -> Evaluation:
    """Ask a network for the class of every picture.

    Args:
        runner: A bundle's, or the dynamic network's.
        images: Pictures and their classes.
        meter: Called with the share that is behind.

    Raises:
        DataUnusable: The pictures have classes that the network does not know.
        ImageUnreadable: A picture that cannot be read.
    """
    import numpy as np

    check_classes(runner, images)
    predicted: list[np.ndarray] = []
    loss = prepare_s = infer_s = 0.0
    for start in range(0, len(images), runner.chunk):
        rows = range(start, min(start + runner.chunk, len(images)))
        begun = time.perf_counter()
        prepared = runner.prepare([images.picture(row) for row in rows])
        ready = time.perf_counter()
        logits = runner.answer(prepared)
        prepare_s, infer_s = prepare_s + ready - begun, infer_s + time.perf_counter() - ready
        loss += float(cross_entropy(logits, images.classes[rows.start : rows.stop]).sum())
        predicted.append(logits.argmax(1))
        if meter is not None:
            meter(rows.stop / len(images))
    contract = runner.contract
    answers = np.concatenate(predicted)
    mean = loss / len(images)
    return Evaluation(contract.name, runner.backend, contract.labels, images.classes, answers, mean, prepare_s, infer_s)


def check_classes(runner: Runner, images: ImageSet) -> None:
    """Raises DataUnusable where pictures have classes that the network does not know."""
    known, highest = len(runner.contract.labels), int(images.classes.max())
    if highest >= known:
        raise DataUnusable(
            runner.contract.name, f"its pictures have class {highest}, and the network answers {known} classes"
        )


def cross_entropy(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """`log Σ exp(logits) − logits[class]` of each row, in float64."""
    import numpy as np

    wide = logits.astype(np.float64)
    top = wide.max(1, keepdims=True)
    total = np.log(np.exp(wide - top).sum(1)) + top[:, 0]
    answer: np.ndarray = total - wide[np.arange(len(wide)), classes]
    return answer
