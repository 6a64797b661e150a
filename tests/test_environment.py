"""What is recorded of the machine, and what importing costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dyx.environment import environment
from dyx.gpu import gpus

FRAMEWORKS = ("paddle", "onnxruntime", "openvino", "onnx", "rich", "pynvml")


def test_the_environment_is_json_and_names_machine_and_software() -> None:
    told = json.loads(json.dumps(environment(), allow_nan=False))
    assert told["cpu"]["model"] and told["cpu"]["cores"] >= told["cpu"]["usable_cores"] >= 1
    assert told["memory_bytes"] > 2**28
    assert {"numpy", "onnxruntime"} <= set(told["packages"])
    assert told["start_utc"].endswith("+00:00")
    assert told["command"] == [Path(sys.argv[0]).name, *sys.argv[1:]], "no path of this machine"


def test_importing_bench_imports_no_framework() -> None:
    code = f"import sys, dyx.bench; print([name for name in {FRAMEWORKS} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def fake_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of nvidia-smi's name, first on the path, and no pynvml."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_nvidia_smi_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "NVIDIA H200, 550.54, 1980, 3201, 123.4, 41, 0x0000000000000004"
    fake_smi(tmp_path, f"echo '{line}'; echo 'Old card, 550.54, [N/A], [N/A], [N/A], 41, [N/A]'", monkeypatch)
    first, second = gpus()
    assert first == {
        "name": "NVIDIA H200",
        "driver": "550.54",
        "sm_clock_mhz": 1980.0,
        "memory_clock_mhz": 3201.0,
        "power_w": 123.4,
        "temperature_c": 41.0,
        "throttle_mask": 4,
    }
    assert (second["power_w"], second["throttle_mask"]) == (None, None)


def test_a_failing_nvidia_smi_means_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_smi(tmp_path, "echo 'driver not loaded'; exit 9", monkeypatch)
    assert gpus() == []
