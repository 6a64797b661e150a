"""A bundle with several graphs, or one that takes large batches in pieces, behind one Runner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from dyx.bundle import Bundle, Graph
from dyx.runtime.profile import Profile
from dyx.runtime.runner import Contract, Runner

if TYPE_CHECKING:
    import numpy as np


class ByBatch(Runner):
    """Takes each batch with the graph that it is for; the others are opened when their first batch comes.

    On a CPU a graph with a `chunk` gets no more images than that at a time: what lies between two layers of a large
    batch would have to go through memory.

    Args:
        bundle: With its graphs.
        open_graph: Opens a bundle of one graph.
    """

    def __init__(self, bundle: Bundle, open_graph: Callable[[Bundle], Runner]) -> None:
        super().__init__(Contract.of(bundle))
        self._bundle, self._open = bundle, open_graph
        self._opened: dict[str, Runner] = {}
        main = self._runner_of(bundle.graphs[-1])
        self.backend, self.device, self.threads, self.options = main.backend, main.device, main.threads, main.options

    def _runner_of(self, graph: Graph) -> Runner:
        if graph.stem not in self._opened:
            self._opened[graph.stem] = self._open(self._bundle.of_graph(graph))
        return self._opened[graph.stem]

    def _runner_for(self, batch: int) -> Runner:
        return self._runner_of(self._bundle.graph_for(batch))

    def _pieces(self, image: np.ndarray) -> list[np.ndarray]:
        """What is taken at a time."""
        chunk = self._bundle.graphs[-1].chunk
        if chunk is None or self.device != "cpu" or len(image) < chunk:
            return [image]
        return [image[start : start + chunk] for start in range(0, len(image), chunk)]

    def _infer(self, image: np.ndarray) -> np.ndarray:
        import numpy as np

        answers = [self._runner_for(len(piece)).run(piece) for piece in self._pieces(image)]
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def on_device(self, image: np.ndarray) -> Callable[[], float] | None:
        """See Runner."""
        return self._runner_for(len(image)).on_device(image)

    def _profile(self, image: np.ndarray, calls: int) -> Profile:
        """Of the first piece of a batch."""
        piece, *others = self._pieces(image)
        found = self._runner_for(len(piece)).profile(piece, calls)
        if not others:
            return found
        note = f"the batch of {len(image)} is taken in pieces of {len(piece)}; this is one of them"
        return replace(found, notes=(*found.notes, note))

    def close(self) -> None:
        for runner in self._opened.values():
            runner.close()
        self._opened.clear()
