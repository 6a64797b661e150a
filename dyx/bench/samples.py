"""What a benchmark keeps: every call's instants, before any statistic is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from dyx.bench.contender import Contender
from dyx.errors import InvalidOption
from dyx.runtime.profile import Profile


@dataclass(frozen=True)
class Settings:
    """What was asked of a benchmark.

    Attributes:
        batch: Images per call.
        seconds: How long each side is measured, at the least; it is split over three windows.
        seed: Of the inputs, and of the resampling behind intervals.
    """

    batch: int
    seconds: float
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InvalidOption("--batch", self.batch, "a number from 1 up")
        if not (self.seconds > 0 and isfinite(self.seconds)):
            raise InvalidOption("--seconds", self.seconds, "a number above 0")


@dataclass(frozen=True)
class Turn:
    """The calls that one side made in one round.

    Attributes:
        window: From 0.
        round: From 0, counted over all windows.
        sent_ns: When each call began, from the start of its group; one clock for all sides.
        done_ns: When its answer was there, on the host.
        device_ns: Time on the device, by its own events, of as many calls on inputs that were there already;
            empty on a CPU.
        run: From 0; each run has worker processes of its own.
        cpu_mhz: The clock of the cores that computed, as the operating system told it right after the last call; None
            where it tells nothing, and in records that dyx wrote before it asked.
    """

    window: int
    round: int
    sent_ns: tuple[int, ...]
    done_ns: tuple[int, ...]
    device_ns: tuple[int, ...] = ()
    run: int = 0
    cpu_mhz: float | None = None

    @property
    def calls_ns(self) -> list[int]:
        """How long each call took, end to end."""
        return [done - sent for sent, done in zip(self.sent_ns, self.done_ns, strict=True)]

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Turn:
        """The turn that `asdict` gave."""
        instants = {key: tuple(entry[key]) for key in ("sent_ns", "done_ns", "device_ns")}
        run, clock = entry.get("run", 0), entry.get("cpu_mhz")
        return cls(window=entry["window"], round=entry["round"], run=run, cpu_mhz=clock, **instants)


def by_window(turns: Sequence[Turn]) -> list[list[Turn]]:
    """The turns of each window in which there were any, in order."""
    windows: dict[tuple[int, int], list[Turn]] = {}
    for turn in turns:
        windows.setdefault((turn.run, turn.window), []).append(turn)
    return list(windows.values())


def last_windows(turns: Sequence[Turn], count: int) -> list[list[Turn]]:
    """The turns of the last windows of each run: figures are taken from these."""
    runs: dict[int, list[list[Turn]]] = {}
    for window in by_window(turns):
        runs.setdefault(window[0].run, []).append(window)
    return [window for windows in runs.values() for window in windows[-count:]]


def times(turns: Sequence[Turn]) -> list[int]:
    """How long each call of some turns took, in ns."""
    return [call for turn in turns for call in turn.calls_ns]


ENOUGH = "enough calls and time"
TIME_UP = "time was up"


@dataclass(frozen=True)
class WarmUp:
    """What went before the measuring of one run; its calls are in no figure but their own.

    Attributes:
        calls: How many there were.
        seconds: How long they took together.
        calls_ns: How long each took; empty in records that dyx wrote before it kept them.
        ended: Why there were no more: `ENOUGH` or `TIME_UP`; empty in such records.
        open_s: From the start of the opener until its runner was there: the runtime's import, the comparison of
            hashes, loading and compiling; None in such records.
    """

    calls: int
    seconds: float
    calls_ns: tuple[int, ...] = ()
    ended: str = ""
    open_s: float | None = None

    @property
    def first_ns(self) -> int | None:
        """How long the very first call took; None where that was not kept."""
        return self.calls_ns[0] if self.calls_ns else None

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> WarmUp:
        """The warm-up that `asdict` gave."""
        return cls(**{**entry, "calls_ns": tuple(entry.get("calls_ns", ()))})


@dataclass(frozen=True)
class Measurement:
    """All that was seen of one contender.

    Attributes:
        contender: Who.
        device: Where it computed: `"cpu"` or `"gpu"`.
        threads: How many threads its runner took.
        options: What was asked of the runtime.
        warm_ups: What went before, one per run.
        turns: Every turn of every window, in time order.
        peak_bytes: The most memory that its process ever held on the host, its input included.
        gpu_samples: Per window, what the GPUs said of clocks, power and throttling; empty on a CPU.
        profile: Where the time of a call goes, seen in calls of their own after the timed ones; None where nobody
            asked.
    """

    contender: Contender
    device: str
    threads: int
    options: Mapping[str, Any]
    warm_ups: tuple[WarmUp, ...]
    turns: tuple[Turn, ...]
    peak_bytes: int
    gpu_samples: tuple[Sequence[Mapping[str, Any]], ...] = ()
    profile: Profile | None = None

    def to_json(self) -> dict[str, Any]:
        """The form kept in a saved comparison."""
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Measurement:
        """The measurement that `to_json` wrote."""
        known = dict(entry)
        if "warm_up" in known:  # a record from when the shortest one of all runs was kept, without its calls
            known["warm_ups"] = [known.pop("warm_up")]
        parsed = {
            "contender": Contender.from_json(known["contender"]),
            "warm_ups": tuple(map(WarmUp.from_json, known["warm_ups"])),
            "turns": tuple(map(Turn.from_json, known["turns"])),
            "gpu_samples": tuple(known["gpu_samples"]),
            "profile": Profile.from_json(known["profile"]) if known.get("profile") else None,
        }
        return cls(**{**known, **parsed})
