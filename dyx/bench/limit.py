"""What the machine can do at best: a plain matrix product with as much arithmetic as a network's call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dyx.environment import usable_cores
from dyx.errors import PackageMissing
from dyx.preprocess import Preprocess
from dyx.runtime.runner import Contract, Runner
from dyx.tensors import BATCH, TensorSpec

if TYPE_CHECKING:
    import numpy as np

SIDE = 1024
"""Of the square matrices: large enough for the caches' blocks, small enough to count a call's arithmetic in."""


class MatmulLimit(Runner):
    """Square float32 products on onnxruntime's kernels, as many as a batch's arithmetic is worth, rounded up."""

    backend = "onnxruntime"
    device = "cpu"

    def __init__(self, macs: int, threads: int | None) -> None:
        import numpy as np

        image = TensorSpec("image", "float32", (BATCH, 3, 1, 1))
        super().__init__(Contract("matmul limit", image, image, Preprocess((1, 1)), ()))
        self.threads = threads or usable_cores()
        self.options = {"matrices": SIDE, "intra_op_num_threads": self.threads}
        self._macs = macs
        self._session = _session(self.threads)
        self._matrix = np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32)

    def _infer(self, image: np.ndarray) -> np.ndarray:
        for _ in range(products(self._macs, len(image))):
            self._session.run(None, {"a": self._matrix})
        return image

    def close(self) -> None:
        self._session = None


def products(macs: int, batch: int) -> int:
    """How many products have at least the arithmetic of a batch."""
    return max(1, -(-macs * batch // SIDE**3))


def arithmetic(macs: int, batch: int) -> int:
    """The multiply-accumulates of a call: whole products, and so some more than were asked for."""
    return products(macs, batch) * SIDE**3


def _session(threads: int) -> Any:
    try:
        import onnx
        import onnxruntime
    except ModuleNotFoundError as error:
        raise PackageMissing(str(error.name), "onnx") from error
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    factor = np.random.default_rng(1).standard_normal((SIDE, SIDE), dtype=np.float32)
    shape = [SIDE, SIDE]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "limit",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(factor, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def open_limit(macs: int, threads: int | None = None) -> MatmulLimit:
    """The limit for a network with so many multiply-accumulates per image. Raises PackageMissing."""
    return MatmulLimit(macs, threads)
