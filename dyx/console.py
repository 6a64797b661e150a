"""What a person at a terminal sees while something runs. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn
    from rich.status import Status

    from dyx.errors import DyxError

_WIDE = 100


def stdout() -> Console:
    """The console for results; wide where nobody watches, so that tables in a file do not wrap."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)


def stderr() -> Console:
    """The console for progress, notes and errors."""
    from rich.console import Console

    return Console(stderr=True, width=None if sys.stderr.isatty() else _WIDE, highlight=False, soft_wrap=True)


def show_error(error: DyxError) -> None:
    """An error in one sentence, and what to do."""
    from rich.markup import escape

    console = stderr()
    console.print(f"[bold red]error:[/] {escape(str(error))}")
    if error.hint:
        console.print(f"[dim] hint:[/] {escape(error.hint)}")


def show_note(text: str) -> None:
    """Something that the user should hear, said aloud."""
    from rich.markup import escape

    stderr().print(f"[bold yellow] note:[/] {escape(text)}")


class Steps:
    """Progress of long work: a spinner with the step's name on a terminal, a plain line per step elsewhere."""

    def __init__(self) -> None:
        self._console = stderr()
        self._status: Status | None = None
        self._step = ""
        self._since_s = 0.0

    def __call__(self, step: str) -> None:
        """The work has come to this step."""
        self._finish()
        self._step, self._since_s = step, time.perf_counter()
        if self._status is not None:
            self._status.update(f"{step} …")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        if self._status is not None:
            self._status.stop()

    def _finish(self) -> None:
        if self._step:
            self._console.print(f"[dim]{time.perf_counter() - self._since_s:6.1f} s[/]  {self._step}")
        self._step = ""


class _LiveBar:
    """A bar on a terminal, with what is done and the share that is behind; abstract.

    Args:
        columns: What stands behind the share.
        width: Of the bar; None for the usual one.
        quiet: Show nothing.
    """

    def __init__(self, *columns: ProgressColumn, width: int | None = 40, quiet: bool = False) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        usual = (TextColumn("{task.description}"), BarColumn(width), TextColumn("{task.percentage:3.0f} %"))
        self._console, self._quiet = stderr(), quiet
        self._progress = Progress(*usual, *columns, console=self._console, transient=True)
        self._task = self._progress.add_task("", total=1.0)

    def _show(self, text: str, share: float | None = None) -> None:
        """This is being done, and so much is behind; None leaves the bar where it is."""
        from rich.markup import escape

        self._progress.update(self._task, description=escape(text), completed=share)

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress.live.is_started:  # stopping what never began prints an empty line
            self._progress.stop()


class TrainingLines(_LiveBar):
    """A training run as it goes: a bar with images/s and the time left on a terminal, a line per epoch anywhere."""

    def __init__(self) -> None:
        from rich.progress import TextColumn, TimeRemainingColumn

        super().__init__(TimeRemainingColumn(), TextColumn("left"), width=20)

    def doing(self, text: str) -> None:
        """A plain line."""
        from rich.markup import escape

        self._console.print(f"[dim]·[/] {escape(text)}")
        self._show(text)

    def note(self, text: str) -> None:
        """A note."""
        show_note(text)

    def step(self, text: str, share: float) -> None:
        """The bar moves."""
        self._show(text, share)

    def epoch(self, row: Mapping[str, Any], epochs: int) -> None:
        """A line of figures."""
        heat = "".join(f"  T {value:g}" for value in row["temperature"].values())
        self._console.print(
            f"[dim]{row['seconds']:6.1f} s[/]  epoch {row['epoch']}/{epochs}  loss {row['loss']:.3f}"
            f"  train {row['accuracy']:.1%}  held out [bold]{row['held_out_accuracy']:.2%}[/]{heat}"
            f"  {row['images_per_s']:.0f} images/s"
        )


class Bar(_LiveBar):
    """Progress of a measurement: a bar with the share done and figures so far on a terminal, plain lines elsewhere.

    Args:
        quiet: Say nothing at all.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        from rich.progress import TimeElapsedColumn

        super().__init__(TimeElapsedColumn(), quiet=quiet)
        self._told = ""

    def __call__(self, text: str, share: float) -> None:
        """This is being done, and so much of the whole is behind; figures so far stand behind two spaces at the end."""
        from rich.markup import escape

        self._show(text, share)
        step = text.rpartition("  ")[0] if text.endswith("]") else text
        if not (self._quiet or self._console.is_terminal or step == self._told):
            self._console.print(f"[dim]{share:4.0%}[/]  {escape(text)}")
            self._told = step
