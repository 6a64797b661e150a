"""Paddle Inference: oneDNN and all cores on a CPU, or a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dyx.bundle import PADDLE_PARAMETERS, PADDLE_PROGRAM, Bundle
from dyx.environment import usable_cores
from dyx.errors import DeviceMissing
from dyx.paddle_package import paddle_package
from dyx.runtime.runner import Contract, Runner

if TYPE_CHECKING:
    import numpy as np

_GPU_POOL_MB = 256
_ONEDNN_SHAPES_KEPT = 16


class PaddleRunner(Runner):
    """A predictor over `model.json` and `model.pdiparams`; input and output go by position."""

    backend = "paddle"

    def __init__(self, bundle: Bundle, *, device: str, threads: int | None, tuned: bool = True) -> None:
        super().__init__(Contract.of(bundle))
        self._paddle = paddle_package()
        from paddle import inference

        self.threads = threads or usable_cores()
        self.device = self._choose(device)
        program, parameters = bundle.file(PADDLE_PROGRAM), bundle.file(PADDLE_PARAMETERS)
        config = inference.Config(str(program), str(parameters))
        config.disable_glog_info()
        self.options = self._configure(config) if tuned or self.device == "gpu" else {"defaults": True}
        self._predictor = inference.create_predictor(config)
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])

    def _choose(self, device: str) -> str:
        compiled = self._paddle.is_compiled_with_cuda()
        if device == "gpu" and not compiled:
            raise DeviceMissing(self.backend, device, "this paddlepaddle is a CPU build", "gpu")
        found = compiled and self._paddle.device.cuda.device_count() > 0
        if device == "gpu" and not found:
            raise DeviceMissing(self.backend, device, "paddle finds no GPU", "gpu")
        return "gpu" if found and device != "cpu" else "cpu"

    def _configure(self, config: Any) -> dict[str, Any]:
        if self.device == "gpu":
            config.enable_use_gpu(_GPU_POOL_MB, 0)
            return {"use_gpu": True, "memory_pool_mb": _GPU_POOL_MB}
        config.disable_gpu()
        # Both matter sevenfold: the defaults are plain kernels and one thread.
        config.enable_mkldnn()
        config.set_mkldnn_cache_capacity(_ONEDNN_SHAPES_KEPT)
        config.set_cpu_math_library_num_threads(self.threads)
        return {"onednn": True, "cpu_math_library_num_threads": self.threads}

    def _infer(self, image: np.ndarray) -> np.ndarray:
        self._input.copy_from_cpu(image)
        self._predictor.run()
        answer: np.ndarray = self._output.copy_to_cpu()
        return answer

    def on_device(self, image: np.ndarray) -> Callable[[], float] | None:
        """A call on inputs already on the GPU, timed by CUDA events; None on a CPU."""
        if self.device == "cpu":
            return None
        event = self._paddle.device.cuda.Event
        self._input.copy_from_cpu(image)

        def timed() -> float:
            start, end = event(enable_timing=True), event(enable_timing=True)
            start.record()
            self._predictor.run()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end)) / 1e3  # CUDA answers in ms

        return timed

    def close(self) -> None:
        self._input = self._output = self._predictor = None
