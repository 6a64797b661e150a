"""Weights that an ONNX file has from another one: the same numbers, on every runtime."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dyx.exporter.sharing import LEAST_BYTES, share_weights
from dyx.runtime.openvino import shared_core

SIDE = 128
"""A float32 matrix of this side takes exactly as many bytes as are shared at least."""
SHAPES = {"first": (SIDE, SIDE), "second": (SIDE, SIDE), "last": (SIDE, SIDE - 1)}


def some(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(path: Path, weights: Mapping[str, np.ndarray]) -> Path:
    """The product of an input with one matrix after the other."""
    nodes, names = [], ["x", *(f"after_{name}" for name in weights)]
    for before, after, name in zip(names, names[1:], weights, strict=False):
        nodes.append(helper.make_node("MatMul", [before, name], [after]))
    columns = list(weights.values())[-1].shape[1]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", SIDE])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, ["batch", columns])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(made, path)
    return path


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    return {name: some(*shape, seed=seed) for seed, (name, shape) in enumerate(SHAPES.items())}


@pytest.fixture
def main(tmp_path: Path, weights: dict[str, np.ndarray]) -> Path:
    """Holds the first matrix and the last one, after another one of its own."""
    own = {"own": some(SIDE, SIDE, seed=9)}
    return write(tmp_path / "model.onnx", {**own, "renamed": weights["first"], "last": weights["last"]})


def tensors(path: Path) -> dict[str, TensorProto]:
    """As they stand in the file itself."""
    return {tensor.name: tensor for tensor in onnx.load(path, load_external_data=False).graph.initializer}


def arrays(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def place(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def answers(path: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    """Of every runtime that reads ONNX."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    compiled = shared_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return {"onnxruntime": session.run(None, {"x": image})[0], "openvino": compiled(image)[0]}


def test_shared_weights_are_the_same_bytes_in_the_other_file(
    tmp_path: Path, main: Path, weights: dict[str, np.ndarray]
) -> None:
    path = write(tmp_path / "small.onnx", weights)
    before, size, of_main = onnx.load(path), path.stat().st_size, main.read_bytes()
    assert share_weights(path, main) == LEAST_BYTES == weights["first"].nbytes
    stored = tensors(path)
    assert place(stored["first"]) == {
        "location": "model.onnx",
        "offset": str(of_main.index(weights["first"].tobytes())),
        "length": str(LEAST_BYTES),
    }
    assert stored["first"].data_location == TensorProto.EXTERNAL and not stored["first"].raw_data
    assert size - path.stat().st_size > 0.99 * LEAST_BYTES
    assert main.read_bytes() == of_main
    read = arrays(path)
    assert list(read) == list(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name], array)
    after = onnx.load(path, load_external_data=False)
    assert (after.graph.node, after.graph.input, after.graph.output) == (
        before.graph.node,
        before.graph.input,
        before.graph.output,
    )


def test_what_is_small_or_elsewhere_stays(tmp_path: Path, main: Path, weights: dict[str, np.ndarray]) -> None:
    """The last matrix is in both, and a row too small; the second is in one of them alone."""
    path = write(tmp_path / "small.onnx", weights)
    share_weights(path, main)
    for name in ("second", "last"):
        stored = tensors(path)[name]
        assert stored.data_location == TensorProto.DEFAULT and not stored.external_data
        assert stored.raw_data == weights[name].tobytes()
    assert weights["last"].tobytes() in main.read_bytes()
    assert 0 < LEAST_BYTES - weights["last"].nbytes <= 4 * SIDE


def test_equal_weights_refer_to_one_place(tmp_path: Path, main: Path, weights: dict[str, np.ndarray]) -> None:
    path = write(tmp_path / "small.onnx", {"one": weights["first"], "two": weights["first"]})
    assert share_weights(path, main) == 2 * LEAST_BYTES
    stored = tensors(path)
    assert place(stored["one"]) == place(stored["two"])


def test_other_shapes_of_the_same_numbers_are_shared(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    first = weights["first"]
    main = write(
        tmp_path / "model.onnx", {"whole": np.concatenate([first, some(SIDE, SIDE, seed=4)]).reshape(SIDE, -1)}
    )
    path = write(tmp_path / "small.onnx", {"first": first})
    assert share_weights(path, main) == LEAST_BYTES
    np.testing.assert_array_equal(arrays(path)["first"], first)


def test_a_file_that_shares_nothing_is_not_written(tmp_path: Path, main: Path, weights: dict[str, np.ndarray]) -> None:
    path = write(tmp_path / "small.onnx", {"second": weights["second"], "last": weights["last"]})
    odd = b"\x08\x01" + path.read_bytes()  # an IR version that the next one overrides: written anew, it would be gone
    path.write_bytes(odd)
    assert share_weights(path, main) == 0
    assert path.read_bytes() == odd


def test_runtimes_answer_as_with_weights_of_its_own(tmp_path: Path, main: Path, weights: dict[str, np.ndarray]) -> None:
    alone = write(tmp_path / "alone.onnx", weights)
    path = write(tmp_path / "small.onnx", weights)
    assert share_weights(path, main) > 0
    image = some(3, SIDE, seed=7)
    wanted = np.linalg.multi_dot([array.astype(np.float64) for array in (image, *weights.values())])
    own, shared = answers(alone, image), answers(path, image)
    for backend in own:
        np.testing.assert_array_equal(shared[backend], own[backend], err_msg=backend)
        assert np.abs(shared[backend] - wanted).max() < 1e-5 * np.abs(wanted).max(), backend


def test_a_bundle_may_be_moved_with_both_files(tmp_path: Path, main: Path, weights: dict[str, np.ndarray]) -> None:
    path = write(tmp_path / "small.onnx", weights)
    share_weights(path, main)
    image = some(2, SIDE, seed=7)
    before = answers(path, image)
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in (path, main):
        shutil.move(file, moved)
    for backend, answer in answers(moved / "small.onnx", image).items():
        np.testing.assert_array_equal(answer, before[backend])


def test_an_export_shares_what_its_graphs_have_in_common(two_graphs: Path) -> None:
    """The classifier, which stands in both forms of the network."""
    stored = tensors(two_graphs / "small.onnx")
    shared = {name for name, tensor in stored.items() if tensor.data_location == TensorProto.EXTERNAL}
    assert [tuple(stored[name].dims) for name in shared] == [(128 * 49, 10)]
    assert {place(stored[name])["location"] for name in shared} == {"model.onnx"}
    assert not any(tensor.external_data for tensor in tensors(two_graphs / "model.onnx").values())
    held = [array.tobytes() for array in arrays(two_graphs / "model.onnx").values()]
    read = arrays(two_graphs / "small.onnx")
    large = {name for name, array in read.items() if array.nbytes >= LEAST_BYTES and array.tobytes() in held}
    assert shared == large
