"""What the GPUs of this machine are and do: clocks, power, temperature, throttling."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from importlib import import_module
from typing import Any

_SMI_FIELDS = {
    "name": "name",
    "driver": "driver_version",
    "sm_clock_mhz": "clocks.sm",
    "memory_clock_mhz": "clocks.mem",
    "power_w": "power.draw",
    "temperature_c": "temperature.gpu",
    "throttle_mask": "clocks_throttle_reasons.active",
}
_SMI_PATIENCE_S = 10
_THROTTLE = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""Bits of NVML's mask that mean less speed than asked for; the others say idle, or clocks set on purpose."""


def gpus() -> list[dict[str, Any]]:
    """One entry per GPU, through pynvml, else nvidia-smi; none where neither answers."""
    try:
        nvml = import_module("pynvml")
    except ModuleNotFoundError:
        return _through_smi()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []  # no driver: no GPU
    try:
        return [_through_nvml(nvml, nvml.nvmlDeviceGetHandleByIndex(i)) for i in range(nvml.nvmlDeviceGetCount())]
    finally:
        nvml.nvmlShutdown()


def throttling(sample: Mapping[str, Any]) -> list[str]:
    """Why a GPU ran slower than asked for when `sample` was taken."""
    mask = sample["throttle_mask"] or 0
    return [reason for bit, reason in _THROTTLE.items() if mask & bit]


def _through_nvml(nvml: Any, handle: Any) -> dict[str, Any]:
    readers = {
        "name": lambda: nvml.nvmlDeviceGetName(handle),
        "driver": nvml.nvmlSystemGetDriverVersion,
        "sm_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        "memory_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,  # NVML answers in mW
        "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        "throttle_mask": lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
    }
    sample: dict[str, Any] = {}
    for key, read in readers.items():
        try:
            value = read()
        except nvml.NVMLError:
            value = None  # cards differ in what they tell
        sample[key] = value.decode() if isinstance(value, bytes) else value
    return sample


def _through_smi() -> list[dict[str, Any]]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, f"--query-gpu={','.join(_SMI_FIELDS.values())}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=_SMI_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [_parsed(line) for line in answer.stdout.splitlines()] if answer.returncode == 0 else []


def _parsed(line: str) -> dict[str, Any]:
    sample: dict[str, Any] = dict(zip(_SMI_FIELDS, (word.strip() for word in line.split(",")), strict=False))
    for key in ("sm_clock_mhz", "memory_clock_mhz", "power_w", "temperature_c"):
        sample[key] = _number(sample.get(key, ""))
    mask = str(sample.get("throttle_mask", ""))
    return {**sample, "throttle_mask": int(mask, 16) if mask.startswith("0x") else None}


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None  # "[N/A]"
