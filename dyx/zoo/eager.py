"""The dynamic network itself, in Paddle's eager mode: what a user has before exporting anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dyx.checkpoint import read_checkpoint
from dyx.environment import usable_cores
from dyx.errors import DeviceMissing, RunUnreadable
from dyx.nn.adapters import set_temperature
from dyx.nn.framework import paddle
from dyx.runs import SIDECAR, Run, read_sidecar
from dyx.runtime.freed_memory import keep_freed_memory
from dyx.runtime.runner import Contract, Runner
from dyx.tensors import BATCH, TensorSpec
from dyx.zoo import find_model
from dyx.zoo.source import Source, load_source, load_trained
from dyx.zoo.weights import draw_weights, load_weights

if TYPE_CHECKING:
    import numpy as np


class EagerRunner(Runner):
    """A network run layer by layer by Paddle's eager mode."""

    backend = "paddle-eager"

    def __init__(self, source: Source, *, device: str, threads: int | None) -> None:
        image = TensorSpec("image", "float32", (BATCH, *source.shape))
        logits = TensorSpec("logits", "float32", (BATCH, len(source.labels)))
        super().__init__(Contract(source.name, image, logits, source.preprocess, source.labels))
        self.threads = threads or usable_cores()
        self.device = use_device(device, self.threads)
        self.options = {"eager": True}
        self._network = source.network

    def _infer(self, image: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            logits: np.ndarray = self._network(paddle.to_tensor(image)).numpy()
        return logits

    def close(self) -> None:
        self._network = None


def use_device(device: str, threads: int) -> str:
    """Let Paddle's eager mode compute on a device from now on, and tell which: "cpu" or "gpu".

    Args:
        device: "cpu", "gpu" or "auto", which is a GPU where there is one.
        threads: On a CPU.

    Raises:
        DeviceMissing: A GPU was asked for, and there is none.
    """
    found = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if device == "gpu" and not found:
        raise DeviceMissing(EagerRunner.backend, device, "this paddlepaddle finds no GPU", "gpu")
    chosen = "gpu" if found and device != "cpu" else "cpu"
    paddle.device.set_device(chosen)
    paddle.base.core.set_num_threads(threads)
    return chosen


def use_whole_cpu() -> None:
    """Let Paddle's eager mode compute on all usable cores and keep freed memory, in this process from now on.

    Left alone it computes on one core, and malloc takes every large tensor from the system, page by page, anew.
    """
    paddle.base.core.set_num_threads(usable_cores())
    keep_freed_memory()


def open_run(run: Run, device: str = "auto", threads: int | None = None) -> EagerRunner:
    """The dynamic network of a training run, with its best weights at the temperature that they were seen to work at.

    Raises:
        RunUnreadable, CheckpointError, ModelUnusable, PackageMissing, DeviceMissing.
    """
    weights = run.weights()
    sidecar = read_sidecar(weights)
    if sidecar is None:
        raise RunUnreadable(run.path, f"{weights.parent.name}/ holds no {SIDECAR}")
    source = load_trained(run.model, sidecar)
    load_weights(source.network, read_checkpoint(weights))
    set_temperature(source.network, sidecar.temperature)
    return EagerRunner(source, device=device, threads=threads)


def open_eager(
    model: str,
    *,
    shape: Sequence[int] | None = None,
    classes: int | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> EagerRunner:
    """A zoo model with seeded weights, in eager mode: the speed does not depend on their values.

    Args:
        model: Its name.
        shape: Of its input, `(3, H, W)`; the model's own by default.
        classes: How many logits it has; by default one per class of the data set that it is made for.
        device: "cpu", "gpu" or "auto", which is a GPU where there is one.
        threads: On a CPU; all usable cores by default.

    Raises:
        UnknownName, InvalidOption, PackageMissing, DeviceMissing.
    """
    channels, height, width = shape or find_model(model).shape
    source = load_source(model, (channels, height, width), classes=classes)
    source = replace(source, labels=source.labels or tuple(map(str, range(classes or 0))))
    draw_weights(source.network, source.shape, seed=0)
    set_temperature(source.network, None)
    return EagerRunner(source, device=device, threads=threads)
