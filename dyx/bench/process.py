"""The parent's side of a worker process."""

from __future__ import annotations

import os
import signal
import sys
from types import TracebackType
from typing import Any, Self

from dyx.bench.contender import Contender
from dyx.child import Child
from dyx.errors import BenchFailed

_TAIL_LINES = 6
_PATIENCE_S = 5.0


class WorkerProcess:
    """A worker for one contender: a context manager that leaves no process behind.

    Attributes:
        contender: Whom it holds.
    """

    def __init__(self, contender: Contender, module: str = "dyx.bench.worker") -> None:
        self.contender = contender
        # What the parent can import, the worker can: openers, and the networks of users behind them.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        # -P: the folder that one happens to stand in is on the path only if it is on the parent's.
        self._child = Child("-P", "-m", module, env={**os.environ, "PYTHONPATH": path})

    def ask(self, **order: Any) -> dict[str, Any]:
        """The worker's answer to an order. Raises BenchFailed where it died or answers with an error."""
        try:
            answer: dict[str, Any] = self._child.ask(order)
        except (EOFError, OSError) as error:
            raise BenchFailed(self._title, self._with_last_lines(self._end())) from error
        if "error" in answer:
            reason = answer["error"]
            raise BenchFailed(self._title, reason if answer["expected"] else self._with_last_lines(reason))
        return answer

    @property
    def _title(self) -> str:
        return f"{self.contender.name} on {self.contender.backend}"

    def _end(self) -> str:
        """How the process ended, in words."""
        status = self._child.status(_PATIENCE_S)
        if status is None:
            return "its process closed its end of the pipe"
        if status >= 0:
            return f"its process ended with exit status {status}"
        name = signal.Signals(-status).name
        return f"its process was ended by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"

    def _with_last_lines(self, reason: str) -> str:
        kept = self._child.last_lines(_TAIL_LINES)
        return "\n  ".join([f"{reason}; its last lines:", *kept]) if kept else reason

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.hang_up()
        if kind is not None:
            self._child.process.terminate()  # it may be in the middle of a long call
        try:
            self._child.status(_PATIENCE_S)
        finally:
            self._child.end()  # also when Ctrl-C comes during the wait
