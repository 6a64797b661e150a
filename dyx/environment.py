"""The machine and the software that a benchmark ran on, for the record."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dyx.cpuinfo import processors
from dyx.gpu import gpus

_PACKAGES = (
    *("dyx", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino"),
    *("paddlepaddle", "paddlepaddle-gpu", "cuda-bindings", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
)
_FLAGS = (
    *("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "sve", "bf16", "i8mm"),
)
_VARIABLES = ("OMP_", "KMP_", "MKL_", "GOMP_", "OPENBLAS_", "CUDA_VISIBLE_DEVICES", "FLAGS_", "ORT_", "OV_")
_GIT_PATIENCE_S = 5
_CPUS = "/sys/devices/system/cpu"


def environment() -> dict[str, Any]:
    """Everything about this machine that a time depends on; JSON values only."""
    return {
        "start_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "revision": revision(),
        "python": platform.python_version(),
        "os": platform.platform(),
        "packages": packages(),
        "cpu": cpu(),
        "memory_bytes": memory_bytes(),
        "variables": {key: value for key, value in sorted(os.environ.items()) if key.startswith(_VARIABLES)},
        "gpus": gpus(),
    }


def packages() -> dict[str, str]:
    """Versions of those packages that are installed, of the ones that matter to a time."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def cpu() -> dict[str, Any]:
    """The CPU: model, instruction sets, cores, and what may hold it back."""
    told = next(iter(processors()), {})
    flags = set((told.get("flags") or told.get("Features") or "").split())
    return {
        "model": told.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "affinity": _affinity(),
        "quota": _text("/sys/fs/cgroup/cpu.max"),
        "governor": _text(f"{_CPUS}/cpu0/cpufreq/scaling_governor"),
        "load_average": list(os.getloadavg()),
    }


def cpu_mhz(cores: int) -> float | None:
    """The clock right now, in MHz: the mean of the fastest so many of the cores that this process may use.

    Idle cores are slower, and say nothing of those that compute. A virtual machine often tells its nominal clock at all
    times.

    Returns None where the operating system tells nothing.
    """
    fastest = sorted(_clocks_mhz(), reverse=True)[:cores]
    return sum(fastest) / len(fastest) if fastest else None


def _clocks_mhz() -> list[float]:
    """Of each usable core: as its frequency driver tells it, else as /proc/cpuinfo does."""
    usable = _affinity() or range(os.cpu_count() or 1)
    told = [_text(f"{_CPUS}/cpu{core}/cpufreq/scaling_cur_freq") for core in usable]
    if any(told):
        return [int(khz) / 1e3 for khz in told if khz and khz.isdigit()]
    clocks = {entry.get("processor"): entry.get("cpu MHz") for entry in processors()}
    return [float(mhz) for core in usable if (mhz := clocks.get(str(core)))]


def memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def revision() -> str | None:
    """The git revision of dyx's own sources, `-dirty` where they were changed; None outside a checkout of them."""
    folder = Path(__file__).parent
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None  # installed, perhaps below another project's checkout
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *words: str) -> str | None:
    tool = shutil.which("git")
    if tool is None:
        return None
    try:
        answer = subprocess.run(
            [tool, "-C", str(folder), *words], capture_output=True, text=True, timeout=_GIT_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(_affinity() or ()) or os.cpu_count() or 1


def _affinity() -> list[int] | None:
    """The numbers of the cores that this process may use; None where the operating system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
