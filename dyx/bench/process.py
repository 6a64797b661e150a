"""The parent's side of a worker process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing.connection import Pipe
from types import TracebackType
from typing import Any, Self

from dyx.bench.contender import Contender
from dyx.errors import BenchFailed

_TAIL_LINES = 6
_TAIL_BYTES = 4000
_PATIENCE_S = 5.0


class WorkerProcess:
    """A worker for one contender: a context manager that leaves no process behind.

    Attributes:
        contender: Whom it holds.
    """

    def __init__(self, contender: Contender, module: str = "dyx.bench.worker") -> None:
        self.contender = contender
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - __exit__ closes it
        self._connection, other_end = Pipe()
        with other_end:
            self._process = subprocess.Popen(
                # -P: the folder that one happens to stand in is on the path only if it is on the parent's.
                [sys.executable, "-P", "-m", module, str(other_end.fileno())],
                pass_fds=[other_end.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                # What the parent can import, the worker can: openers, and the networks of users behind them.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
            )

    def ask(self, **order: Any) -> dict[str, Any]:
        """The worker's answer to an order. Raises BenchFailed where it died or answers with an error."""
        try:
            self._connection.send_bytes(json.dumps(order).encode())
            answer: dict[str, Any] = json.loads(self._connection.recv_bytes())
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
        try:
            status = self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            return "its process closed its end of the pipe"
        if status >= 0:
            return f"its process ended with exit status {status}"
        name = signal.Signals(-status).name
        return f"its process was ended by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"

    def _with_last_lines(self, reason: str) -> str:
        # pread leaves the offset alone: the worker, if it still writes, writes through the same open file.
        descriptor = self._log.fileno()
        start = max(0, os.fstat(descriptor).st_size - _TAIL_BYTES)
        lines = os.pread(descriptor, _TAIL_BYTES, start).decode(errors="replace").split("\n")
        kept = [line.rstrip() for line in lines if line.strip()][-_TAIL_LINES:]
        return "\n  ".join([f"{reason}; its last lines:", *kept]) if kept else reason

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        if kind is not None:
            self._process.terminate()  # it may be in the middle of a long call
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            pass  # killed below, as it is when Ctrl-C comes during the wait
        finally:
            self._process.kill()
            self._process.wait()
            self._log.close()
