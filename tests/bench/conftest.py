"""A small real bundle, and openers that misbehave in a worker process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dyx.bundle import ONNX_MODEL, Bundle, Samples, read_bundle, write_manifest, write_samples

SIZE = 16
CLASSES = 4

OPENERS = """
import os, signal, sys, time
import numpy as np
from pathlib import Path
from dyx.errors import PackageMissing
from dyx.preprocess import Preprocess
from dyx.runtime import Contract, Runner
from dyx.tensors import TensorSpec


class Odd(Runner):
    backend, device, threads, options = "odd", "cpu", 1, {}

    def __init__(self, seconds=0.0, device="cpu", pid_file=None, prints=False, dies_at=None):
        image = TensorSpec("image", "float32", ("batch", 3, 8, 8))
        logits = TensorSpec("logits", "float32", ("batch", 2))
        super().__init__(Contract("odd", image, logits, Preprocess((8, 8)), ("a", "b")))
        self.seconds, self.device, self.prints, self.dies_at, self.calls = seconds, device, prints, dies_at, 0
        if pid_file:
            Path(pid_file).write_text(str(os.getpid()))

    def _infer(self, image):
        self.calls += 1
        if self.calls == self.dies_at:
            os._exit(7)
        if self.prints:
            print("a library's chatter" * 50)
            os.write(1, b"\\x00\\xff from C")
        time.sleep(self.seconds)
        return np.zeros((len(image), 2), np.float32)

    def on_device(self, image):
        return (lambda: 0.002) if self.device == "gpu" else None

    def close(self):
        pass


class ColdStart(Odd):
    def __init__(self, opening, first, **more):
        time.sleep(opening)
        super().__init__(**more)
        self.first = first

    def _infer(self, image):
        if not self.calls:
            time.sleep(self.first)
        return super()._infer(image)


class Tiring(Odd):
    def _infer(self, image):
        self.began = getattr(self, "began", time.perf_counter())
        time.sleep(0.004 * (1 + (time.perf_counter() - self.began) / 3))
        return np.zeros((len(image), 2), np.float32)


class Hungry(Odd):
    def __init__(self, most):
        super().__init__()
        self.most = most

    def _infer(self, image):
        if len(image) > self.most:
            raise MemoryError(f"no room for {len(image)}")
        return np.zeros((len(image), 2), np.float32)


def dies():
    print("the last words", flush=True)
    os._exit(3)


def is_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def raises():
    raise RuntimeError("the session is bad")


def lacks():
    raise PackageMissing("paddlepaddle", "paddle")


def hangs(pid_file, deaf=False):
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    runner = Odd(pid_file=pid_file)
    time.sleep(60)
    return runner
"""


@pytest.fixture
def openers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of openers that workers can import."""
    folder = tmp_path / "openers"
    folder.mkdir()
    (folder / "odd_openers.py").write_text(OPENERS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    return "odd_openers"


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A convolution, a mean and a matrix, batch symbolic, as a whole bundle."""
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    folder.mkdir()
    onnx.save(_model(), folder / ONNX_MODEL)
    image = np.zeros((1, 3, SIZE, SIZE), np.float32)
    write_samples(folder, Samples(image, np.zeros((1, CLASSES)), np.array(["zeros"])))
    write_manifest(folder, _manifest())
    return read_bundle(folder)


def _model() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.standard_normal((8, 3, 3, 3)), "matrix": rng.standard_normal((8, CLASSES))}
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["features"], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _manifest() -> dict[str, object]:
    return {
        "model": "tiny",
        "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 3, SIZE, SIZE]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", CLASSES]}],
        "preprocess": {"size": SIZE},
        "labels": ["a", "b", "c", "d"],
        **{key: {} for key in ("temperature", "weights", "plan", "parity", "versions")},
    }


@pytest.fixture
def is_running(is_alive: Callable[[int], bool]) -> Callable[[Path], bool]:
    """Whether the process whose id a file holds is still there."""
    return lambda pid_file: is_alive(int(pid_file.read_text()))
