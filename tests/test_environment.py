"""What is recorded of the machine, and what importing costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dyx.environment import cpu_mhz, environment, usable_cores
from dyx.gpu import gpus

FRAMEWORKS = ("paddle", "onnxruntime", "openvino", "onnx", "rich", "pynvml")


def test_the_environment_is_json_and_names_machine_and_software() -> None:
    told = json.loads(json.dumps(environment(), allow_nan=False))
    assert told["cpu"]["model"] and told["cpu"]["cores"] >= told["cpu"]["usable_cores"] >= 1
    assert told["memory_bytes"] > 2**28
    assert {"numpy", "onnxruntime"} <= set(told["packages"])
    assert told["start_utc"].endswith("+00:00")
    assert told["command"] == [Path(sys.argv[0]).name, *sys.argv[1:]], "no path of this machine"


def clocks(folder: Path, khz: dict[int, str], monkeypatch: pytest.MonkeyPatch, cpuinfo: str = "") -> None:
    """A machine of three usable cores, as Linux tells their clocks."""
    for core, text in khz.items():
        (folder / f"cpu{core}" / "cpufreq").mkdir(parents=True)
        (folder / f"cpu{core}" / "cpufreq" / "scaling_cur_freq").write_text(f"{text}\n")
    (folder / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr("dyx.environment._CPUS", str(folder))
    monkeypatch.setattr("dyx.cpuinfo._CPUINFO", str(folder / "cpuinfo"))
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: {0, 2, 3})


def test_the_clock_is_that_of_the_cores_that_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks(tmp_path, {0: "800000", 1: "4900000", 2: "3000000", 3: "2000000"}, monkeypatch)
    assert usable_cores() == 3
    assert [cpu_mhz(threads) for threads in (1, 2, 3, 64)] == [
        3000,
        2500,
        pytest.approx(5800 / 3),
        pytest.approx(5800 / 3),
    ]


def test_a_driver_that_does_not_know_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks(tmp_path, {0: "<unknown>", 2: "3000000"}, monkeypatch)
    assert cpu_mhz(3) == 3000


def test_without_a_frequency_driver_cpuinfo_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "\n\n".join(f"processor\t: {core}\ncpu MHz\t\t: {1000 + core}.5\nflags\t: avx2" for core in range(4))
    clocks(tmp_path, {}, monkeypatch, told)
    assert cpu_mhz(2) == 1003
    assert environment()["cpu"]["flags"] == ["avx2"]


def test_where_nothing_tells_a_clock_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks(tmp_path, {}, monkeypatch, "processor\t: 0\nFeatures\t: asimd\n\nprocessor\t: 2\nFeatures\t: asimd")
    assert cpu_mhz(2) is None
    assert environment()["cpu"]["flags"] == ["asimd"]


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
