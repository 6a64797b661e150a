"""paddle2onnx in a process of its own, which takes one program after another."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from dyx.child import Child
from dyx.errors import ConversionFailed

_PATIENCE_S = 5.0
_TAIL_LINES = 3


class Converter:
    """A context manager that leaves no process behind.

    The process imports Paddle, which takes seconds: it is started once for all graphs of a bundle, and anew only where
    the converter has ended it.
    """

    _spare: ClassVar[list[Child] | None] = None
    """Processes that wait for another export; None where none are kept."""

    def __init__(self) -> None:
        self._child: Child | None = None

    @classmethod
    @contextmanager
    def kept(cls) -> Iterator[None]:
        """Let each export inside hand its process on to the next, where many bundles are made; all end in the end.

        Meanwhile it holds the memory that the largest program took.
        """
        before, cls._spare = cls._spare, []
        try:
            yield
        finally:
            for child in cls._spare:
                child.end()
            cls._spare = before

    def start(self) -> None:
        """Start the process, where there is none, and return at once: it gets ready while others work."""
        self._started()

    def convert(self, program: Path, parameters: Path, out: Path, opset: int) -> None:
        """Write the ONNX file of a Paddle program. Raises ConversionFailed where the converter fails or dies."""
        child = self._started()
        try:
            child.ask([*(str(path.absolute()) for path in (program, parameters, out)), opset])
        except (EOFError, OSError) as error:
            death = f"{_death(child)}; {_last_words(child)}"
            self.close()
            raise ConversionFailed("paddle2onnx", death) from error
        if not out.is_file() or out.stat().st_size == 0:  # it logs errors and goes on
            raise ConversionFailed("paddle2onnx", f"it ended well but wrote no file; {_last_words(child)}")

    def _started(self) -> Child:
        if self._child is None:
            self._child = self._waiting() or Child("-m", "dyx.exporter.paddle2onnx_child")
        return self._child

    def _waiting(self) -> Child | None:
        """One of the processes that are kept, if any has lived on."""
        while self._spare:
            child = self._spare.pop()
            if child.process.poll() is None:
                return child
            child.end()
        return None

    def close(self) -> None:
        """End the process, unless it is kept; what is converted afterwards needs another."""
        child, self._child = self._child, None
        if child is not None and self._spare is not None and not child.is_busy:
            self._spare.append(child)
        elif child is not None:
            child.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _death(child: Child) -> str:
    status = child.status(_PATIENCE_S)
    if status is None:
        return "it closed its end of the pipe"
    return f"it was ended by {signal.Signals(-status).name}" if status < 0 else f"it exited with {status}"


def _last_words(child: Child) -> str:
    lines = [line.strip() for line in child.last_lines(_TAIL_LINES)]
    return f"its last words: {' | '.join(lines)}" if lines else "it said nothing"
