"""Paddle Inference: oneDNN and all cores on a CPU, or a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dyx.bundle import PADDLE_PARAMETERS, PADDLE_PROGRAM, Bundle
from dyx.environment import usable_cores
from dyx.errors import DeviceMissing
from dyx.paddle_package import paddle_package
from dyx.paddle_program import computed_kernels_of, read_program
from dyx.runtime.freed_memory import keep_freed_memory
from dyx.runtime.paddle_profile import (
    layers_of_events,
    optimised_program,
    ran_operations,
    traced,
    unnamed_program,
)
from dyx.runtime.profile import WARM_UP_CALLS, Profile, attributed, timed
from dyx.runtime.runner import Contract, Runner

if TYPE_CHECKING:
    import numpy as np

_GPU_POOL_MB = 256
_ONEDNN_SHAPES_KEPT = 16
_SLOW_FUSION = "batch_norm_act_fuse_pass"
"""What it makes of a batch norm and a ReLU that no convolution takes falls back to a plain kernel: 11 against 4 ms for
64 channels at 56 × 56 and batch 8."""


class PaddleRunner(Runner):
    """A predictor over `model.json` and `model.pdiparams`; input and output go by position.

    On a CPU it lets this process keep freed memory for the next call, as onnxruntime's arena does; see `freed_memory`.
    """

    backend = "paddle"

    def __init__(self, bundle: Bundle, *, device: str, threads: int | None, tuned: bool = True) -> None:
        super().__init__(Contract.of(bundle))
        self._paddle = paddle_package()
        self._bundle, self._tuned = bundle, tuned
        self.threads = threads or usable_cores()
        self.device = self._choose(device)
        self._predictor = self._open()
        self._input, self._output = _ends(self._predictor)

    def _open(self, save_into: Path | None = None) -> Any:
        """A predictor; it saves the program that its passes leave behind, where it is told a folder."""
        from paddle import inference

        config = inference.Config(*(str(self._bundle.file(name)) for name in (PADDLE_PROGRAM, PADDLE_PARAMETERS)))
        config.disable_glog_info()
        self.options = self._configure(config) if self._tuned or self.device == "gpu" else {"defaults": True}
        if save_into is not None:
            config.enable_save_optim_model(True)
            config.set_optim_cache_dir(str(save_into))
        return inference.create_predictor(config)

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
        onednn = self._onednn(config)
        config.set_cpu_math_library_num_threads(self.threads)
        config.delete_pass(_SLOW_FUSION)
        kept = keep_freed_memory()
        return {
            "onednn": onednn,
            "cpu_math_library_num_threads": self.threads,
            "without_pass": _SLOW_FUSION,
            "malloc_keeps_freed_memory": kept,
        }

    def _onednn(self, config: Any) -> bool:
        """Whether oneDNN computes: it keeps the kernel of a convolution's first call, so not where one is computed."""
        if computed_kernels_of(read_program(self._bundle.file(PADDLE_PROGRAM))):
            config.disable_mkldnn()
            return False
        config.enable_mkldnn()
        config.set_mkldnn_cache_capacity(_ONEDNN_SHAPES_KEPT)
        return True

    def _infer(self, image: np.ndarray) -> np.ndarray:
        self._input.copy_from_cpu(image)
        self._predictor.run()
        answer: np.ndarray = self._output.copy_to_cpu()
        return answer

    def _profile(self, image: np.ndarray, calls: int) -> Profile:
        before, times = read_program(self._bundle.file(PADDLE_PROGRAM)), []
        with TemporaryDirectory(prefix="dyx-") as folder:
            predictor = self._open(Path(folder))
            source, target = _ends(predictor)

            def call() -> None:
                copied = timed(lambda: source.copy_from_cpu(image))
                times.append((copied, timed(predictor.run), timed(target.copy_to_cpu)))

            traced(call, WARM_UP_CALLS, Path(folder))
            events = traced(call, calls, Path(folder))
            optimised = read_program(optimised_program(Path(folder)))
        del times[:-calls]
        ran = ran_operations(events)
        layers = layers_of_events([kind for kind, _ in events[0]], before, optimised)
        nodes = attributed(self._bundle, ran, layers)
        copies = {"in": tuple(each[0] for each in times), "out": tuple(each[2] for each in times)}
        return Profile(tuple(map(sum, times)), nodes, copies, notes=unnamed_program(before))

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


def _ends(predictor: Any) -> tuple[Any, Any]:
    """Handles of a predictor's input and output."""
    names = predictor.get_input_names()[0], predictor.get_output_names()[0]
    return predictor.get_input_handle(names[0]), predictor.get_output_handle(names[1])
