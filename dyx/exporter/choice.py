"""From what was measured to the graphs of a bundle; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from math import log

SECOND_GRAPH_GAIN = 1.05
"""A second graph must make some batch size this much faster: it takes room on disk and in memory."""

Gains = Mapping[int, Mapping[str, float]]
"""Batch size → name of a candidate → its speed there, as a share of what prices chose; without those not measured."""


@dataclass(frozen=True)
class Choice:
    """Which candidates become graphs.

    Attributes:
        main: Of the graph for large batches, or for all.
        small: Of the one for small batches; None where there is one graph.
        last_small: The largest of the measured batch sizes that `small` is for; 0 without one.
    """

    main: str
    small: str | None = None
    last_small: int = 0

    def at(self, batch: int) -> str:
        """Whose graph takes a batch of one of the measured sizes."""
        return self.small if self.small is not None and batch <= self.last_small else self.main


def choose(gains: Gains, *, single: bool) -> Choice:
    """The candidate, or the two, that are fastest over all batch sizes, each counted alike.

    Args:
        gains: The first batch size's first candidate wins ties.
        single: Whether there shall be one graph only.

    Raises:
        ValueError: No candidate was measured at every batch size.
    """
    alone = max(_alone(gains), key=lambda choice: _score(choice, gains))
    pairs = [] if single else list(_pairs(gains))
    if not pairs:
        return alone
    pair = max(pairs, key=lambda choice: _score(choice, gains))
    gained = max(gains[batch][pair.at(batch)] / gains[batch][alone.at(batch)] for batch in gains)
    return pair if gained >= SECOND_GRAPH_GAIN else alone


def _score(choice: Choice, gains: Gains) -> float:
    return sum(log(gains[batch][choice.at(batch)]) for batch in gains)


def _alone(gains: Gains) -> Iterator[Choice]:
    return (Choice(name) for name in _names(gains) if _is_measured(Choice(name), gains))


def _pairs(gains: Gains) -> Iterator[Choice]:
    for small, main in permutations(_names(gains), 2):
        for last_small in sorted(gains)[:-1]:
            choice = Choice(main, small, last_small)
            if _is_measured(choice, gains):
                yield choice


def _names(gains: Gains) -> list[str]:
    return list(dict.fromkeys(name for speeds in gains.values() for name in speeds))


def _is_measured(choice: Choice, gains: Gains) -> bool:
    return all(choice.at(batch) in gains[batch] for batch in gains)


def crossover(last_small: int, first_main: int, is_main_faster: Callable[[int], bool]) -> int:
    """The smallest power of two above `last_small` from which the main graph is faster; `first_main` at the latest.

    Halves the range with every question, on the assumption that the main graph gains as batches grow.
    """
    between = [2**power for power in range(first_main.bit_length()) if last_small < 2**power < first_main]
    while between:
        middle = len(between) // 2
        if is_main_faster(between[middle]):
            first_main, between = between[middle], between[:middle]
        else:
            between = between[middle + 1 :]
    return first_main


def piece_sizes(batch: int, usual: int | None, least: int) -> list[int | None]:
    """Numbers of images at a time to try at a large batch, the usual one first; None takes it whole.

    Args:
        batch: The large batch.
        usual: What would be taken without measuring.
        least: No piece may be smaller: it would be the other graph's.
    """
    around = [usual // 4, usual // 2, usual * 2, usual * 4] if usual else [16, 32, 64, 128]
    wanted = [usual, *around, None]
    return list(dict.fromkeys(size for size in wanted if size is None or least <= size < batch))
