"""A bundle with two graphs: each batch goes to the one that it is for, large ones in pieces, on real runtimes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dyx
from dyx.bundle import Bundle, Graph, read_bundle
from dyx.errors import InvalidTensor
from dyx.runtime import BACKENDS
from dyx.runtime.by_batch import ByBatch

CHUNK = 40
"""How many images the main graph takes at a time here: more than it begins with, few enough to be quick."""
Answered = list[tuple[str, int]]


def images(batch: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, 3, 7, 7)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(two_graphs: Path) -> Bundle:
    """The real one, with smaller pieces."""
    found = read_bundle(two_graphs)
    small, main = found.manifest["graphs"]
    return replace(found, manifest={**found.manifest, "graphs": [small, main | {"chunk": CHUNK}]})


@pytest.fixture(params=BACKENDS.names)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def answered(backend: str, monkeypatch: pytest.MonkeyPatch) -> Answered:
    """Which graph's runner computed how many images, call by call."""
    kind, seen = BACKENDS.get(backend), []
    compute = kind._infer

    def noted(self: Any, image: np.ndarray) -> np.ndarray:
        seen.append((self._bundle.stem, len(image)))
        return compute(self, image)

    monkeypatch.setattr(kind, "_infer", noted)
    return seen


@pytest.fixture(scope="module")
def alone(bundle: Bundle) -> Callable[[str, Graph, np.ndarray], np.ndarray]:
    """What one graph of the bundle answers by itself."""

    def run(backend: str, graph: Graph, image: np.ndarray) -> np.ndarray:
        with dyx.open(bundle.of_graph(graph), backend=backend, device="cpu") as runner:
            assert not isinstance(runner, ByBatch)
            return runner.run(image)

    return run


def assert_close(got: np.ndarray, wanted: np.ndarray, share: float = 1e-6) -> None:
    assert got.shape == wanted.shape and got.dtype == np.float32
    assert np.abs(got - wanted).max() <= share * np.abs(wanted).max()


def test_the_bundle_is_worth_testing_with(bundle: Bundle, two_graphs: Path) -> None:
    small, main = bundle.graphs
    assert (small.stem, small.from_batch, small.chunk, main.stem) == ("small", 1, None, "model")
    assert 4 < main.from_batch < CHUNK < 64
    assert read_bundle(two_graphs).graphs[-1].chunk == 1024
    rules = [[site["rule"] for site in bundle.of_graph(graph).manifest["plan"]["sites"]] for graph in bundle.graphs]
    assert rules == [["dyconv/mix-outputs"], ["dyconv/winograd", "conv/winograd"]]


def test_each_batch_is_answered_by_the_graph_that_it_is_for(bundle: Bundle, backend: str, answered: Answered) -> None:
    start = bundle.graphs[-1].from_batch
    with dyx.open(bundle, backend=backend, device="cpu") as runner:
        for batch in (1, start - 1, start, CHUNK - 1, CHUNK, 2, start + 1):
            runner.run(images(batch))
            assert answered.pop() == ("small" if batch < start else "model", batch)
            assert answered == []


def test_answers_are_those_of_the_graph_alone(
    bundle: Bundle, backend: str, alone: Callable[[str, Graph, np.ndarray], np.ndarray]
) -> None:
    small, main = bundle.graphs
    x = images(main.from_batch)
    with dyx.open(bundle, backend=backend, device="cpu") as runner:
        assert_close(runner.run(x[:-1]), alone(backend, small, x[:-1]))
        assert_close(runner.run(x), alone(backend, main, x))
        assert_close(runner.run(x[:1]), alone(backend, small, x[:1]))
        assert_close(runner.run(x)[:-1], runner.run(x[:-1]), 4e-5)


@pytest.mark.parametrize("rest", [0, 3, CHUNK - 1])
def test_a_large_batch_is_taken_in_pieces_in_its_order(
    bundle: Bundle,
    backend: str,
    answered: Answered,
    alone: Callable[[str, Graph, np.ndarray], np.ndarray],
    rest: int,
) -> None:
    x = images(2 * CHUNK + rest)
    with dyx.open(bundle, backend=backend, device="cpu") as runner:
        got = runner.run(x)
    last = {0: [], 3: [("small", 3)], CHUNK - 1: [("model", CHUNK - 1)]}[rest]
    assert answered == [("model", CHUNK), ("model", CHUNK), *last]
    assert_close(got, alone(backend, bundle.graphs[-1], x), 4e-5)


def test_answers_agree_with_the_references(bundle: Bundle, backend: str) -> None:
    samples = bundle.samples()
    rows = np.arange(CHUNK + 5) % len(samples.image)
    with dyx.open(bundle, backend=backend, device="cpu") as runner:
        for batch in (1, 5, CHUNK + 5):
            wanted = samples.logits[rows[:batch]]
            error = np.abs(runner.run(samples.image[rows[:batch]]) - wanted).max()
            assert error < 2e-5 * np.abs(samples.logits).max(), batch


def test_a_graph_is_opened_when_its_first_batch_comes(bundle: Bundle, backend: str) -> None:
    with dyx.open(bundle, backend=backend, device="cpu", threads=1) as runner:
        assert isinstance(runner, ByBatch)
        assert list(runner._opened) == ["model"]
        runner.run(images(CHUNK))
        assert list(runner._opened) == ["model"]
        runner.run(images(1))
        opened = dict(runner._opened)
        assert list(opened) == ["model", "small"]
        runner.run(images(2))
        runner.run(images(CHUNK))
        assert runner._opened == opened, "each is opened once"
        for each in (runner, *opened.values()):
            assert (each.backend, each.device, each.threads) == (backend, "cpu", 1)
            assert each.options == runner.options


def test_what_is_not_asked_for_is_not_read(two_graphs: Path, tmp_path: Path, backend: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(two_graphs, folder)
    with dyx.open(folder, backend=backend, device="cpu") as runner:
        for path in folder.glob("small.*"):
            path.unlink()
        assert runner.run(images(64)).shape == (64, 10)


def test_a_tensor_that_does_not_fit_goes_to_no_graph(bundle: Bundle, backend: str, answered: Answered) -> None:
    with dyx.open(bundle, backend=backend, device="cpu") as runner:
        for wrong in (images(0), images(CHUNK + 1)[:, :2], images(2).astype(np.float64)):
            with pytest.raises(InvalidTensor):
                runner.run(wrong)
    assert answered == []


def test_one_graph_may_take_its_batches_in_pieces_too(bundle: Bundle, backend: str, answered: Answered) -> None:
    main = bundle.manifest["graphs"][-1] | {"from_batch": 1}
    single = replace(bundle, manifest={**bundle.manifest, "graphs": [main]})
    with dyx.open(single, backend=backend, device="cpu") as runner:
        assert runner.run(images(CHUNK + 1)).shape == (CHUNK + 1, 10)
        assert runner.run(images(1)).shape == (1, 10)
    assert answered == [("model", CHUNK), ("model", 1), ("model", 1)]


def test_a_gpu_takes_a_batch_whole(bundle: Bundle) -> None:
    """Its memory is no cache that what lies between two layers would have to fit into."""
    with dyx.open(bundle, device="cpu") as runner:
        assert isinstance(runner, ByBatch)
        x = images(2 * CHUNK + 1)
        assert [len(piece) for piece in runner._pieces(x)] == [CHUNK, CHUNK, 1]
        runner.device = "gpu"
        assert [len(piece) for piece in runner._pieces(x)] == [2 * CHUNK + 1]


def test_a_profile_is_of_the_graph_and_says_which_piece(bundle: Bundle, backend: str) -> None:
    with dyx.open(bundle, backend=backend, device="cpu") as runner:
        rules = {}
        for batch in (2, CHUNK, CHUNK + 1):
            found = runner.profile(images(batch), 2)
            rules[batch] = {node.rule for node in found.nodes if node.rule}
            said = [note for note in found.notes if "in pieces" in note]
            pieces = f"the batch of {CHUNK + 1} is taken in pieces of {CHUNK}; this is one of them"
            assert said == ([pieces] if batch > CHUNK else [])
        assert rules[2] == {"dyconv/mix-outputs"}
        assert rules[CHUNK] == rules[CHUNK + 1] == {"dyconv/winograd", "conv/winograd"}
        assert runner.on_device(images(2)) is None


def test_closing_closes_every_graph(bundle: Bundle, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, closed = BACKENDS.get(backend), []
    close = kind.close

    def noted(self: Any) -> None:
        closed.append(self._bundle.stem)
        close(self)

    monkeypatch.setattr(kind, "close", noted)
    with dyx.open(bundle, backend=backend, device="cpu") as runner:
        runner.run(images(1))
    assert sorted(closed) == ["model", "small"]
    runner.close()
    assert len(closed) == 2, "a second time there is nothing left"
