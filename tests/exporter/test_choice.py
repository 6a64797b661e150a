"""From measured speeds to graphs: which candidates, from which batch on, how many images at a time."""

from __future__ import annotations

import pytest

from dyx.exporter.choice import (
    FURTHER_GRAPH_GAIN,
    LARGER_PIECES_GAIN,
    Choice,
    choose,
    crossover,
    fastest_piece,
    piece_sizes,
)

MANY = 3


def test_what_prices_chose_stays_where_nothing_is_faster() -> None:
    gains = {1: {"priced": 1.0, "other": 1.0}, 64: {"priced": 1.0, "other": 0.9}}
    assert choose(gains, MANY) == Choice(("priced",))


def test_every_batch_size_counts_alike() -> None:
    """Twice as fast at one batch size and half as fast at two others is no gain."""
    gains = {1: {"a": 1.0, "b": 2.0}, 8: {"a": 1.0, "b": 0.5}, 64: {"a": 1.0, "b": 0.5}}
    assert choose(gains, 1) == Choice(("a",))
    gains[64]["b"] = 1.1
    assert choose(gains, 1) == Choice(("b",))


def test_a_second_graph_must_be_worth_it() -> None:
    for gain, wanted in ((0.999, Choice(("large",))), (1.001, Choice(("small", "large"), (1,)))):
        gains = {1: {"large": 1.0, "small": FURTHER_GRAPH_GAIN * gain}, 64: {"large": 1.0, "small": 0.5}}
        assert choose(gains, MANY) == wanted
        assert choose(gains, 1) == Choice(("large",))


def test_the_small_graph_ends_where_the_other_is_faster() -> None:
    gains = {1: {"a": 1.0, "b": 0.3}, 8: {"a": 1.0, "b": 0.8}, 64: {"a": 0.7, "b": 1.0}, 512: {"a": 0.6, "b": 1.0}}
    choice = choose(gains, MANY)
    assert choice == Choice(("a", "b"), (8,))
    assert [choice.at(batch) for batch in gains] == ["a", "a", "b", "b"]


@pytest.mark.parametrize("gain", [0.999, 1.001])
def test_a_third_graph_must_be_worth_it_beside_two(gain: float) -> None:
    """Beside one alone it would be at both batch sizes."""
    gains = {
        1: {"a": 1.0, "b": 0.5, "c": 0.3},
        8: {"a": 1.0, "b": FURTHER_GRAPH_GAIN * gain, "c": 0.7},
        64: {"a": 0.4, "b": 0.7, "c": 1.0},
    }
    choice = choose(gains, MANY)
    assert choice == (Choice(("a", "b", "c"), (1, 8)) if gain > 1 else choose(gains, 2))
    assert choose(gains, 2).names[-1] == "c" and len(choose(gains, 2).names) == 2
    assert [choice.at(batch) for batch in gains] == (["a", "b", "c"] if gain > 1 else ["a", "a", "c"])


def test_there_are_no_more_graphs_than_may_be() -> None:
    gains = {batch: {name: 1.0 if name == str(batch) else 0.1 for name in "1248"} for batch in (1, 2, 4, 8)}
    assert choose(gains, 4).names == ("1", "2", "4", "8")
    assert len(choose(gains, MANY).names) == MANY


def test_a_candidate_is_not_chosen_for_a_batch_size_it_was_not_measured_at() -> None:
    gains = {1: {"a": 1.0, "small": 2.0}, 512: {"a": 1.0}}
    assert choose(gains, MANY) == Choice(("small", "a"), (1,))
    assert choose(gains, 1) == Choice(("a",))
    with pytest.raises(ValueError, match="no candidate was measured at every batch size"):
        choose({1: {"a": 1.0}, 512: {"b": 1.0}}, MANY)


@pytest.mark.parametrize("truth", range(2, 513, 3))
def test_crossover_is_the_first_power_of_two_that_is_faster(truth: int) -> None:
    asked = []

    def is_next_faster(batch: int) -> bool:
        asked.append(batch)
        return batch >= truth

    between = [2, 4, 8, 16, 32, 64, 128, 256]
    found = crossover(1, 512, is_next_faster)
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


@pytest.mark.parametrize("larger", [256, None])
def test_larger_pieces_must_be_worth_their_memory(larger: int | None) -> None:
    for gain, wanted in ((0.999, 128), (1.001, larger)):
        gains = {128: 1.0, 64: 0.9, larger: LARGER_PIECES_GAIN * gain}
        assert fastest_piece(gains, 128) == wanted


def test_smaller_pieces_need_only_be_faster() -> None:
    assert fastest_piece({128: 1.0, 64: 1.001, None: 1.04}, 128) == 64
    assert fastest_piece({128: 1.0, 64: 1.0}, 128) == 128
    assert fastest_piece({None: 1.0, 16: 1.001}, None) == 16, "where all are usual, any piece is smaller"
