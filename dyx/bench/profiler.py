"""The process in which one contender is profiled: `python -m dyx.bench.profiler DESCRIPTOR`.

It is none of those that were timed: a profiler slows calls down, and the session that it watches takes memory.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dyx.bench.picture import write_picture
from dyx.bench.worker import main
from dyx.errors import DyxError, PackageMissing
from dyx.runtime import Runner
from dyx.runtime.profile import Profile, timed_warm

_PICTURES = 20


class Profiled:
    """A contender and its input."""

    def __init__(self, runner: Runner, image: np.ndarray) -> None:
        self.runner, self.image = runner, image


def _preprocess(held: Profiled) -> dict[str, Any]:
    """How long the preprocessing of a picture takes: read, decoded, resized, normalised unless the graph does that."""
    with TemporaryDirectory(prefix="dyx-") as folder:
        file = Path(folder) / "picture.jpg"
        try:
            write_picture(file)
        except PackageMissing as missing:
            return Profile(notes=(f"preprocessing was not timed: {missing}",)).to_json()
        return Profile(preprocess_ns=timed_warm(lambda: held.runner.contract.prepare(file), _PICTURES)).to_json()


def _profile(held: Profiled, *, calls: int) -> dict[str, Any]:
    """So many calls with the runtime's profiler on; a profile that only says why where there can be none."""
    try:
        return held.runner.profile(held.image, calls).to_json()
    except DyxError as error:
        return Profile(notes=(str(error),)).to_json()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Profiled, {"preprocess": _preprocess, "profile": _profile}))
