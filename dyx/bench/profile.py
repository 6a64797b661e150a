"""Contenders profiled: after they were timed, each in a process of its own."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from dyx.bench.compare import Comparison
from dyx.bench.contender import Contender
from dyx.bench.measure import Progress, within
from dyx.bench.process import WorkerProcess
from dyx.bench.samples import Measurement, Settings, times
from dyx.errors import BenchFailed
from dyx.runtime.profile import Profile

LEAST_CALLS, MOST_CALLS = 5, 50
_SECONDS = 2.0


def profiled(comparison: Comparison, progress: Progress | None = None) -> Comparison:
    """The same with a profile of each contender, each made in a process of its own.

    After Ctrl-C those that were made so far are kept, and the comparison says so.
    """
    measurements = list(comparison.measurements)
    wanted = [place for place, seen in enumerate(measurements) if not seen.contender.limit]
    try:
        for number, place in enumerate(wanted):
            seen = measurements[place]
            within(progress, number, len(wanted))(f"{seen.contender.name}: profiling on {seen.contender.backend}", 0.0)
            profile = _profile(seen.contender, comparison.settings, _calls(seen))
            measurements[place] = replace(seen, profile=profile)
    except KeyboardInterrupt:
        comparison = comparison.noted("interrupted: not every contender was profiled")
    return replace(comparison, measurements=tuple(measurements))


def _calls(seen: Measurement) -> int:
    """How many calls are profiled: about two seconds of them."""
    call_s = median(times(seen.turns)) / 1e9
    return max(LEAST_CALLS, min(MOST_CALLS, round(_SECONDS / call_s)))


def _profile(contender: Contender, settings: Settings, calls: int) -> Profile:
    """A contender's profile; where its process fails one that says why, since the timed samples must not be lost."""
    try:
        with WorkerProcess(contender, "dyx.bench.profiler") as worker:
            arguments = dict(contender.arguments)
            worker.ask(opener=contender.opener, arguments=arguments, batch=settings.batch, seed=settings.seed)
            before = Profile.from_json(worker.ask(do="preprocess"))
            seen = Profile.from_json(worker.ask(do="profile", calls=calls))
    except BenchFailed as error:
        return Profile(notes=(str(error),))
    return replace(seen, preprocess_ns=before.preprocess_ns, notes=(*seen.notes, *before.notes))
