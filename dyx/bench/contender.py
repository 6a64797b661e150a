"""Who takes part in a benchmark, and who could not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dyx.bundle import Bundle
from dyx.errors import InvalidOption
from dyx.preprocess import PIXELS
from dyx.runtime import BACKEND_FORMATS, BACKENDS

OPEN_BUNDLE = "dyx.runtime:open_bundle"


@dataclass(frozen=True)
class Contender:
    """A network on a backend, told in words that a worker process can act on.

    Attributes:
        name: The network's name, as the report shows it.
        backend: The backend's name.
        opener: `"module:function"` of a function that gives a `dyx.runtime.Runner`; imported by the worker alone.
        arguments: What the opener is called with, by name; JSON values only.
        sha256: Model file to its hash, for the record.
        baseline: Whether the others of its group are compared with it.
        reference: Whether it may be far slower than the others, who then do not wait for it: it takes turns only
            until it has made two calls and spent the seconds asked for.
        group: Contenders of one group take turns with each other; the backend unless said otherwise.
        macs: Multiply-accumulates per image, where they are known.
        limit: Whether it is the machine's own limit, which nobody is compared with but every share of the peak.
    """

    name: str
    backend: str
    opener: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    baseline: bool = False
    reference: bool = False
    group: str = ""
    macs: int | None = None
    limit: bool = False

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.backend)

    def to_json(self) -> dict[str, Any]:
        """The form kept in a saved comparison."""
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Contender:
        """The contender that `to_json` wrote."""
        return cls(**entry)


@dataclass(frozen=True)
class Skipped:
    """A contender that was not measured, and why."""

    name: str
    backend: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """The form kept in a saved comparison."""
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, str]) -> Skipped:
        """What `to_json` wrote."""
        return cls(**entry)


def bundle_contender(
    bundle: Bundle,
    backend: str,
    *,
    device: str = "auto",
    threads: int | None = None,
    name: str = "",
    baseline: bool = False,
) -> Contender:
    """A bundle on one backend; its name is its network's unless given, with "(uint8)" if it takes pixels.

    Raises UnknownName.
    """
    files = bundle.files_of(BACKEND_FORMATS[BACKENDS.check(backend)])
    hashes = bundle.manifest["files"]
    return Contender(
        name or (f"{bundle.model} ({PIXELS})" if bundle.input.dtype == PIXELS else bundle.model),
        backend,
        OPEN_BUNDLE,
        {"bundle": str(bundle.path), "backend": backend, "device": device, "threads": threads},
        {file: hashes[file] for file in files if file in hashes},
        baseline,
    )


def grouped(contenders: Sequence[Contender]) -> list[list[Contender]]:
    """The contenders by group, in the order in which the groups first appear.

    Raises InvalidOption where a group has more than one baseline.
    """
    groups: dict[str, list[Contender]] = {}
    for contender in contenders:
        groups.setdefault(contender.group, []).append(contender)
    for name, members in groups.items():
        baselines = [member.name for member in members if member.baseline]
        if len(baselines) > 1:
            raise InvalidOption(f"the baseline of group {name}", ", ".join(baselines), "one contender")
    return list(groups.values())
