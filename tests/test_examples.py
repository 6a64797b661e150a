"""Every example is run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("[0-9]*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    # Two of the three epochs that a user gets: enough for the accuracy below.
    command = [sys.executable, str(example), "--epochs", "2"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "bundles" / "alexnet-dy" / "dyx.json").is_file()
    assert "What lies where" in ran.stdout
    found = json.loads((tmp_path / "demo" / "eval.json").read_text())
    assert found["accuracy"] >= 0.95
    assert found["against"]["same_class"] == found["images"] == 360
    assert (tmp_path / "demo" / "report.html").is_file()


def test_there_are_examples() -> None:
    assert EXAMPLES
