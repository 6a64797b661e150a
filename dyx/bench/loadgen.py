"""The process in which LoadGen asks and one contender answers: `python -m dyx.bench.loadgen DESCRIPTOR`.

LoadGen is C++ with global state, so it never runs in the caller's process. It asks from a thread of its own; the main
thread answers, so that an error in a call is reported as any worker's, whatever LoadGen still waits for.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from dyx.bench.measure import WARM_UP
from dyx.bench.worker import is_warm, main
from dyx.runtime import Runner


class Load:
    """What one contender answers, and how long each answer took.

    Attributes:
        latencies_ns: Of every sample, from when LoadGen asked until its answer was there. Samples that are answered
            in one call share their end.
        first_ns: When the first sample was asked for, on the monotonic clock.
        last_ns: When the last answer was there.
    """

    def __init__(self, runner: Runner, images: np.ndarray) -> None:
        self._runner = runner
        self._images = images
        self._queries: SimpleQueue[tuple[int, Sequence[Any]] | None] = SimpleQueue()
        self.latencies_ns: list[int] = []
        self.first_ns = self.last_ns = 0

    def fastest_s(self, size: int) -> float:
        """The fastest of some calls on so many samples, which also warm up that shape; in seconds."""
        spent: list[float] = []
        while not is_warm(len(spent), sum(spent), **WARM_UP):
            began = time.perf_counter()
            self._runner.answer(self._rows(range(size)))
            spent.append(time.perf_counter() - began)
        return min(spent)

    @property
    def samples(self) -> int:
        """How many different samples there are to ask for."""
        return len(self._images)

    def ask(self, samples: Sequence[Any]) -> None:
        """LoadGen asks for the samples of one query; it is told to wait by getting no answer yet."""
        self._queries.put((time.monotonic_ns(), samples))

    def end(self) -> None:
        """Nothing more will be asked."""
        self._queries.put(None)

    def answer_until_end(self, batch: int) -> None:
        """Answer what is asked, up to `batch` samples a call, until `end`."""
        import mlperf_loadgen as loadgen

        for asked in self._waiting(batch):
            self._runner.answer(self._rows([sample.index for _, sample in asked]))
            answers = [loadgen.QuerySampleResponse(sample.id, 0, 0) for _, sample in asked]
            self.last_ns = time.monotonic_ns()
            loadgen.QuerySamplesComplete(answers)
            self.first_ns = self.first_ns or asked[0][0]
            self.latencies_ns += [self.last_ns - asked_ns for asked_ns, _ in asked]

    def _rows(self, indices: Sequence[int]) -> np.ndarray:
        """Those samples as one batch: putting it together is part of the work that LoadGen times."""
        return np.asarray(self._images[list(indices)])

    def _waiting(self, batch: int) -> Iterator[list[tuple[int, Any]]]:
        """Samples with the instants at which they were asked for, as many as wait, up to `batch` at a time."""
        waiting: deque[tuple[int, Any]] = deque()
        while True:
            query = self._next(wait=not waiting) if len(waiting) < batch else None
            if query is not None:
                waiting.extend((query[0], sample) for sample in query[1])
            elif not waiting:
                return
            else:
                yield [waiting.popleft() for _ in range(min(batch, len(waiting)))]

    def _next(self, *, wait: bool) -> tuple[int, Sequence[Any]] | None:
        """The next query; None after the last, or where none is there and none is waited for."""
        try:
            return self._queries.get(block=wait)
        except Empty:
            return None


def _calibrate(load: Load, *, sizes: Sequence[int]) -> dict[str, Any]:
    """Seconds of the fastest call at each batch size."""
    return {"fastest_s": [load.fastest_s(size) for size in sizes]}


def _play(load: Load, *, scenario: str, settings: Mapping[str, Any], batch: int, folder: str) -> dict[str, Any]:
    """One test of LoadGen, whose logs go into a folder; the latencies that were noted beside its own."""
    asking = Thread(target=_ask, args=(load, scenario, settings, folder), daemon=True)
    asking.start()
    load.answer_until_end(batch)
    asking.join()
    return {"latencies_ns": load.latencies_ns, "seconds": (load.last_ns - load.first_ns) / 1e9}


def _ask(load: Load, scenario: str, settings: Mapping[str, Any], folder: str) -> None:
    """Let LoadGen ask until its test is over."""
    import mlperf_loadgen as loadgen

    system = loadgen.ConstructSUT(load.ask, _nothing)
    library = loadgen.ConstructQSL(load.samples, load.samples, _nothing, _nothing)
    try:
        # Without a name of ours, LoadGen would obey an audit.config in whatever folder one stands in.
        given = (_test_settings(scenario, settings), _log_settings(folder), f"{folder}/audit.config")
        loadgen.StartTestWithLogSettings(system, library, *given)
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)
        load.end()


def _nothing(*_: Any) -> None:
    """Samples lie in memory from the start, and nothing is held back that could be flushed."""


def _test_settings(scenario: str, settings: Mapping[str, Any]) -> Any:
    import mlperf_loadgen as loadgen

    made = loadgen.TestSettings()
    made.scenario = getattr(loadgen.TestScenario, scenario)
    made.mode = loadgen.TestMode.PerformanceOnly
    for name, value in settings.items():
        setattr(made, name, value)
    return made


def _log_settings(folder: str) -> Any:
    import mlperf_loadgen as loadgen

    made = loadgen.LogSettings()
    made.log_output.outdir = folder
    made.enable_trace = False
    return made


_ANSWERS: dict[str, Callable[..., dict[str, Any]]] = {"calibrate": _calibrate, "play": _play}

if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Load, _ANSWERS))
