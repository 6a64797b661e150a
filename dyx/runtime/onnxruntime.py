"""ONNX Runtime, on a CPU or through its CUDA provider."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dyx.bundle import ONNX_MODEL, Bundle
from dyx.environment import usable_cores
from dyx.errors import DeviceMissing
from dyx.onnx_graph import inner_names, ops_of
from dyx.runtime.cuda import CudaStream
from dyx.runtime.onnxruntime_profile import ask_for_profile, layers_of_optimised, optimised_graph, read_events
from dyx.runtime.profile import Profile, aligned, attributed, onnx_ops, timed_warm, unnamed
from dyx.runtime.runner import Contract, Runner

if TYPE_CHECKING:
    import numpy as np

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


class OnnxRuntimeRunner(Runner):
    """A session over `model.onnx`; on a GPU inputs and outputs go through an IO binding."""

    backend = "onnxruntime"

    def __init__(self, bundle: Bundle, *, device: str, threads: int | None, tuned: bool = True) -> None:
        import onnxruntime

        super().__init__(Contract.of(bundle))
        self.threads = threads or usable_cores()
        self._bundle, self._tuned = bundle, tuned
        self.device = self._choose(device, onnxruntime.get_available_providers())
        self._stream = CudaStream() if self.device == "gpu" else None
        self._session = self._open(onnxruntime, onnxruntime.SessionOptions())
        if self.device == "gpu" and self._session.get_providers()[0] != CUDA:
            # The provider is compiled in but did not load (driver, cuDNN): onnxruntime went on on the CPU.
            self.close()
            raise DeviceMissing(self.backend, "gpu", f"{CUDA} is there but did not load; its log says why", "gpu")

    def _choose(self, device: str, available: list[str]) -> str:
        if device == "gpu" and CUDA not in available:
            raise DeviceMissing(self.backend, device, f"this build offers {', '.join(available)}, not {CUDA}", "gpu")
        if device == "gpu" or (device == "auto" and CUDA in available and CudaStream.devices() > 0):
            return "gpu"
        return "cpu"

    def _open(self, onnxruntime: Any, options: Any) -> Any:
        path = str(self._bundle.file(ONNX_MODEL))
        options.log_severity_level = 3
        if not self._tuned:
            self.options = {"defaults": True}
            return onnxruntime.InferenceSession(path, options, providers=[CPU if self.device == "cpu" else CUDA])
        options.intra_op_num_threads = self.threads
        # Idle threads that spin would take the cores from whoever has the next turn.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.options = {"intra_op_num_threads": self.threads, "allow_spinning": False}
        providers: list[Any] = [CPU]
        if self._stream is not None:
            # TF32 would round products to 10 bits of mantissa: exactness first.
            cuda = {"use_tf32": "0", "user_compute_stream": str(self._stream.handle)}
            providers.insert(0, (CUDA, cuda))
            self.options |= {"use_tf32": False, "io_binding": True}
        return onnxruntime.InferenceSession(path, options, providers=providers)

    def _infer(self, image: np.ndarray) -> np.ndarray:
        if self.device == "cpu":
            return self._answer(self._session, image)
        binding = self._session.io_binding()
        binding.bind_cpu_input(self.contract.input.name, image)
        binding.bind_output(self.contract.output.name, "cuda")
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        copied: np.ndarray = binding.copy_outputs_to_cpu()[0]
        return copied

    def _answer(self, session: Any, image: np.ndarray) -> np.ndarray:
        answer: np.ndarray = session.run([self.contract.output.name], {self.contract.input.name: image})[0]
        return answer

    def _profile(self, image: np.ndarray, calls: int) -> Profile:
        import onnxruntime

        before, options = onnx_ops(self._bundle), onnxruntime.SessionOptions()
        with TemporaryDirectory(prefix="dyx-") as folder:
            ask_for_profile(options, Path(folder))
            session = self._open(onnxruntime, options)
            times = timed_warm(lambda: self._answer(session, image), calls)
            written, graph = session.end_profiling(), optimised_graph(Path(folder))
            ran, optimised = read_events(written, calls, inner_names(graph)), ops_of(graph)
        layers = layers_of_optimised(before, optimised)
        found = aligned([op.kind for op in optimised], layers, [each.kind for each in ran])
        return Profile(times, attributed(self._bundle, ran, found), notes=unnamed(before))

    def on_device(self, image: np.ndarray) -> Callable[[], float] | None:
        """A call on device-resident inputs and outputs, timed by CUDA events; None on a CPU."""
        stream = self._stream
        if stream is None:
            return None
        import onnxruntime

        binding = self._session.io_binding()
        binding.bind_ortvalue_input(
            self.contract.input.name, onnxruntime.OrtValue.ortvalue_from_numpy(image, "cuda", 0)
        )
        binding.bind_output(self.contract.output.name, "cuda")
        return lambda: stream.seconds_of(lambda: self._session.run_with_iobinding(binding))

    def close(self) -> None:
        self._session = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None
