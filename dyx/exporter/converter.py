"""paddle2onnx in a process of its own, which takes one program after another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from dyx.errors import ConversionFailed

_PATIENCE_S = 5.0
_TAIL_BYTES = 4000


class Converter:
    """A context manager that leaves no process behind.

    The process imports Paddle, which takes seconds: it is started once for all graphs of a bundle, and anew only where
    the converter has ended it.
    """

    def __init__(self) -> None:
        self._child: _Child | None = None

    def start(self) -> None:
        """Start the process, where there is none, and return at once: it gets ready while others work."""
        if self._child is None:
            self._child = _Child()

    def convert(self, program: Path, parameters: Path, out: Path, opset: int) -> None:
        """Write the ONNX file of a Paddle program. Raises ConversionFailed where the converter fails or dies."""
        self.start()
        assert self._child is not None
        order: list[str | int] = [*(str(path.absolute()) for path in (program, parameters, out)), opset]
        try:
            self._child.ask(order)
        except (EOFError, OSError) as error:
            death = self._child.death()
            self.close()
            raise ConversionFailed("paddle2onnx", death) from error
        if not out.is_file() or out.stat().st_size == 0:  # it logs errors and goes on
            raise ConversionFailed("paddle2onnx", f"it ended well but wrote no file; {self._child.last_words()}")

    def close(self) -> None:
        """End the process; what is converted afterwards starts another."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Child:
    """One process, and what it says."""

    def __init__(self) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        self._connection: Connection
        self._connection, other_end = Pipe()
        with other_end:
            command = [sys.executable, "-m", "dyx.exporter.paddle2onnx_child", str(other_end.fileno())]
            self._process = subprocess.Popen(
                command,
                pass_fds=[other_end.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
            )

    def ask(self, order: list[str | int]) -> None:
        """Return when an order is carried out. Raises EOFError, OSError where the process ended."""
        self._connection.send_bytes(json.dumps(order).encode())
        self._connection.recv_bytes()

    def death(self) -> str:
        """How the process ended, in words."""
        try:
            status = self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            return f"it closed its end of the pipe; {self.last_words()}"
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
        return f"it {how}; {self.last_words()}"

    def last_words(self) -> str:
        """The end of what it said."""
        # pread leaves the offset alone: the process writes through the same open file.
        descriptor = self._log.fileno()
        start = max(0, os.fstat(descriptor).st_size - _TAIL_BYTES)
        said = os.pread(descriptor, _TAIL_BYTES, start).decode(errors="replace")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return f"its last words: {' | '.join(lines[-3:])}" if lines else "it said nothing"

    def end(self) -> None:
        """End the process, whatever it is doing; it has nothing to lose."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._log.close()
