"""Layers between which a map keeps its positions first: which ones, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import paddle
import pytest
from paddle import nn

from dyx.bundle import ONNX_MODEL
from dyx.exporter.apply import apply_plan
from dyx.exporter.converter import Converter
from dyx.exporter.join import join
from dyx.exporter.plan import Plan, make_plan
from dyx.exporter.rule import Target
from dyx.exporter.to_onnx import to_onnx
from dyx.exporter.to_paddle import to_paddle
from dyx.exporter.trace import Trace, trace_sites
from dyx.nn.condconv import CondConv2D, CondRouting
from dyx.nn.dyconv import DYConv2D
from dyx.runtime.openvino import shared_core
from dyx.tensors import TensorSpec

SHAPE = (4, 12, 9)
FORCED = ("conv/winograd", "dyconv/winograd", "condconv/winograd")


class Net(nn.Layer):
    """Three convolutions in a transform domain and what may stand between them, wired by `wire`."""

    def __init__(self, wire: Any) -> None:
        super().__init__()
        paddle.seed(0)
        self.first = DYConv2D(4, 6, 3, padding=1, num_experts=2)
        self.second = nn.Conv2D(6, 6, 3, padding=1)
        self.third = CondConv2D(6, 4, 3, padding=1, num_experts=3)
        self.routing = CondRouting(4, 3)
        self.norm, self.relu, self.other = nn.BatchNorm2D(6), nn.ReLU(), nn.ReLU()
        self.norm._mean.set_value(np.random.default_rng(0).standard_normal(6).astype("float32"))
        self.pool, self.padded = nn.MaxPool2D(2), nn.MaxPool2D(3, 2, padding=1)
        self.same, self.dropout = nn.Identity(), nn.Dropout()
        self.wire = wire

    def forward(self, x: Any) -> Any:
        return self.wire(self, x)


def images_of(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, *SHAPE))


def planned(wire: Any) -> tuple[Any, Trace, Plan]:
    """The network in float64, what its forward shows, and what folds it."""
    net = Net(wire).to(dtype="float64")
    net.eval()
    trace = trace_sites(net, images_of(2), "net", logits=False)
    present = {site.kind for site in trace.sites}
    rules = [rule for rule in FORCED if rule.partition("/")[0] in present]
    return net, trace, join(make_plan(trace.sites, Target(), rules, "net"), net, images_of(2), "net")


def static_of(net: Any, trace: Trace, plan: Plan) -> Any:
    return apply_plan(plan, net, trace.inputs)


def relative(got: Any, wanted: Any) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


def check_same(net: Any, trace: Trace, plan: Plan) -> None:
    """In float64, and in float32."""
    static = static_of(net, trace, plan)
    for batch in (1, 2, 7):
        x = paddle.to_tensor(images_of(batch))
        assert relative(static(x), net(x)) < 1e-9
    single = static.to(dtype="float32")
    assert relative(single(x.astype("float32")).astype("float64"), net(x)) < 1e-5


def follow(net: Net, x: Any) -> Any:
    """One after the other, everything between them taken by a layer."""
    y = net.second(net.pool(net.relu(net.first(x))))
    return net.third(net.other(net.norm(y)), net.routing(x))


def test_layers_that_follow_each_other_are_joined() -> None:
    net, trace, plan = planned(follow)
    assert plan.joined == (("first", "second"), ("second", "third"))
    assert plan.to_json()["joined"] == [["first", "second"], ["second", "third"]]
    assert [list(decision.offer.takes) for decision in plan.decisions] == [["relu", "pool"], ["norm", "other"], []]
    static = static_of(net, trace, plan)
    forms = [(layer.reads_positions, layer.gives_positions) for layer in (static.first, static.second, static.third)]
    assert forms == [(False, True), (True, True), (True, False)]
    check_same(net, trace, plan)


def test_joints_change_nothing_but_the_form() -> None:
    net, trace, plan = planned(follow)
    joined, apart = static_of(net, trace, plan), static_of(net, trace, replace(plan, joined=()))
    assert not apart.second.reads_positions
    x = paddle.to_tensor(images_of(3))
    assert relative(joined(x), apart(x)) < 1e-13
    given = joined.first(x)
    assert tuple(given.shape) == (6 * 4, 3, 6)
    assert tuple(apart.first(x).shape) == (3, 6, 6, 4)


WIRES: dict[str, tuple[Any, tuple[tuple[str, str], ...]]] = {
    "nothing between": (lambda net, x: net.second(net.first(x)), (("first", "second"),)),
    "what does nothing between": (lambda net, x: net.second(net.same(net.first(x))), (("first", "second"),)),
    "a dropout between": (lambda net, x: net.second(net.dropout(net.first(x))), ()),
    "a function reads it too": (lambda net, x: net.second(y := net.first(x)) + y.mean(), ()),
    "a function behind a relu reads it too": (lambda net, x: net.second(y := net.relu(net.first(x))) + y.mean(), ()),
    "a function stands between": (lambda net, x: net.second(nn.functional.relu(net.first(x))), ()),
    "a layer reads it too": (lambda net, x: net.second(y := net.first(x)) + net.norm(y), ()),
    "a layer stands between": (lambda net, x: net.second(net.padded(net.first(x))), ()),
    "the routing reads it too": (
        lambda net, x: net.third(y := net.first(x), net.routing(y[:, :4])),
        (),
    ),
    "weights come from elsewhere": (
        lambda net, x: net.third(net.first(x), net.routing(x)),
        (("first", "third"),),
    ),
    "it is the answer": (lambda net, x: [net.second(y := net.first(x)), y][1] + 0 * x[:, :1], ()),
    "two read it": (lambda net, x: net.second(y := net.first(x)).mean() + net.third(y, net.routing(x)).mean(), ()),
    "the reader is called once more before": (
        lambda net, x: (
            net.third(net.norm(x[:, [0, 1, 2, 3, 0, 1]]), net.routing(x)) + net.third(net.first(x), net.routing(x))
        ),
        (),
    ),
    "the reader is called once more after": (
        lambda net, x: (
            net.third(net.first(x), net.routing(x)) + net.third(net.norm(x[:, [0, 1, 2, 3, 0, 1]]), net.routing(x))
        ),
        (),
    ),
    "the giver is called once more before": (
        lambda net, x: net.first(-x) + net.second(net.first(x)),
        (),
    ),
    "the giver is called once more, and nobody looks": (
        lambda net, x: [net.first(-x), net.second(net.first(x))][1],
        (),
    ),
    "one layer after itself": (
        lambda net, x: net.first((y := net.first(x))[:, :4]) + y,
        (),
    ),
}


@pytest.mark.parametrize("wiring", WIRES)
def test_only_a_map_that_one_layer_alone_reads_is_joined(wiring: str) -> None:
    wire, joined = WIRES[wiring]
    net, trace, plan = planned(wire)
    assert plan.joined == joined
    check_same(net, trace, plan)


def test_layer_in_another_form_is_not_joined() -> None:
    net, trace, _ = planned(lambda net, x: net.second(net.first(x)))
    for rules in (("dyconv/mix-outputs", "conv/winograd"), ("dyconv/winograd", "conv/direct")):
        plan = join(make_plan(trace.sites, Target(), rules, "net"), net, images_of(2), "net")
        assert plan.joined == ()
        assert plan.to_json()["joined"] == []
        check_same(net, trace, plan)


def test_join_leaves_no_hook_behind() -> None:
    net, _, _ = planned(follow)
    for layer in net.sublayers(include_self=True):
        assert not layer._forward_pre_hooks
        assert not layer._forward_post_hooks


def exported(net: Any, trace: Trace, plan: Plan, folder: Path) -> Path:
    """The ONNX file of the static network in float32."""
    folder.mkdir()
    image, made = TensorSpec("image", "float32", ("batch", *SHAPE)), net(paddle.to_tensor(images_of(1)))
    answers = TensorSpec("logits", "float32", ("batch", *made.shape[1:]))
    to_paddle(static_of(net, trace, plan).to(dtype="float32"), image, folder)
    with Converter() as converter:
        to_onnx(converter, folder, image, answers)
    return folder / ONNX_MODEL


def answers_of(file: Path, backend: str, x: np.ndarray) -> np.ndarray:
    if backend == "onnxruntime":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"image": x})[0])
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    return np.asarray(shared_core().compile_model(str(file), "CPU", precise)(x)[0])


def test_exported_chain_is_transposed_once_on_its_way_in_and_once_out(tmp_path: Path) -> None:
    net, trace, plan = planned(follow)
    file = exported(net, trace, plan, tmp_path / "joined")
    nodes = [node.op_type for node in onnx.load(file).graph.node]
    assert nodes.count("Transpose") == 2
    assert nodes.count("Conv") == 2, "those of the routing"
    places = [place for place, kind in enumerate(nodes) if kind == "Transpose"]
    assert "MatMul" not in nodes[places[1] :], "the second one stands behind everything"
    apart = exported(net, trace, replace(plan, joined=()), tmp_path / "apart")
    assert [node.op_type for node in onnx.load(apart).graph.node].count("Transpose") == 6
    for batch in (1, 3, 8):
        x = images_of(batch)
        wanted = net(paddle.to_tensor(x)).numpy()
        for backend in ("onnxruntime", "openvino"):
            got = answers_of(file, backend, x.astype("float32"))
            assert got.shape == wanted.shape
            assert np.abs(got - wanted).max() < 2e-5 * np.abs(wanted).max(), (backend, batch)
