"""Where a call's time goes, on real runtimes; and which layer and rule a node of theirs belongs to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import dyx
from dyx.bundle import PADDLE_PROGRAM, Bundle, read_bundle
from dyx.errors import InvalidTensor, ProfileUnavailable
from dyx.onnx_graph import Op, ops_of
from dyx.paddle_program import PARAMETER, Operation, read_program
from dyx.runtime.onnxruntime_profile import layers_of_optimised, read_events
from dyx.runtime.openvino import shared_core
from dyx.runtime.openvino_profile import layers_of_executed, read_counters
from dyx.runtime.paddle_profile import layers_of_events, layers_of_operations, ran_operations
from dyx.runtime.paddle_profile import read_events as read_trace
from dyx.runtime.profile import WARM_UP_CALLS, Profile, Ran, aligned, attributed, layers_of_running

BACKENDS = ("onnxruntime", "openvino", "paddle")
CALLS = 4
BATCH = 2
LINEAR = ("FusedGemm", "Gemm", "FullyConnected", "fc")


def images(batch: int = BATCH) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, 3, 128, 128)).astype(np.float32)


@pytest.fixture(scope="module", params=BACKENDS)
def seen(request: pytest.FixtureRequest, bundles: Path) -> tuple[str, Bundle, Profile]:
    """A real profile on each backend."""
    bundle = read_bundle(bundles / "alexnet-dy")
    with dyx.open(bundle, backend=request.param, device="cpu") as runner:
        return request.param, bundle, runner.profile(images(), CALLS)


def test_every_node_is_of_a_layer_that_the_network_has(seen: tuple[str, Bundle, Profile]) -> None:
    backend, bundle, profile = seen
    assert profile.notes == ()
    sites = {site["path"]: site["rule"] for site in bundle.manifest["plan"]["sites"]}
    paths = {each.layer for each in read_program(bundle.file(PADDLE_PROGRAM)) if each.layer is not None}
    for node in profile.nodes:
        assert node.layer in paths, node
        assert node.rule == sites.get(node.layer, ""), node
    assert set(sites) <= {node.layer for node in profile.nodes}
    program = read_program(bundle.file(PADDLE_PROGRAM))
    inside = {
        each.layer: next((path for path in sites if f"{each.layer}.".startswith(f"{path}.")), each.layer)
        for each in program
    }
    convolutions = {inside[each.layer] for each in program if each.name == "conv2d"}
    assert {node.layer for node in profile.nodes if "onv" in node.kind} == convolutions, backend
    linear = {node.layer for node in profile.nodes if node.kind in LINEAR}
    assert linear == {"classifier.0", "classifier.3", "classifier.6"}


def test_times_of_nodes_make_up_the_call(seen: tuple[str, Bundle, Profile]) -> None:
    backend, _, profile = seen
    entries = 1 if backend == "openvino" else CALLS  # which tells means alone
    assert {len(node.times_ns) for node in profile.nodes} == {entries}
    assert len(profile.calls_ns) == CALLS
    spent = sum(median(node.times_ns) for node in profile.nodes)
    assert 0.4 * min(profile.calls_ns) < spent < 1.2 * max(profile.calls_ns)
    in_products = sum(median(node.times_ns) for node in profile.nodes if "onv" in node.kind or node.kind in LINEAR)
    assert in_products > 0.5 * spent, "of many nodes and calls: one call that another process held up decides nothing"


def test_copies_are_told_apart_where_they_can_be(seen: tuple[str, Bundle, Profile]) -> None:
    backend, _, profile = seen
    if backend == "paddle":
        assert {way: len(times) for way, times in profile.copies_ns.items()} == {"in": CALLS, "out": CALLS}
        assert all(0 < time < call for time, call in zip(profile.copies_ns["in"], profile.calls_ns, strict=True))
    else:
        assert profile.copies_ns == {}


def test_a_profile_survives_json(seen: tuple[str, Bundle, Profile]) -> None:
    _, _, profile = seen
    assert Profile.from_json(json.loads(json.dumps(profile.to_json()))) == profile


@pytest.mark.parametrize("backend", BACKENDS)
def test_answers_and_options_are_the_same_afterwards(dy_bundle: Path, backend: str) -> None:
    with dyx.open(dy_bundle, backend=backend, device="cpu", threads=1) as runner:
        before, options = runner.run(images()), runner.options
        runner.profile(images(), 1)
        np.testing.assert_array_equal(runner.run(images()), before)
        assert runner.options == options
        with pytest.raises(InvalidTensor):
            runner.profile(np.zeros((1, 3, 4, 4), np.float32), 1)


def test_a_runner_that_cannot_says_why(dy_bundle: Path) -> None:
    from dyx.zoo.eager import open_eager

    with dyx.open(dy_bundle, backend="onnxruntime", device="cpu") as runner:
        runner.device = "gpu"
        with pytest.raises(ProfileUnavailable, match="onnxruntime gives no time per node: on a GPU runtimes tell when"):
            runner.profile(images(), 1)
        runner.device = "cpu"
    with (
        open_eager("alexnet-dy", device="cpu", threads=1) as eager,
        pytest.raises(ProfileUnavailable, match="it runs no graph"),
    ):
        eager.profile(images(1), 1)


def plan_of(*sites: tuple[str, str]) -> Bundle:
    return Bundle(Path(), {"plan": {"sites": [{"path": path, "rule": rule} for path, rule in sites]}})


def test_rules_are_those_of_the_innermost_fold() -> None:
    bundle = plan_of(("features.1", "a/x"), ("features.1.gate", "b/y"))
    paths = ["features.1", "features.1.routing", "features.1.gate.fc", "features.10", "", None]
    ran = [Ran(str(place), "Conv", (1,)) for place in range(len(paths))]
    nodes = attributed(bundle, ran, paths)
    assert [(node.layer, node.rule) for node in nodes] == [
        *(("features.1", "a/x"), ("features.1", "a/x"), ("features.1.gate", "b/y")),
        *(("features.10", ""), ("", ""), (None, "")),
    ]


FILE = [
    Op("a/Conv", "Conv", ("image", "w"), ("a/Conv",)),
    Op("b/Relu", "Relu", ("a/Conv",), ("b/Relu",)),
    Op("c/Conv", "Conv", ("b/Relu", "v"), ("c/Conv",)),
    Op("d/Add", "Add", ("c/Conv", "b/Relu"), ("d/Add",)),
    Op("e/MatMul", "MatMul", ("d/Add", "m"), ("logits",)),
]


def test_nodes_of_onnxruntimes_optimised_graph() -> None:
    """Fused nodes bear the name of the last operator in them; blocked tensors and changes of layout bear none."""
    optimised = [
        Op("b/Relu_nchwc", "Conv", ("image", "w1"), ("token_0",)),
        Op("d/Add_nchwc", "Conv", ("token_0", "w2", "token_0"), ("token_1",)),
        Op("ReorderOutput_token_2", "ReorderOutput", ("token_1",), ("d/Add",)),
        Op("", "HardSigmoid", ("d/Add",), ("unknown",)),
        Op("fused e/MatMul/x", "FusedMatMul", ("unknown", "m"), ("logits",)),
    ]
    assert layers_of_optimised(FILE, optimised) == ["a", "c", "e", "e", "e"]


def test_what_was_inserted_counts_to_who_takes_it() -> None:
    running = [
        Op("in", "Reorder", ("image",), ("0",)),
        Op("conv", "Conv", ("0", "w"), ("1",)),
        Op("between", "Reorder", ("1",), ("2",)),
        Op("again", "Reorder", ("2",), ("3",)),
        Op("other", "Conv", ("3", "v"), ("4",)),
        Op("out", "Reorder", ("4",), ("5",)),
    ]
    given = [None, "b/Relu", None, None, "c/Conv", None]
    assert layers_of_running(FILE, running, given) == ["a", "a", "c", "c", "c", "c"]
    assert layers_of_running(FILE, [Op("alone", "Reorder", ("image",), ("x",))], [None]) == [None]


def test_nodes_that_are_only_known_by_kind_and_order() -> None:
    kinds, layers = ["conv", "relu", "conv", "fc"], ["a", "a", "b", "c"]
    assert aligned(kinds, layers, kinds) == layers
    ran = ["conv", "relu", "layout", "conv", "layout", "layout", "fc"]
    assert aligned(kinds, layers, ran) == ["a", "a", "a", "b", "b", "b", "c"]


def test_events_of_the_warm_up_and_inside_loops_are_left_out(tmp_path: Path) -> None:
    events = [{"cat": "Session", "name": "model_loading_uri", "dur": 5}]
    for call in range(1, 4):
        for name in ("x", "y/Conv", "y/Conv", "y"):
            args = {"op_name": name.upper()}
            events.append({"cat": "Node", "name": f"{name}_kernel_time", "dur": call * 10, "args": args})
        events.append({"cat": "Node", "name": "x_fence_before", "dur": 1, "args": {"op_name": "X"}})
        events.append({"cat": "Session", "name": "model_run", "dur": 99})
    file = tmp_path / "trace.json"
    file.write_text(json.dumps(events), encoding="utf-8")
    wanted = [Ran("x", "X", (20_000, 30_000)), Ran("y", "Y", (20_000, 30_000))]
    assert read_events(str(file), 2, {"y/Conv"}) == wanted, "what a loop does is the loop's"


@dataclass
class Counter:
    """What OpenVINO gives per node."""

    node_name: str
    real_time: timedelta
    status: str = "Status.EXECUTED"
    node_type: str = "Convolution"


def test_counters_are_means_since_the_model_was_compiled() -> None:
    """Three slow calls of 100 µs and seven of 10 µs: the mean of all is 37, that of the seven is 10."""
    warm = [Counter("a", timedelta(microseconds=100)), Counter("b", timedelta(0), "Status.NOT_RUN")]
    in_all = [Counter("a", timedelta(microseconds=37)), Counter("b", timedelta(0), "Status.NOT_RUN")]
    assert WARM_UP_CALLS == 3
    assert read_counters(warm, in_all, 7) == [Ran("a", "Convolution", (10_000,))]


def operation(name: str, inputs: tuple[int, ...], output: int, layer: str | None = None, weight: str = "") -> Operation:
    return Operation(name, inputs, (output,), ((),), weight, layer)


PROGRAM = [
    operation(PARAMETER, (), 1, weight="norm"),
    operation(PARAMETER, (), 2, weight="kernel"),
    operation("data", (), 3, ""),
    operation("conv2d", (3, 2), 4, "a"),
    operation("batch_norm_", (4, 1), 5, "b"),
    operation("relu", (5,), 6, "c"),
    operation("scale", (6,), 7, "d"),
]
OPTIMISED = [
    *PROGRAM[:3],
    operation("multiply", (2, 1), 8),  # of constants alone: computed before the first call
    operation("onednn_op.fused_conv2d", (3, 8), 9),
    operation("onednn_op.relu", (9,), 10, "c"),
    operation("onednn_op.fused_scale", (10,), 11),
    operation("fetch", (11,), 12),
]


def test_operations_that_paddle_fused_belong_to_the_first_layer_whose_parameters_they_take() -> None:
    assert layers_of_operations(PROGRAM, OPTIMISED) == {4: "a", 5: "c", 6: "c"}
    kinds = ["onednn_op.fused_conv2d", "pd_op.onednn_to_paddle_layout", "onednn_op.relu_", "onednn_op.fused_scale"]
    assert layers_of_events(kinds, PROGRAM, OPTIMISED) == ["a", "a", "c", "c"]


def test_a_parameter_that_layers_share_tells_of_none() -> None:
    """A transform of tiles stands once in the file: what takes it belongs to the layer that ran before."""
    program = [
        operation(PARAMETER, (), 1, weight="transform"),
        operation("data", (), 2, ""),
        *(operation("gather", (2,), 3, "a"), operation("matmul", (1, 3), 4, "a")),
        *(operation("gather", (4,), 5, "b"), operation("matmul", (1, 5), 6, "b")),
    ]
    optimised = [
        *program[:3],
        operation("onednn_op.fused_matmul", (1, 3), 4),
        program[4],
        operation("onednn_op.fused_matmul", (1, 5), 6),
    ]
    assert list(layers_of_operations(program, optimised).values()) == ["a", "a", "b", "b"]


def test_events_of_a_paddle_trace() -> None:
    def event(cat: str, name: str, ts: float, dur: float) -> dict[str, Any]:
        return {"cat": cat, "name": f"{name}[{dur} us]", "ts": ts, "dur": dur}

    trace = [event("ProfileStep", f"ProfileStep#{step}", 100.0 * step, 90.0) for step in (2, 1, 0)]
    trace += [
        event("Operator", kind, 100.0 * step + at, at + 0.5) for step in (0, 1) for kind, at in (("r", 20), ("c", 1))
    ]
    trace.append(event("UserDefined", "infermeta", 5, 1))
    calls = read_trace(trace, 2)
    assert calls == [[("c", 1500), ("r", 20_500)]] * 2
    assert ran_operations(calls) == [Ran("0:c", "c", (1500, 1500)), Ran("1:r", "r", (20_500, 20_500))]


def residual() -> onnx.ModelProto:
    """A convolution scaled and added to its input by the layer around it, and a matrix whose bias is another's."""
    rng = np.random.default_rng(0)
    shapes = {
        "a": (8, 3, 3, 3),
        "b": (8, 8, 3, 3),
        "scale": (1, 8, 1, 1),
        "matrix": (8, 5),
        "bias": (5,),
        "shift": (8,),
    }
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "a", "shift"], ["a/Conv"], "a/Conv", pads=[1] * 4),
        helper.make_node("Conv", ["a/Conv", "b"], ["b/Conv"], "b/Conv", pads=[1] * 4),
        helper.make_node("Mul", ["b/Conv", "scale"], ["around/Mul"], "around/Mul"),
        helper.make_node("Add", ["around/Mul", "a/Conv"], ["around/Add"], "around/Add"),
        helper.make_node("GlobalAveragePool", ["around/Add"], ["pool/P"], "pool/P"),
        helper.make_node("Flatten", ["pool/P"], ["flat/F"], "flat/F"),
        helper.make_node("MatMul", ["flat/F", "matrix"], ["head/MatMul"], "head/MatMul"),
        helper.make_node("Add", ["head/MatMul", "bias"], ["logits"], "tail/Add"),
    ]
    ends = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5]),
    ]
    graph = helper.make_graph(nodes, "residual", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_nodes_of_openvinos_execution_graph(tmp_path: Path) -> None:
    """It gives the second convolution a name of its own, and calls the matrix after the bias that it took."""
    file = tmp_path / "residual.onnx"
    onnx.save(residual(), file)
    compiled = shared_core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    executed = compiled.get_runtime_model()
    layers = layers_of_executed(ops_of(residual().graph), executed)
    told = {node.get_friendly_name(): node.get_rt_info()["layerType"] for node in executed.get_ordered_ops()}
    kinds = {name: str(kind.astype(str)) for name, kind in told.items()}
    assert sorted(str(layers[name]) for name, kind in kinds.items() if kind == "Convolution") == ["a", "b"]
    assert [layers[name] for name, kind in kinds.items() if kind == "FullyConnected"] == ["head"]
    assert None not in layers.values()
