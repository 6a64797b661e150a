"""From what was measured to the graphs of a bundle; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, permutations
from math import log

FURTHER_GRAPH_GAIN = 1.05
"""A graph more must make some batch size this much faster: it takes room on disk and in memory."""

LARGER_PIECES_GAIN = 1.05
"""Larger pieces than usual must be this much faster: they take more memory."""

Gains = Mapping[int, Mapping[str, float]]
"""Batch size → name of a candidate → its speed there, as a share of what prices chose; without those not measured."""


@dataclass(frozen=True)
class Choice:
    """Which candidates become graphs.

    Attributes:
        names: Of the graphs' candidates, the one for the smallest batches first; of one graph alone its own.
        last: For each but the last of them, the largest of the measured batch sizes that it is for.
    """

    names: tuple[str, ...]
    last: tuple[int, ...] = ()

    def at(self, batch: int) -> str:
        """Whose graph takes a batch of one of the measured sizes."""
        return self.names[sum(batch > last for last in self.last)]


def choose(gains: Gains, most: int) -> Choice:
    """The candidate, or the few, that are fastest over all batch sizes, each counted alike.

    Args:
        gains: The first batch size's first candidate wins ties.
        most: How many graphs there may be.

    Raises:
        ValueError: No candidate was measured at every batch size.
    """
    chosen = _fastest(_choices(gains, 1), gains)
    if chosen is None:
        raise ValueError("no candidate was measured at every batch size")
    for count in range(2, most + 1):
        richer = _fastest(_choices(gains, count), gains)
        if richer is None or _gained(richer, chosen, gains) < FURTHER_GRAPH_GAIN:
            break
        chosen = richer
    return chosen


def _fastest(choices: Iterable[Choice], gains: Gains) -> Choice | None:
    return max(choices, key=lambda choice: sum(log(gains[batch][choice.at(batch)]) for batch in gains), default=None)


def _gained(richer: Choice, chosen: Choice, gains: Gains) -> float:
    """What a graph more gains at the batch size that gains most."""
    return max(gains[batch][richer.at(batch)] / gains[batch][chosen.at(batch)] for batch in gains)


def _choices(gains: Gains, count: int) -> Iterator[Choice]:
    """All of so many graphs whose candidates were measured at the batch sizes that they would be for."""
    every = dict.fromkeys(name for speeds in gains.values() for name in speeds)
    for names in permutations(every, count):
        for last in combinations(sorted(gains)[:-1], count - 1):
            choice = Choice(names, last)
            if all(choice.at(batch) in gains[batch] for batch in gains):
                yield choice


def crossover(last: int, first: int, is_next_faster: Callable[[int], bool]) -> int:
    """The smallest power of two from which the next graph is faster than the one before it.

    Halves the range with every question, on the assumption that the next graph gains as batches grow.

    Args:
        last: Of the batch sizes at which the graph before is known to be faster, the largest.
        first: Of those at which the next is, the smallest: it begins there at the latest.
        is_next_faster: Asked of a batch size.
    """
    between = [2**power for power in range(first.bit_length()) if last < 2**power < first]
    while between:
        middle = len(between) // 2
        if is_next_faster(between[middle]):
            first, between = between[middle], between[:middle]
        else:
            between = between[middle + 1 :]
    return first


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


def fastest_piece(gains: Mapping[int | None, float], usual: int | None) -> int | None:
    """How many images to take at a time: the number that is fastest, None for all.

    More of them than usual take more memory, so they must gain 5 %.

    Args:
        gains: Number of images → its speed, as a share of that of the usual number.
        usual: What would be taken without measuring.
    """

    def worth(size: int | None) -> float:
        more = usual is not None and (size is None or size > usual)
        return gains[size] / LARGER_PIECES_GAIN if more else gains[size]

    return max(gains, key=worth)
