"""The CUDA stream, as far as a machine without a GPU goes."""

from __future__ import annotations

import importlib.util

import pytest

from dyx.errors import DeviceMissing, PackageMissing
from dyx.runtime.cuda import CudaStream


def test_no_device_without_bindings_or_driver() -> None:
    assert CudaStream.devices() >= 0


def test_stream_without_bindings_names_the_extra() -> None:
    if importlib.util.find_spec("cuda") is not None:
        pytest.skip("cuda-bindings is installed")
    with pytest.raises(PackageMissing, match="cuda-bindings is not installed") as caught:
        CudaStream()
    assert "dyx[gpu]" in caught.value.hint


@pytest.mark.gpu
def test_events_time_work_on_the_device() -> None:
    if CudaStream.devices() == 0:
        pytest.skip("no CUDA device, or cuda-bindings is not installed")
    stream = CudaStream()
    assert stream.seconds_of(lambda: None) >= 0
    stream.close()


def test_failing_call_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bindings:
        """Answers as the real ones do where a driver is missing."""

        @staticmethod
        def cudaStreamCreate() -> tuple[int, None]:
            return 35, None

    monkeypatch.setattr("dyx.runtime.cuda._bindings", lambda: Bindings)
    with pytest.raises(DeviceMissing, match="cudaStreamCreate answered 35"):
        CudaStream()
