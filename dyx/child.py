"""A Python process that carries out orders, one after another, and what it says meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.connection import Connection, Pipe
from typing import IO, Any

_TAIL_BYTES = 4000


class Child:
    """One process. It gets orders and answers in JSON through a pipe, so that nothing a library prints garbles them.

    Whoever starts it must `end` it; it should end by itself where the other end of its pipe closes.

    Args:
        arguments: Of the interpreter; the descriptor of the process's end of the pipe follows them.
        env: Its environment variables; this process's by default.

    Attributes:
        process: For its status and signals.
        is_busy: Whether it owes an answer; so it stays where whoever asked was interrupted.
    """

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.is_busy = False
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        self._connection: Connection
        self._connection, other_end = Pipe()
        with other_end:
            self.process = subprocess.Popen(
                [sys.executable, *arguments, str(other_end.fileno())],
                pass_fds=[other_end.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env=env,
            )

    def ask(self, order: Any) -> Any:
        """The answer to an order. Raises EOFError, OSError where the process is gone."""
        self.is_busy = True
        self._connection.send_bytes(json.dumps(order).encode())
        answer = self._connection.recv_bytes()
        self.is_busy = False
        return json.loads(answer)

    def status(self, patience_s: float) -> int | None:
        """What it exits with, or less than 0 where a signal ends it; None where it goes on for longer."""
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            return None

    def last_lines(self, most: int) -> list[str]:
        """The end of what it said, without empty lines."""
        # pread leaves the offset alone: the process, if it still writes, writes through the same open file.
        descriptor = self._log.fileno()
        start = max(0, os.fstat(descriptor).st_size - _TAIL_BYTES)
        lines = os.pread(descriptor, _TAIL_BYTES, start).decode(errors="replace").split("\n")
        return [line.rstrip() for line in lines if line.strip()][-most:]

    def hang_up(self) -> None:
        """Close the pipe: it gets no more orders."""
        self._connection.close()

    def end(self) -> None:
        """End it, whatever it is doing."""
        self.hang_up()
        self.process.kill()
        self.process.wait()
        self._log.close()
