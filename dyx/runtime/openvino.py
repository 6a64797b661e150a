"""OpenVINO on a CPU, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dyx.bundle import ONNX_MODEL, Bundle
from dyx.environment import usable_cores
from dyx.errors import DeviceMissing
from dyx.runtime.runner import Contract, Runner

if TYPE_CHECKING:
    import numpy as np


class OpenVinoRunner(Runner):
    """A compiled model over `model.onnx`."""

    backend = "openvino"
    device = "cpu"

    def __init__(self, bundle: Bundle, *, device: str, threads: int | None, tuned: bool = True) -> None:
        import openvino

        super().__init__(Contract.of(bundle))
        if device == "gpu":
            raise DeviceMissing(self.backend, device, "dyx runs it on CPUs only", "gpu")
        self.threads = threads or usable_cores()
        # Left alone it takes bfloat16 on a CPU that has it: an error of 8e-3.
        self.options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": self.threads}
        asked = self.options if tuned else {}
        self.options = self.options if tuned else {"defaults": True}
        self._core = openvino.Core()
        self._model = self._core.compile_model(str(bundle.file(ONNX_MODEL)), "CPU", asked)
        self._request = self._model.create_infer_request()

    def _infer(self, image: np.ndarray) -> np.ndarray:
        answer: np.ndarray = self._request.infer({0: image}, share_inputs=True)[0]
        return answer

    def close(self) -> None:
        self._request = self._model = self._core = None
