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


FIXED_SIZES = 2
"""Batch sizes that get a model of their own: the usual one, and what is left over of many images."""


class OpenVinoRunner(Runner):
    """Compiled models over `model.onnx`, for one batch size each and for all others.

    Shapes that are known let OpenVINO fuse and reuse more: the same network is up to 1.45 times as fast. So the first
    sizes that come get a model of their own, compiled then; more of them would fill memory with what lies between
    layers, so all that come later share one.
    """

    backend = "openvino"
    device = "cpu"

    def __init__(self, bundle: Bundle, *, device: str, threads: int | None, tuned: bool = True) -> None:
        super().__init__(Contract.of(bundle))
        if device == "gpu":
            raise DeviceMissing(self.backend, device, "dyx runs it on CPUs only", "gpu")
        self.threads = threads or usable_cores()
        self._bundle, self._asked, self._fixed_sizes = bundle, {}, 0
        self.options = {"defaults": True}
        if tuned:
            # Left alone it takes bfloat16 on a CPU that has it: an error of 8e-3.
            self._asked = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": self.threads}
            self._fixed_sizes = FIXED_SIZES if self.contract.input.frozen_batch is None else 0
            self.options = {**self._asked, "fixed_sizes": self._fixed_sizes}
        self._network = shared_core().read_model(str(bundle.file(ONNX_MODEL)))
        self._requests: dict[int | None, Any] = {}

    def _size_for(self, batch: int) -> int | None:
        """The size of the model that takes such a batch; None is the one for all sizes."""
        fixed = self._requests.keys() - {None}
        return batch if batch in fixed or len(fixed) < self._fixed_sizes else None

    def _compiled(self, size: int | None, asked: Mapping[str, Any]) -> Any:
        network = self._network
        if size is not None:
            network = network.clone()
            network.reshape([size, *self.contract.input.shape[1:]])
        return shared_core().compile_model(network, "CPU", asked)

    def _infer(self, image: np.ndarray) -> np.ndarray:
        size = self._size_for(len(image))
        if size not in self._requests:
            self._requests[size] = self._compiled(size, self._asked).create_infer_request()
        return self._answer(self._requests[size], image)

    def _answer(self, request: Any, image: np.ndarray) -> np.ndarray:
        answer: np.ndarray = request.infer({0: image}, share_inputs=True)[0]
        return answer

    def _profile(self, image: np.ndarray, calls: int) -> Profile:
        before = onnx_ops(self._bundle)
        model = self._compiled(self._size_for(len(image)), {**self._asked, "PERF_COUNT": True})
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
        self._requests.clear()
        self._network = None
