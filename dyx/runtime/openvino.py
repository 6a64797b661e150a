"""OpenVINO on a CPU, in float32."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from dyx.bundle import ONNX_MODEL, Bundle
from dyx.environment import usable_cores
from dyx.errors import DeviceMissing
from dyx.runtime.openvino_profile import layers_of_executed, read_counters
from dyx.runtime.profile import WARM_UP_CALLS, Profile, attributed, onnx_ops, timed, unnamed
from dyx.runtime.runner import Contract, Runner

if TYPE_CHECKING:
    import numpy as np


@cache
def shared_core() -> Any:
    """The process's one `openvino.Core`, which is never destroyed.

    A Core puts the thread's signals on a stack of its own and takes that away with itself. Of two that live at once the
    second gives the first one's back, be it gone or not: the next signal, Ctrl-C or the end of a child, is a crash.
    """
    import openvino

    return openvino.Core()


class OpenVinoRunner(Runner):
    """A compiled model over `model.onnx`."""

    backend = "openvino"
    device = "cpu"

    def __init__(self, bundle: Bundle, *, device: str, threads: int | None, tuned: bool = True) -> None:
        super().__init__(Contract.of(bundle))
        if device == "gpu":
            raise DeviceMissing(self.backend, device, "dyx runs it on CPUs only", "gpu")
        self.threads = threads or usable_cores()
        # Left alone it takes bfloat16 on a CPU that has it: an error of 8e-3.
        self.options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": self.threads}
        self._bundle, self._asked = bundle, self.options if tuned else {}
        self.options = self.options if tuned else {"defaults": True}
        self._model = self._compile(self._asked)
        self._request = self._model.create_infer_request()

    def _compile(self, asked: Mapping[str, Any]) -> Any:
        return shared_core().compile_model(str(self._bundle.file(ONNX_MODEL)), "CPU", asked)

    def _infer(self, image: np.ndarray) -> np.ndarray:
        return self._answer(self._request, image)

    def _answer(self, request: Any, image: np.ndarray) -> np.ndarray:
        answer: np.ndarray = request.infer({0: image}, share_inputs=True)[0]
        return answer

    def _profile(self, image: np.ndarray, calls: int) -> Profile:
        before = onnx_ops(self._bundle)
        model = self._compile({**self._asked, "PERF_COUNT": True})
        request = model.create_infer_request()
        for _ in range(WARM_UP_CALLS):
            self._answer(request, image)
        warm = request.get_profiling_info()
        times = tuple(timed(lambda: self._answer(request, image)) for _ in range(calls))
        ran = read_counters(warm, request.get_profiling_info(), calls)
        layers = layers_of_executed(before, model.get_runtime_model())
        nodes = attributed(self._bundle, ran, [layers.get(each.name) for each in ran])
        return Profile(times, nodes, notes=unnamed(before))

    def close(self) -> None:
        self._request = self._model = None
