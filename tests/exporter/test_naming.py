"""Every node of an exported file bears the path of the layer that made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from paddle import nn
from paddle.nn import functional

from dyx.bundle import ONNX_MODEL, PADDLE_PROGRAM
from dyx.exporter.converter import Converter
from dyx.exporter.to_onnx import to_onnx
from dyx.exporter.to_paddle import to_paddle
from dyx.onnx_graph import Op, Origins, layer_of
from dyx.paddle_program import PARAMETER, Operation, read_program
from dyx.tensors import TensorSpec

IMAGE = TensorSpec("image", "float32", ("batch", 3, 8, 8))
LOGITS = TensorSpec("logits", "float32", ("batch", 5))


class Block(nn.Layer):
    """Two convolutions, the second of which is called twice, and functional operators before, between and after."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2D(3, 4, 3, padding=1), nn.BatchNorm2D(4), nn.ReLU())
        self.twice = nn.Conv2D(4, 4, 3, padding=1)

    def forward(self, x: Any) -> Any:
        """`(B, 4, H, W)`."""
        y = self.first(x.abs())
        return functional.sigmoid(self.twice(y) + self.twice(functional.relu(y)))


class Network(nn.Layer):
    """Blocks whose shapes are alike, a layer in a list, and an operator of the network's own."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.LayerList([Block(), nn.Conv2D(4, 3, 1), Block()])
        self.head = nn.Linear(4, 5)

    def forward(self, image: Any) -> Any:
        """Logits."""
        for stage in self.stages:
            image = stage(image)
        return self.head(functional.softmax(image.mean([2, 3])))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with both files, and the name of each parameter → the path of its layer."""
    folder = tmp_path_factory.mktemp("named")
    network = Network()
    network.eval()
    to_paddle(network, IMAGE, folder)
    with Converter() as converter:
        to_onnx(converter, folder, IMAGE, LOGITS)
    assert not any(layer._forward_pre_hooks or layer._forward_post_hooks for layer in network.sublayers(True))
    return folder, {parameter.name: path.rpartition(".")[0] for path, parameter in network.named_parameters()}


def test_each_operation_of_the_paddle_program_names_its_layer(exported: tuple[Path, dict[str, str]]) -> None:
    folder, owners = exported
    operations = read_program(folder / PADDLE_PROGRAM)
    values = {each.outputs[0]: each.parameter for each in operations if each.name == PARAMETER}
    taken = [(each, values[value]) for each in operations for value in each.inputs if value in values]
    assert {name for _, name in taken if name in owners} == set(owners)
    assert all(each.layer == owners[name] for each, name in taken if name in owners)
    of = {each.name: each.layer for each in operations}
    assert (of["mean"], of["softmax"], of["sigmoid"]) == ("", "", "stages.2")
    assert [each.layer for each in operations if each.name == "abs"] == ["stages.0", "stages.2"]
    ends = [each.layer for each in operations if each.name == "relu"]
    assert ends == ["stages.0.first.2", "stages.0", "stages.2.first.2", "stages.2"]


def test_each_node_of_the_onnx_file_names_its_layer(exported: tuple[Path, dict[str, str]]) -> None:
    folder, owners = exported
    graph = onnx.load(folder / ONNX_MODEL).graph
    taken = {layer_of(node.name): name for node in graph.node for name in node.input if name in owners}
    assert taken
    assert all(owners[name] == layer for layer, name in taken.items())
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert [name for name in names if "Conv" in name] == [
        # The first one took its batch norm, whose operator was the last of the two.
        *("stages.0.first.0/Conv", "stages.0.twice/Conv", "stages.0.twice/Conv_1", "stages.1/Conv"),
        *("stages.2.first.0/Conv", "stages.2.twice/Conv", "stages.2.twice/Conv_1"),
    ]
    assert {"stages.0/Abs", "stages.0/Relu", "stages.0/Add", "stages.0/Sigmoid", "stages.2/Sigmoid"} <= set(names)
    assert {layer_of(node.name) for node in graph.node if node.op_type in ("Softmax", "ReduceMean")} == {""}
    assert {layer_of(node.name) for node in graph.node if "logits" in node.output} == {"head"}


def test_tensors_are_called_like_the_nodes_that_make_them(exported: tuple[Path, dict[str, str]]) -> None:
    folder, _ = exported
    graph = onnx.load(folder / ONNX_MODEL).graph
    assert all(list(node.output) in ([node.name], ["logits"]) for node in graph.node)
    assert graph.node[0].input[0] == "image"


def test_a_program_of_others_names_no_layer(tmp_path: Path) -> None:
    import paddle

    network = nn.Sequential(nn.Linear(2, 2))
    paddle.jit.save(network, str(tmp_path / "model"), input_spec=[paddle.static.InputSpec([None, 2], "float32")])
    assert "/Linear/" in (tmp_path / PADDLE_PROGRAM).read_text(), "Paddle notes names of classes by itself"
    assert {each.layer for each in read_program(tmp_path / PADDLE_PROGRAM)} == {None}


def test_operations_are_told_apart_by_hand() -> None:
    from dyx.exporter.naming import layers_of_tensors

    operations = [
        Operation("data", (), (1,), ((),), "", ""),
        Operation("relu", (1,), (2,), ((),), "", "a"),
        Operation("relu", (2,), (3,), ((),), "", "b"),
        Operation("flatten", (3,), (4,), ((),), "", "c"),
        Operation("fetch", (4,), (5,), ((),), "", None),
    ]
    ops = [
        Op("0", "Relu", ("image",), ("p2o.pd_op.relu.0.0",)),
        Op("1", "Relu", ("p2o.pd_op.relu.0.0",), ("p2o.pd_op.relu.1.0",)),
        Op("2", "Shape", ("p2o.pd_op.relu.1.0",), ("shape",)),
        Op("3", "Reshape", ("p2o.pd_op.relu.1.0", "shape"), ("out",)),
    ]
    found = layers_of_tensors(ops, operations, "out")
    assert [found[op.outputs[0]] for op in ops] == ["a", "b", "c", "c"]


def test_the_origin_of_a_fused_operator() -> None:
    ops = [
        Op("conv0", "Conv", ("image", "w0"), ("a",)),
        Op("relu0", "Relu", ("a",), ("b",)),
        Op("conv1", "Conv", ("b", "w1"), ("c",)),
        Op("add", "Add", ("c", "b"), ("d",)),
        Op("relu1", "Relu", ("d",), ("e",)),
    ]
    origins = Origins(ops)
    assert origins.of("Conv", ("b", "w1"), "e") == ops[2]
    assert origins.of("Conv", ("image", "w0"), "b") == ops[0]
    # Of no kind that was there: what stands first between input and output.
    assert origins.of("FusedAnything", ("b", "w1"), "e") == ops[2]
    assert origins.of("FusedAnything", ("image",), "b") == ops[0]
    assert origins.of("Conv", (), "image") is None
    assert "e" in origins
    assert "image" not in origins
