"""When each side has its turn; pure.

A *round* gives every side one turn. Every second round runs backwards (A B C, C B A), so that a machine that slowly
gets hotter or busier weighs on all sides alike; and every two rounds another side begins, since whoever stands at an
end has two turns on end, the second with warm caches. A *window* is a number of rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TypeVar

LEAST_WINDOWS = 3
MOST_WINDOWS = 10
ROUNDS = 8
LONGEST_TURN_S = 0.25
_CALLS_FOR_LEAD_IN = 10

_Side = TypeVar("_Side")
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Pace:
    """How long a turn is, and how many rounds make a window."""

    turn_s: float
    rounds: int

    def has_lead_in(self, call_s: float) -> bool:
        """Whether a turn opens with a call that is not timed.

        The first call of a turn finds the caches full of others' data. Where a turn holds many calls, that effect of
        taking turns would stand in their 99th percentile; where it holds a few long ones, it does not show.
        """
        return call_s * _CALLS_FOR_LEAD_IN <= self.turn_s


def pace(seconds: float, slowest_call_s: float, slowest_rest_s: float) -> Pace:
    """The pace that gives each side about `seconds` in the least number of windows.

    A turn is no shorter than a call of the slowest side: all sides then have about the same time. Nor, in a window of
    two turns or more, than the slowest side's threads take to come to rest: waiting would cost more than measuring.
    """
    share = seconds / LEAST_WINDOWS
    turn_s = max(min(LONGEST_TURN_S, share / ROUNDS), min(slowest_rest_s, share / 2), slowest_call_s)
    return Pace(turn_s, max(1, ceil(share / turn_s - _ROUNDING)))


def order(sides: Sequence[_Side], round_number: int) -> list[_Side]:
    """The sides in the order of their turns in one round, counted from 0 over all windows."""
    first = round_number // 2 % len(sides)
    forward = [*sides[first:], *sides[:first]]
    return forward if round_number % 2 == 0 else forward[::-1]
