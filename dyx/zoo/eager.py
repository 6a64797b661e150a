"""The dynamic network itself, in Paddle's eager mode: what a user has before exporting anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dyx.errors import DeviceMissing
from dyx.nn.adapters import set_temperature
from dyx.nn.framework import paddle
from dyx.preprocess import Preprocess
from dyx.runtime.runner import Contract, Runner, usable_cores
from dyx.tensors import BATCH, TensorSpec
from dyx.zoo.source import Source, load_source
from dyx.zoo.weights import draw_weights

if TYPE_CHECKING:
    import numpy as np


class EagerRunner(Runner):
    """A network run layer by layer by Paddle's eager mode."""

    backend = "paddle-eager"

    def __init__(self, source: Source, *, device: str, threads: int | None) -> None:
        classes = len(source.labels)
        image = TensorSpec("image", "float32", (BATCH, *source.shape))
        logits = TensorSpec("logits", "float32", (BATCH, classes))
        super().__init__(Contract(source.name, image, logits, Preprocess(source.shape[1:]), source.labels))
        self.threads = threads or usable_cores()
        self.device = self._choose(device)
        self._network = source.network

    def _choose(self, device: str) -> str:
        found = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
        if device == "gpu" and not found:
            raise DeviceMissing(self.backend, device, "this paddlepaddle finds no GPU", "gpu")
        chosen = "gpu" if found and device != "cpu" else "cpu"
        paddle.device.set_device(chosen)
        paddle.base.core.set_num_threads(self.threads)
        self.options = {"eager": True}
        return chosen

    def _infer(self, image: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            logits: np.ndarray = self._network(paddle.to_tensor(image)).numpy()
        return logits

    def close(self) -> None:
        self._network = None


def open_eager(
    model: str, temperature: float | None = None, device: str = "auto", threads: int | None = None
) -> EagerRunner:
    """A zoo model with seeded weights, in eager mode: the speed does not depend on their values.

    Raises:
        UnknownName, PackageMissing, DeviceMissing.
    """
    source = load_source(model)
    draw_weights(source.network, source.shape, seed=0)
    set_temperature(source.network, temperature)
    return EagerRunner(source, device=device, threads=threads)
