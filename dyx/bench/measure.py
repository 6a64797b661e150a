"""One group of contenders, measured: a worker process each, warmed up, then window after window of turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from dyx.bench.contender import Contender
from dyx.bench.process import WorkerProcess
from dyx.bench.samples import ENOUGH, TIME_UP, Measurement, Settings, Turn, WarmUp, last_windows, times
from dyx.bench.stats import KEPT_WINDOWS, agree, median_interval
from dyx.bench.turns import LEAST_WINDOWS, MOST_WINDOWS, Pace, order, pace
from dyx.gpu import gpus

Progress = Callable[[str, float], None]
"""Called with what goes on and the share of the work that is done, from 0 to 1."""


def within(progress: Progress | None, place: int, places: int, title: str = "") -> Progress:
    """What tells of one part of several: its share of the whole, its texts behind a title."""

    def tell(text: str, share: float) -> None:
        if progress is not None:
            progress(title + text, (place + share) / places)

    return tell


WARM_UP = {"calls_wanted": 10, "seconds": 0.2, "least_calls": 2, "most_s": 5.0}
"""Ten calls and 0.2 s; but no more than 5 s once two calls are made (a reference: one)."""

REFERENCE_CALLS = 2
_WARM_UP_SHARE = 0.25


@dataclass
class _Side:
    """One contender while it is measured."""

    contender: Contender
    worker: WorkerProcess
    opened: dict[str, Any]
    warm_up: WarmUp = field(default=WarmUp(0, 0.0))
    fastest_s: float = 0.0
    rest_s: float = 0.0
    turns: list[Turn] = field(default_factory=list)

    def has_enough(self, seconds: float) -> bool:
        """Whether a reference has had its turns; the others have theirs as long as there are windows."""
        made = times(self.turns)
        return self.contender.reference and len(made) >= REFERENCE_CALLS and sum(made) / 1e9 >= seconds


class Interrupted(Exception):
    """Ctrl-C while a group was measured: what was seen of it so far."""

    def __init__(self, measurements: list[Measurement]) -> None:
        super().__init__()
        self.measurements = measurements


def measure(group: Sequence[Contender], settings: Settings, tell: Progress) -> list[Measurement]:
    """Measure the contenders of one group against each other.

    Raises BenchFailed, or Interrupted after Ctrl-C; no process is left behind.
    """
    origin_ns = time.perf_counter_ns()
    sides: list[_Side] = []
    samples: list[list[dict[str, Any]]] = []
    try:
        with ExitStack() as stack:
            # One by one: what is open when Ctrl-C comes is in the list.
            sides.extend(_opened(contender, settings, stack, tell) for contender in group)
            for side in sides:
                tell(f"{side.contender.name}: warm-up", _WARM_UP_SHARE)
                _warm_up(side)
            samples.extend(_run_windows(sides, settings, _pace(sides, settings), origin_ns, tell))
            return [_measurement(side, samples, side.worker.ask(do="memory")["peak_bytes"]) for side in sides]
    except KeyboardInterrupt:
        # A worker may be in the middle of an answer, so that nothing more can be asked of it.
        seen = len(sides) == len(group) and all(side.turns for side in sides)
        raise Interrupted([_measurement(side, samples, 0) for side in sides] if seen else []) from None


def _opened(contender: Contender, settings: Settings, stack: ExitStack, tell: Progress) -> _Side:
    tell(f"{contender.name}: opening", 0.0)
    worker = stack.enter_context(WorkerProcess(contender))
    opened = worker.ask(
        opener=contender.opener, arguments=dict(contender.arguments), batch=settings.batch, seed=settings.seed
    )
    return _Side(contender, worker, opened)


def _warm_up(side: _Side) -> None:
    least_calls = 1 if side.contender.reference else WARM_UP["least_calls"]
    answer = side.worker.ask(do="warm_up", **{**WARM_UP, "least_calls": least_calls})
    turn = _turn(0, 0, answer, 0)
    seconds = (turn.done_ns[-1] - turn.sent_ns[0]) / 1e9
    calls = turn.calls_ns
    side.warm_up = WarmUp(len(calls), seconds, tuple(calls), _ended(len(calls), seconds), side.opened["open_s"])
    side.fastest_s, side.rest_s = min(calls) / 1e9, answer["rest_s"]


def _ended(calls: int, seconds: float) -> str:
    """Why a warm-up was over."""
    return ENOUGH if calls >= WARM_UP["calls_wanted"] and seconds >= WARM_UP["seconds"] else TIME_UP


def _pace(sides: Sequence[_Side], settings: Settings) -> Pace:
    measured = [side for side in sides if not side.contender.reference]
    slowest_s = max((side.fastest_s for side in measured), default=0.0)
    return pace(settings.seconds, slowest_s, max((side.rest_s for side in measured), default=0.0))


def _run_windows(
    sides: Sequence[_Side], settings: Settings, steps: Pace, origin_ns: int, tell: Progress
) -> Iterator[list[dict[str, Any]]]:
    """Three windows, and more until every side is stable, ten at most; gives what the GPUs said after each."""
    on_gpu = any(side.opened["device"] == "gpu" for side in sides)
    for window in range(MOST_WINDOWS):
        if window >= LEAST_WINDOWS and _is_stable(sides):
            break
        title = f"{sides[0].contender.group}: window {window + 1}"
        for step in range(steps.rounds):
            share = _behind(window) + step / steps.rounds * (_behind(window + 1) - _behind(window))
            tell(title + running(sides), _WARM_UP_SHARE + (1 - _WARM_UP_SHARE) * share)
            _run_round(sides, settings, steps, (window, window * steps.rounds + step), origin_ns)
        yield gpus() if on_gpu else []


def _behind(windows: int) -> float:
    """The share that so many windows are of all: nobody knows how many more there will be, and it never falls."""
    return windows / max(LEAST_WINDOWS, windows + 1)


def running(sides: Sequence[_Side]) -> str:
    """The median so far of the first side that is compared, with its 95 % interval, in ms per call."""
    shown = next((side for side in sides if side.turns and not side.contender.baseline), None)
    if shown is None:
        return ""
    calls = times(shown.turns)
    low, high = median_interval(calls)
    return f"  {shown.contender.name} {median(calls) / 1e6:.3g} ms [{low / 1e6:.3g} {high / 1e6:.3g}]"


def _run_round(sides: Sequence[_Side], settings: Settings, steps: Pace, place: tuple[int, int], origin_ns: int) -> None:
    """One turn of every side that is not done; `place` is the window and the round."""
    for side in order(sides, place[1]):
        if not side.has_enough(settings.seconds):
            lead_in = steps.has_lead_in(side.fastest_s)
            answer = side.worker.ask(do="turn", seconds=steps.turn_s, lead_in=lead_in)
            side.turns.append(_turn(*place, answer, origin_ns))


def _is_stable(sides: Sequence[_Side]) -> bool:
    return all(
        agree([times(turns) for turns in last_windows(side.turns, KEPT_WINDOWS)])
        for side in sides
        if not side.contender.reference
    )


def _turn(window: int, round_number: int, answer: dict[str, Any], origin_ns: int) -> Turn:
    sent, done = (tuple(instant - origin_ns for instant in answer[key]) for key in ("sent_ns", "done_ns"))
    return Turn(window, round_number, sent, done, tuple(answer["device_ns"]), cpu_mhz=answer["cpu_mhz"])


def _measurement(side: _Side, samples: list[list[dict[str, Any]]], peak_bytes: int) -> Measurement:
    return Measurement(
        side.contender,
        side.opened["device"],
        side.opened["threads"],
        side.opened["options"],
        (side.warm_up,),
        tuple(side.turns),
        peak_bytes,
        tuple(samples) if side.opened["device"] == "gpu" else (),
    )
