"""Graphs whose maps keep their channels last from layer to layer, as OpenVINO computes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import paddle
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import dyx
from dyx.bundle import Bundle
from dyx.exporter.channels_last import keep_channels_last
from dyx.exporter.scan import shapes_of
from dyx.nn.dyconv import DYConv2D
from dyx.nn.kernelwarehouse import WarehouseManager
from dyx.nn.odconv import ODConv2D
from dyx.nn.se import SqueezeExcite
from dyx.onnx_graph import bodies_of, layer_of

SHAPE = (3, 20, 24)
MAP = 10 * 12
POINTWISE, DEPTHWISE = {"kernel_size": 1}, {"kernel_size": 3, "padding": 1, "groups": 96}


class Inverted(paddle.nn.Layer):
    """Expanding, depthwise and projecting by kernels per sample, with a gate or none in between."""

    def __init__(self, expand: Any, depthwise: Any, project: Any, gate: Any = None) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project, self.gate = expand, depthwise, project, gate
        self.norms = paddle.nn.LayerList([paddle.nn.BatchNorm2D(96), paddle.nn.BatchNorm2D(96)])
        self.act = paddle.nn.Hardswish() if gate else paddle.nn.ReLU6()

    def forward(self, x: Any) -> Any:
        y = self.act(self.norms[1](self.depthwise(self.act(self.norms[0](self.expand(x))))))
        return self.project(y if self.gate is None else self.gate(y))


class Blocks(paddle.nn.Layer):
    """Static convolutions before and behind blocks of three kinds of layers, the last two of which add their input."""

    def __init__(self) -> None:
        super().__init__()
        self.warehouse_manager = manager = WarehouseManager(cell_outplane_ratio=0.25)
        self.stem = paddle.nn.Conv2D(3, 32, 3, 2, 1)
        self.dynamic = Inverted(
            DYConv2D(32, 96, **POINTWISE), DYConv2D(96, 96, **DEPTHWISE), DYConv2D(96, 32, **POINTWISE)
        )
        self.omni = Inverted(
            ODConv2D(32, 96, kernel_num=2, **POINTWISE),
            ODConv2D(96, 96, kernel_num=2, **DEPTHWISE),
            ODConv2D(96, 32, kernel_num=2, **POINTWISE),
            SqueezeExcite(96, 48),
        )
        self.warehouse = Inverted(
            manager.reserve(32, 96, 1), manager.reserve(96, 96, 3, 1, 1, groups=96), manager.reserve(96, 32, 1)
        )
        manager.allocate(self)
        self.last = paddle.nn.Conv2D(32, 64, 1)
        self.pool, self.head = paddle.nn.AdaptiveAvgPool2D(1), paddle.nn.Linear(64, 10)

    def forward(self, image: Any) -> Any:
        x = self.dynamic(self.stem(image))
        x = x + self.omni(x)
        x = x + self.warehouse(x)
        return self.head(self.pool(self.last(x)).flatten(1))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("last") / "bundle"
    return dyx.export(f"{__file__}:Blocks", shape=SHAPE, out=out, tune_batch=8, tune_backend="openvino")


def test_every_backend_gives_the_answers_of_float64(bundle: Bundle) -> None:
    rules = Counter(site["rule"].partition("/")[2] for site in bundle.manifest["plan"]["sites"])
    assert rules == {"aggregate-kernel": 6, "aggregate-scan": 3, "in-place": 1}
    report = dyx.check(bundle, batches=(1, 3, 8))
    assert not report.faults
    assert [verdict.sentence() for verdict in report.parity.verdicts if not verdict.passed] == []
    assert {verdict.backend for verdict in report.parity.verdicts} == {"onnxruntime", "openvino", "paddle"}


def test_no_map_is_turned_between_layers(bundle: Bundle) -> None:
    model = onnx.load(bundle.file("model.onnx"))
    shapes, turns = shapes_of(model), [node for node in model.graph.node if node.op_type == "Transpose"]
    turned = {node.input[0]: shapes[node.input[0]][1:] for node in turns}
    whole = [(layer_of(name), shape) for name, shape in turned.items() if np.prod(shape) >= 32 * MAP]
    # The last convolution reads channels first, and so the sum that it reads is made.
    sum_of = [("", [10, 12, 32]), ("warehouse.project", [10, 12, 32])]
    assert whole == [("stem", [32, 10, 12]), *sum_of, ("last", [64, 10, 12])]
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["BatchNormalization"] == 0
    scans = [node for node in model.graph.node if node.op_type == "Scan"]
    assert [[node.op_type for node in bodies_of(scan)[0].node] for scan in scans] == [
        ["Transpose", "Conv", "Transpose"]
    ] * 3


def test_nodes_bear_the_paths_of_layers(bundle: Bundle) -> None:
    graph = onnx.load(bundle.file("model.onnx")).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    paths = {path for path, _ in dyx.fold(Blocks(), shape=SHAPE).named_sublayers()}
    assert {"dynamic.act/Clip", "omni.gate/Mul", "stem/Conv", "warehouse.depthwise.depthwise/Scan"} <= set(names)
    assert "omni.gate.gate/MatMul" in names, "a gate takes means by products too"
    assert {layer_of(name) for name in names} <= {*paths, ""}


def test_a_frozen_batch_and_the_last_opset(tmp_path: Path) -> None:
    frozen = dyx.export(
        f"{__file__}:Blocks",
        shape=SHAPE,
        out=tmp_path / "four",
        tune_backend="openvino",
        batch=4,
        formats=("onnx",),
        opset=21,
    )
    assert not dyx.check(frozen).faults
    model = onnx.load(frozen.file("model.onnx"))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21)]
    assert sum(node.op_type == "Scan" for node in model.graph.node) == 3


def pooled(**pooling: Any) -> onnx.ModelProto:
    """A batch norm, such a pooling, and a global one; variances are so small that ε counts."""
    random = np.random.default_rng(0)
    norms = {"scale": (0.5, 2), "shift": (-1, 1), "mean": (-1, 1), "variance": (1e-4, 2e-3)}
    held = [numpy_helper.from_array(random.uniform(*ends, 4).astype("float32"), name) for name, ends in norms.items()]
    nodes = [
        helper.make_node(
            "BatchNormalization", ["image", *norms], ["norm/y"], name="norm/BatchNormalization", epsilon=1e-3
        ),
        helper.make_node("AveragePool", ["norm/y"], ["lines/y"], name="lines/AveragePool", **pooling),
        helper.make_node("Relu", ["norm/y"], ["map/relu"], name="map/Relu"),
        helper.make_node("GlobalAveragePool", ["map/relu"], ["map/y"], name="map/GlobalAveragePool"),
        helper.make_node("Add", ["lines/y", "map/y"], ["logits"], name="Add"),
    ]
    shapes = {"image": ["batch", 4, 6, 7], "logits": ["batch", 4, "lines", "columns"]}
    image, logits = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    graph = helper.make_graph(nodes, "graph", [image], [logits], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("pooling", "products"),
    [
        ({"kernel_shape": [1, 7]}, 2),
        ({"kernel_shape": [1, 7], "pads": [0, 0, 0, 0], "strides": [1, 2]}, 2),
        ({"kernel_shape": [1, 7], "strides": [2, 1]}, 1),
        ({"kernel_shape": [2, 7]}, 1),
        ({"kernel_shape": [1, 6]}, 1),
        ({"kernel_shape": [6, 7]}, 1),
        ({"kernel_shape": [1, 7], "pads": [0, 3, 0, 3]}, 1),
        ({"kernel_shape": [1, 7], "auto_pad": "SAME_UPPER"}, 1),
    ],
    ids=str,
)
def test_poolings_and_norms_become_products_of_the_same_answers(pooling: dict[str, Any], products: int) -> None:
    """Of poolings only those that take each whole line, and whole maps by their name."""
    model, image = pooled(**pooling), np.random.default_rng(1).standard_normal((3, 4, 6, 7)).astype("float32")
    (wanted,) = ReferenceEvaluator(model).run(None, {"image": image})
    kept = keep_channels_last(model)
    onnx.checker.check_model(kept, full_check=True)
    (got,) = ReferenceEvaluator(kept).run(None, {"image": image})
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    kinds = Counter(node.op_type for node in kept.graph.node)
    assert (kinds["MatMul"], kinds["AveragePool"]) == (products, 2 - products)
    assert kinds["BatchNormalization"] == 0 and kinds["GlobalAveragePool"] == 1
    assert {layer_of(node.name) for node in kept.graph.node if node.op_type == "MatMul"} <= {"lines", "map"}
