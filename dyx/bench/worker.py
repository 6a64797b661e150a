"""The process that holds one contender and calls it when told to: `python -m dyx.bench.worker DESCRIPTOR`.

It speaks JSON over the descriptor, never over stdout: whatever a library prints cannot garble it. It ends when the
other end closes, so it does not outlive a parent that was killed.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from dyx.environment import cpu_mhz
from dyx.errors import DyxError
from dyx.preprocess import PIXELS
from dyx.registry import resolve
from dyx.runtime import Runner
from dyx.tensors import TensorSpec

_REST_SHARE = 0.25
_REST_STEP_S = 0.004
_REST_MOST_S = 0.4
_STATUS = Path("/proc/self/status")


def main(
    descriptor: int,
    begin: Callable[[Runner, np.ndarray], Any],
    answers: Mapping[str, Callable[..., Mapping[str, Any]]],
) -> int:
    """Serve one parent until it closes its end; the exit status.

    Args:
        descriptor: Of this end of the pipe.
        begin: Makes, of a runner and its seeded input, what answers are given from.
        answers: Order to the function that gives its answer.
    """
    # Ctrl-C reaches every process of the terminal: the parent decides what becomes of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Connection(descriptor) as connection:
        try:
            _serve(connection, begin, answers)
        except Exception as error:
            traceback.print_exc()
            _send(connection, {"error": _words(error), "expected": isinstance(error, DyxError)})
            return 1
    return 0


def _serve(
    connection: Connection,
    begin: Callable[[Runner, np.ndarray], Any],
    answers: Mapping[str, Callable[..., Mapping[str, Any]]],
) -> None:
    order = _receive(connection)
    if order is None:
        return
    began = time.perf_counter()
    with resolve(order["opener"])(**order["arguments"]) as runner:
        open_s = time.perf_counter() - began
        image = make_input(runner.contract.input, order["batch"], order["seed"])
        told = {"device": runner.device, "threads": runner.threads, "options": runner.options}
        _send(connection, {**told, "open_s": open_s})
        begun = begin(runner, image)
        while (order := _receive(connection)) is not None:
            _send(connection, answers[order.pop("do")](begun, **order))


def make_input(spec: TensorSpec, batch: int, seed: int) -> np.ndarray:
    """A seeded input, the same for every contender that takes the same shape and dtype: normal, or any pixels."""
    shape, random = (batch, *(int(size) for size in spec.shape[1:])), np.random.default_rng(seed)
    if spec.dtype == PIXELS:
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.standard_normal(shape, dtype=np.float32)


class Calls:
    """Calls of one runner on one input, timed."""

    def __init__(self, runner: Runner, image: np.ndarray) -> None:
        self._call: Callable[[], object] = lambda: runner.run(image)
        self._device_call = runner.on_device(image)
        self._threads = runner.threads

    def once(self) -> None:
        """One call that is not timed."""
        self._call()

    def until(self, is_over: Callable[[int, float], bool]) -> dict[str, Any]:
        """One call after another until `is_over(calls, seconds)`: when each began and ended, in ns, and the clock.

        Calls timed by the device follow, as many again, where there is a device.
        """
        sent: list[int] = []
        done: list[int] = []
        while not sent or not is_over(len(sent), (done[-1] - sent[0]) / 1e9):
            sent.append(time.perf_counter_ns())
            self._call()
            done.append(time.perf_counter_ns())
        clock = cpu_mhz(self._threads)  # before the cores come to rest
        device = [round(self._device_call() * 1e9) for _ in sent] if self._device_call else []
        return {"sent_ns": sent, "done_ns": done, "device_ns": device, "cpu_mhz": clock, "rest_s": _rest()}


def _warm_up(calls: Calls, *, calls_wanted: int, seconds: float, least_calls: int, most_s: float) -> dict[str, Any]:
    """Calls until both wants are met, or the most of time is spent on the least of calls."""
    wanted = {"calls_wanted": calls_wanted, "seconds": seconds, "least_calls": least_calls, "most_s": most_s}
    return calls.until(lambda made, spent: is_warm(made, spent, **wanted))


def is_warm(made: int, spent: float, *, calls_wanted: float, seconds: float, least_calls: float, most_s: float) -> bool:
    """Whether so many calls in so many seconds are enough, by `dyx.bench.measure.WARM_UP`."""
    return (made >= calls_wanted and spent >= seconds) or (made >= least_calls and spent >= most_s)


def _turn(calls: Calls, *, seconds: float, lead_in: bool) -> dict[str, Any]:
    """Calls for about so many seconds: another one is begun only if it would end nearer to the end than now."""

    def is_over(made: int, spent: float) -> bool:
        return spent + spent / made / 2 > seconds

    if lead_in:
        calls.once()
    return calls.until(is_over)


def _memory(calls: Calls) -> dict[str, int]:
    return {"peak_bytes": peak_bytes()}


_ANSWERS: dict[str, Callable[..., dict[str, Any]]] = {"warm_up": _warm_up, "turn": _turn, "memory": _memory}


def _rest() -> float:
    """Wait until this process's threads rest; the seconds that it took.

    Some runtimes' threads spin for 0.2 s after a call: they would take the cores from whoever has the next turn.
    """
    started = time.perf_counter()
    is_busy = True
    while is_busy and time.perf_counter() - started < _REST_MOST_S:
        before, used = time.perf_counter(), time.process_time()
        time.sleep(_REST_STEP_S)
        is_busy = time.process_time() - used > _REST_SHARE * (time.perf_counter() - before)
    return time.perf_counter() - started


def peak_bytes() -> int:
    """The most memory that this process ever held."""
    # Not ru_maxrss on Linux: across fork and exec that starts from what the parent had held.
    if _STATUS.is_file():
        lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines())
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    import resource

    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _words(error: Exception) -> str:
    if isinstance(error, DyxError):
        return f"{error}; {error.hint}" if error.hint else str(error)
    return f"{type(error).__name__}: {error}"


def _receive(connection: Connection) -> dict[str, Any] | None:
    try:
        order: dict[str, Any] = json.loads(connection.recv_bytes())
    except EOFError:
        return None
    return order


def _send(connection: Connection, answer: Mapping[str, Any]) -> None:
    connection.send_bytes(json.dumps(answer).encode())


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Calls, _ANSWERS))
