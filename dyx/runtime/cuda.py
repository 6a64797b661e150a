"""A CUDA stream and events on it, through NVIDIA's own bindings (package cuda-bindings)."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from dyx.errors import DeviceMissing, PackageMissing


class CudaStream:
    """A stream that a runtime computes on, so that events around its work can be read."""

    def __init__(self) -> None:
        self._cuda = _bindings()
        self.handle = int(self._call("cudaStreamCreate"))

    @staticmethod
    def devices() -> int:
        """How many CUDA devices can be used here; 0 without the bindings or a driver."""
        if find_spec("cuda") is None or find_spec("cuda.bindings") is None:
            return 0
        try:
            code, count = _bindings().cudaGetDeviceCount()
        except (ImportError, RuntimeError):
            return 0  # the bindings are there, the driver library is not
        return int(count) if int(code) == 0 else 0

    def seconds_of(self, work: Callable[[], None]) -> float:
        """Seconds on the device between an event before `work` and one after it."""
        start, end = self._call("cudaEventCreate"), self._call("cudaEventCreate")
        try:
            self._call("cudaEventRecord", start, self.handle)
            work()
            self._call("cudaEventRecord", end, self.handle)
            self._call("cudaEventSynchronize", end)
            return float(self._call("cudaEventElapsedTime", start, end)) / 1e3  # CUDA answers in ms
        finally:
            self._call("cudaEventDestroy", start)
            self._call("cudaEventDestroy", end)

    def close(self) -> None:
        """Give the stream back."""
        self._call("cudaStreamDestroy", self.handle)

    def _call(self, name: str, *arguments: Any) -> Any:
        code, *values = getattr(self._cuda, name)(*arguments)
        if int(code) != 0:
            raise DeviceMissing("cuda", "gpu", f"{name} answered {code!s}", "gpu")
        return values[0] if values else None


def _bindings() -> Any:
    try:
        from cuda.bindings import runtime
    except ModuleNotFoundError as error:
        raise PackageMissing("cuda-bindings", "gpu") from error
    return runtime
