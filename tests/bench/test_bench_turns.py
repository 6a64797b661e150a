"""The schedule of turns."""

from __future__ import annotations

import pytest

from dyx.bench.turns import order, pace


def test_two_sides_go_there_and_back() -> None:
    assert ["".join(order("AB", number)) for number in range(4)] == ["AB", "BA", "BA", "AB"]


@pytest.mark.parametrize("sides", ["AB", "ABC", "ABCDE"])
def test_over_a_full_cycle_every_side_stands_equally_often_at_every_place(sides: str) -> None:
    rounds = [order(sides, number) for number in range(2 * len(sides))]
    for place in range(len(sides)):
        assert sorted(turn[place] for turn in rounds) == sorted(sides * 2)


def test_a_linear_drift_weighs_on_all_sides_alike() -> None:
    turns = [side for number in range(2) for side in order("ABC", number)]
    assert {side: sum(at for at, other in enumerate(turns) if other == side) for side in "ABC"} == dict.fromkeys(
        "ABC", 5
    )


def test_fast_sides_have_turns_of_an_eighth_of_a_window() -> None:
    assert pace(3.0, 0.001, 0.0) == pace(3.0, 0.1, 0.0)
    assert (pace(3.0, 0.001, 0.0).turn_s, pace(3.0, 0.001, 0.0).rounds) == (0.125, 8)


def test_long_runs_have_no_longer_turns_than_a_quarter_second() -> None:
    assert (pace(30.0, 0.001, 0.0).turn_s, pace(30.0, 0.001, 0.0).rounds) == (0.25, 40)


def test_a_turn_is_no_shorter_than_the_slowest_call() -> None:
    assert (pace(3.0, 0.55, 0.0).turn_s, pace(3.0, 0.55, 0.0).rounds) == (0.55, 2)
    assert (pace(3.0, 5.0, 0.0).turn_s, pace(3.0, 5.0, 0.0).rounds) == (5.0, 1)


def test_a_turn_is_no_shorter_than_the_rest_after_it_but_a_window_has_two() -> None:
    assert (pace(3.0, 0.001, 0.2).turn_s, pace(3.0, 0.001, 0.2).rounds) == (0.2, 5)
    assert pace(0.3, 0.001, 0.2).rounds == 2


def test_only_turns_of_many_calls_have_a_lead_in() -> None:
    steps = pace(3.0, 0.02, 0.0)
    assert steps.has_lead_in(0.0125)
    assert not steps.has_lead_in(0.02)
