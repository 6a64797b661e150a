"""From measured speeds to graphs: which candidates, from which batch on, how many images at a time."""

from __future__ import annotations

import pytest

from dyx.exporter.choice import SECOND_GRAPH_GAIN, Choice, choose, crossover, piece_sizes


def test_what_prices_chose_stays_where_nothing_is_faster() -> None:
    gains = {1: {"priced": 1.0, "other": 1.0}, 64: {"priced": 1.0, "other": 0.9}}
    assert choose(gains, single=False) == Choice("priced")


def test_every_batch_size_counts_alike() -> None:
    """Twice as fast at one batch size and half as fast at two others is no gain."""
    gains = {1: {"a": 1.0, "b": 2.0}, 8: {"a": 1.0, "b": 0.5}, 64: {"a": 1.0, "b": 0.5}}
    assert choose(gains, single=True) == Choice("a")
    gains[64]["b"] = 1.1
    assert choose(gains, single=True) == Choice("b")


def test_a_second_graph_must_be_worth_it() -> None:
    for gain, wanted in ((0.999, Choice("large")), (1.001, Choice("large", "small", 1))):
        gains = {1: {"large": 1.0, "small": SECOND_GRAPH_GAIN * gain}, 64: {"large": 1.0, "small": 0.5}}
        assert choose(gains, single=False) == wanted
        assert choose(gains, single=True) == Choice("large")


def test_the_small_graph_ends_where_the_other_is_faster() -> None:
    gains = {1: {"a": 1.0, "b": 0.3}, 8: {"a": 1.0, "b": 0.8}, 64: {"a": 0.7, "b": 1.0}, 512: {"a": 0.6, "b": 1.0}}
    choice = choose(gains, single=False)
    assert choice == Choice("b", "a", 8)
    assert [choice.at(batch) for batch in gains] == ["a", "a", "b", "b"]


def test_a_candidate_is_not_chosen_for_a_batch_size_it_was_not_measured_at() -> None:
    gains = {1: {"a": 1.0, "small": 2.0}, 512: {"a": 1.0}}
    assert choose(gains, single=False) == Choice("a", "small", 1)
    assert choose(gains, single=True) == Choice("a")


@pytest.mark.parametrize("truth", range(2, 513, 3))
def test_crossover_is_the_first_power_of_two_that_is_faster(truth: int) -> None:
    asked = []

    def is_main_faster(batch: int) -> bool:
        asked.append(batch)
        return batch >= truth

    between = [2, 4, 8, 16, 32, 64, 128, 256]
    found = crossover(1, 512, is_main_faster)
    assert found == min(power for power in (*between, 512) if power >= truth)
    assert len(asked) <= 4 and set(asked) <= set(between)


def test_crossover_asks_nothing_where_nothing_lies_between() -> None:
    assert crossover(1, 2, lambda _: pytest.fail("asked")) == 2
    assert crossover(0, 1, lambda _: pytest.fail("asked")) == 1


def test_pieces_around_the_usual_size_and_the_whole() -> None:
    assert piece_sizes(512, 128, 16) == [128, 32, 64, 256, None]
    assert piece_sizes(512, 128, 64) == [128, 64, 256, None]
    assert piece_sizes(64, None, 1) == [None, 16, 32]
    assert piece_sizes(512, None, 32) == [None, 32, 64, 128]
