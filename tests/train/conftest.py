"""A network that trains in seconds, and a finished run of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dyx.runs import Run

TINY = Path(__file__).parents[1] / "data" / "tiny.py"


@pytest.fixture(scope="session")
def tiny() -> str:
    """The name of a tiny dynamic network, as a user would give it."""
    return f"{TINY}:Tiny"


@pytest.fixture(scope="session")
def train_tiny(tiny: str) -> Callable[..., Run]:
    """Train it on digits of 16 pixels, three epochs unless told otherwise."""
    from dyx.train import train

    def run(out: Path, **settings: Any) -> Run:
        usual = {"shape": (3, 16, 16), "epochs": 3, "batch": 64, "learning_rate": 1e-3, "form": "grouped", "threads": 1}
        return train(settings.pop("model", tiny), out=out, **(usual | settings))

    return run


@pytest.fixture(scope="session")
def finished(train_tiny: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run, to look at and not to change."""
    return train_tiny(tmp_path_factory.mktemp("runs") / "tiny")
