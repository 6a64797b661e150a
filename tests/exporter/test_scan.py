"""Depthwise layers as loops over the samples of an ONNX graph: `*/aggregate-scan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import paddle
import pytest
from onnx import TensorProto, helper

import dyx
from dyx.bundle import Bundle
from dyx.census import onnx_census, paddle_census
from dyx.errors import ConversionFailed
from dyx.exporter.apply import default_dtype
from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.folded.depthwise import DepthwiseScan, depthwise_per_sample, sample_by_sample
from dyx.exporter.rule import Offer, Refusal, Site, Target
from dyx.exporter.rules import RULES
from dyx.exporter.scan import NO_LOOPS, Loops, scan_samples
from dyx.nn.condconv import CondConv2D, CondRouting
from dyx.nn.dyconv import DYConv2D
from dyx.nn.geometry import Geometry
from dyx.nn.kernelwarehouse import WarehouseManager
from dyx.nn.odconv import ODConv2D

KINDS = ("dyconv", "odconv", "condconv", "kw")
RULE_IDS = tuple(f"{kind}/aggregate-scan" for kind in KINDS)
SHAPE = (3, 40, 44)
LAYER = ".depthwise/"
"""In the names of nodes that apply kernels."""


class Depthwise(paddle.nn.Layer):
    """A depthwise layer of each kind: strided, dilated, with uneven padding and with experts' biases."""

    def __init__(self) -> None:
        super().__init__()
        self.warehouse_manager = WarehouseManager(cell_outplane_ratio=0.5)
        self.stem = paddle.nn.Conv2D(3, 24, 3, 2, 1)
        self.mixed = DYConv2D(24, 24, 3, padding=1, groups=24, num_experts=3)
        self.norm = paddle.nn.BatchNorm2D(24)
        self.scaled = ODConv2D(24, 24, 5, stride=2, padding=2, groups=24, kernel_num=2)
        self.routing = CondRouting(24, 3)
        self.routed = CondConv2D(24, 24, 3, padding="SAME", dilation=2, groups=24, bias=True, num_experts=3)
        self.shared = self.warehouse_manager.reserve(24, 24, 3, 1, 1, groups=24, bias=True)
        self.warehouse_manager.allocate(self)
        self.head = paddle.nn.Linear(24, 10)

    def forward(self, image: Any) -> Any:
        relu = paddle.nn.functional.relu6
        x = relu(self.scaled(relu(self.norm(self.mixed(relu(self.stem(image)))))))
        x = relu(self.routed(x, self.routing(x)))
        return self.head(relu(self.shared(x)).mean([2, 3]))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("scan") / "bundle"
    return dyx.export(f"{__file__}:Depthwise", shape=SHAPE, out=out, fold=RULE_IDS, tune_batch=8)


def test_every_backend_gives_the_answers_of_float64(bundle: Bundle) -> None:
    assert {site["rule"] for site in bundle.manifest["plan"]["sites"]} == set(RULE_IDS)
    report = dyx.check(bundle, batches=(1, 3, 8))
    assert not report.faults
    assert [verdict.sentence() for verdict in report.parity.verdicts if not verdict.passed] == []
    assert {verdict.backend for verdict in report.parity.verdicts} == {"onnxruntime", "openvino", "paddle"}


def test_samples_do_not_see_each_other(bundle: Bundle) -> None:
    images = np.random.default_rng(0).standard_normal((5, *SHAPE)).astype("float32")
    for backend in ("onnxruntime", "openvino"):
        with dyx.open(bundle, backend, device="cpu") as runner:
            together, alone = runner.run(images), np.concatenate([runner.run(images[[row]]) for row in range(5)])
        assert np.abs(together - together[0]).max() > 0.01, "they answer differently"
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 * np.abs(together).max())


def test_onnx_loops_and_paddle_does_not(bundle: Bundle) -> None:
    census = onnx_census(bundle)
    assert census.operators["Scan"] == len(KINDS)
    made = {
        node.name.rpartition("/")[2] for node in onnx.load(bundle.file("model.onnx")).graph.node if LAYER in node.name
    }
    assert made == {"Reshape_samples", "Reshape_kernels", "Scan", "Reshape_answers"}, "the first sample's are gone"
    assert census.free_batch and census.computed_kernels == 0
    program = paddle_census(bundle)
    assert program.free_batch and program.computed_kernels == 0
    assert program.operators["matmul"] > census.operators["MatMul"], "bands are products of matrices"


def test_arithmetic_inside_loops_is_counted(bundle: Bundle) -> None:
    """The stem, 3×3 at 20 × 22, 5×5, 3×3 and 3×3 at 10 × 11: without its loops a graph would do far less."""
    taps = 24 * (9 * 20 * 22 + (25 + 9 + 9) * 10 * 11)
    macs = onnx_census(bundle).macs
    assert macs is not None
    assert 27 * 24 * 20 * 22 + taps < macs < 27 * 24 * 20 * 22 + taps + 20_000


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_profile_counts_a_loop_once(bundle: Bundle, backend: str) -> None:
    images = np.zeros((64, *SHAPE), "float32")
    with dyx.open(bundle, backend, device="cpu") as runner:
        profile = runner.profile(images, 5)
    rules = [node.rule for node in profile.nodes if node.kind in ("Scan", "TensorIterator")]
    assert sorted(rules) == sorted(RULE_IDS)
    if backend == "onnxruntime":
        file = onnx.load(bundle.file("model.onnx")).graph
        inner = {node.name for scan in file.node if scan.op_type == "Scan" for node in scan.attribute[0].g.node}
        assert len(inner) == len(KINDS) and inner.isdisjoint(node.name for node in profile.nodes)


def test_a_frozen_batch_loops_too(tmp_path: Path) -> None:
    frozen = dyx.export(
        f"{__file__}:Depthwise",
        shape=SHAPE,
        out=tmp_path / "four",
        fold=RULE_IDS,
        batch=4,
        formats=("onnx",),
        opset=21,
    )
    census = onnx_census(frozen)
    assert census.operators["Scan"] == len(KINDS) and not census.free_batch
    assert not dyx.check(frozen).faults


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_is_looped_over_is_the_convolution_of_a_sample(dtype: str) -> None:
    random, walk = np.random.default_rng(0), Geometry((3, 5), (2, 1), (1, 2), (1, 2), 4)
    x, kernels = random.standard_normal((3, 4, 9, 12)), random.standard_normal((3, 4 * 15))
    with default_dtype(dtype):
        layer = depthwise_per_sample(walk, (9, 12), SharedConstants(), scan=True)
        tensors = [paddle.to_tensor(array.astype(dtype)) for array in (x, kernels)]
        plain = layer(*tensors).numpy()
        with sample_by_sample(paddle.nn.Sequential(layer)) as paths:
            looped = [layer(tensors[0][row : row + 1], tensors[1][row : row + 1]).numpy() for row in range(3)]
        again = layer(*tensors).numpy()
    wanted = [
        walk.convolve(paddle.to_tensor(x[[row]]), paddle.to_tensor(kernels[row].reshape(4, 1, 3, 5))).numpy()
        for row in range(3)
    ]
    assert paths == ["0"] and isinstance(layer, DepthwiseScan)
    tolerance = 1e-9 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(np.concatenate(looped), np.concatenate(wanted), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(plain, np.concatenate(wanted), rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(plain, again)


def model_of(kernel: str) -> onnx.ModelProto:
    """A convolution of a layer, and one of the network itself, by a kernel that such an operator gives."""
    nodes = [
        helper.make_node(kernel, ["image", "shape"], ["kernel"], name="layer/kernel"),
        helper.make_node("Conv", ["image", "kernel"], ["between"], name="layer/Conv"),
        helper.make_node("Conv", ["between", "kernel"], ["logits"], name="Conv"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 1, 3, 3]) for name in ("image", "logits")]
    shape = onnx.numpy_helper.from_array(np.array([2, 1, 3, 3]), "shape")
    return helper.make_model(helper.make_graph(nodes, "graph", ends[:1], ends[1:], [shape]))


def test_other_computed_kernels_are_left_alone() -> None:
    model = model_of("Reshape")
    before = model.SerializeToString()
    scan_samples(model, NO_LOOPS)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    ("kernel", "layer", "words"),
    [
        ("Expand", "layer", "the kernel of layer/Conv does not come from a Reshape"),
        ("Reshape", "layer", "the kernel of layer/Conv does not come from a Slice"),
        ("Reshape", "other", "it made no convolution of other"),
    ],
)
def test_what_the_converter_made_otherwise_is_refused(kernel: str, layer: str, words: str) -> None:
    with pytest.raises(ConversionFailed, match=words):
        scan_samples(model_of(kernel), Loops((layer,)))


def test_what_a_loop_of_the_users_own_takes_from_outside_stays() -> None:
    """Its body may name any tensor of the graph around it, and nothing else does here."""
    body = helper.make_graph(
        [helper.make_node("Add", ["one", "offset"], ["sum"])],
        "body",
        [helper.make_tensor_value_info("one", TensorProto.FLOAT, [2, 3, 3])],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [2, 3, 3])],
    )
    nodes = [
        helper.make_node("Slice", ["kernels", "zero", "one_row", "zero"], ["first"], name="layer/Slice"),
        helper.make_node("Reshape", ["first", "shape"], ["kernel"], name="layer/Reshape"),
        helper.make_node("Conv", ["image", "kernel"], ["between"], name="layer/Conv", group=2),
        helper.make_node("Scan", ["between"], ["logits"], name="Scan", body=body, num_scan_inputs=1),
    ]
    constants = {"zero": [0], "one_row": [1], "shape": [2, 1, 1, 1]}
    held = [onnx.numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    held.append(onnx.numpy_helper.from_array(np.ones((2, 3, 3), "float32"), "offset"))
    shapes = {"image": ["batch", 2, 3, 3], "kernels": ["batch", 2], "logits": ["batch", 2, 3, 3]}
    image, kernels, logits = (helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items())
    graph = helper.make_graph(nodes, "graph", [image, kernels], [logits], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    scan_samples(model, Loops(("layer",)))
    onnx.checker.check_model(model, full_check=True)
    assert {tensor.name for tensor in model.graph.initializer} >= {"offset"}
    assert [node.op_type for node in model.graph.node] == ["Reshape", "Reshape", "Scan", "Reshape", "Scan"]


def site_of(groups: int, channels: int = 16, side: int = 28) -> Site:
    layer = DYConv2D(channels, channels, 3, padding=1, groups=groups, num_experts=2)
    adapted = dyx.nn.dyconv.read_dyconv(layer)
    return Site("layer", "dyconv", "DYConv2D", adapted, (channels, side, side), (channels, side, side))


def answer(site: Site, target: Target) -> Offer | Refusal:
    (rule,) = (rule for rule in RULES if rule.id == "dyconv/aggregate-scan")
    return rule.offer(site, target)


@pytest.mark.parametrize(
    ("groups", "target", "words"),
    [
        (1, {}, "it convolves 16 channels in 1 group, not each by itself"),
        (4, {}, "it convolves 16 channels in 4 groups, not each by itself"),
        (16, {"backend": "paddle"}, "it loops over samples by an operator of ONNX; Paddle's programs have none"),
        (16, {"formats": ("paddle",)}, "it loops over samples by an operator of ONNX; Paddle's programs have none"),
        (16, {"batch": 1}, "a batch of one needs no loop over samples"),
    ],
)
def test_what_is_not_looped_over(groups: int, target: dict[str, Any], words: str) -> None:
    refused = answer(site_of(groups), Target(**target))
    assert isinstance(refused, Refusal)
    assert refused.reason == words


def test_costs_are_those_of_a_static_convolution() -> None:
    site = site_of(16)
    offer = answer(site, Target(tune_batch=8))
    assert isinstance(offer, Offer)
    mixing, macs, floats = 2 * 16 * 9, 9 * 16 * 28 * 28, 16 * 28 * 28
    assert offer.cost.scanned_macs == macs
    assert offer.cost.macs == macs + mixing
    assert offer.cost.bytes == 4 * (2 * 16 * 9 + 4 * floats + 2 * floats), "the experts' biases are added apart"
    assert offer.cost.depthwise_macs == 0
