"""OpenVINO's performance counters, and which layer each node of its execution graph computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dyx.onnx_graph import Op
from dyx.runtime.profile import WARM_UP_CALLS, Ran, layers_of_running

_ORIGINALS, _KIND = "originalLayersNames", "layerType"
_NO_WORK = ("Const", "Input", "Output")
_FUSING = {"Convolution": "Conv", "FullyConnected": "MatMul"}
"""What these are in ONNX, whatever they are called after what was fused into them."""


def read_counters(warm: Iterable[Any], all_calls: Iterable[Any], calls: int) -> list[Ran]:
    """The nodes that ran, each with its mean time over the calls after the warm-up.

    A counter is the mean over every call since the model was compiled, whatever request made it.

    Args:
        warm: What `get_profiling_info` gave after the warm-up.
        all_calls: What it gave in the end.
        calls: How many came after the warm-up.
    """
    before = {each.node_name: _total_ns(each, WARM_UP_CALLS) for each in warm}
    return [
        Ran(each.node_name, each.node_type, (_mean_ns(each, before[each.node_name], calls),))
        for each in all_calls
        if _has_run(each)
    ]


def _mean_ns(info: Any, warm_ns: float, calls: int) -> int:
    return max(0, round((_total_ns(info, WARM_UP_CALLS + calls) - warm_ns) / calls))


def _total_ns(info: Any, calls: int) -> float:
    return float(info.real_time.total_seconds()) * 1e9 * calls


def _has_run(info: Any) -> bool:
    return str(info.status).endswith(".EXECUTED")


def layers_of_executed(before: Sequence[Op], executed: Any) -> dict[str, str | None]:
    """Name of each node of the execution graph → the path of the layer that it computes.

    Args:
        before: The operators of the ONNX file.
        executed: What `get_runtime_model` of the compiled model gave.
    """
    places = {name: place for place, op in enumerate(before) for name in (*op.outputs, op.name)}
    nodes = [node for node in executed.get_ordered_ops() if _told(node, _KIND) not in _NO_WORK]
    running = [_op(node, before, places) for node in nodes]
    given = []
    for node in nodes:
        # A fused node tells all that it computes; what it gives is the last of them.
        found = [places.get(name) for name in _told(node, _ORIGINALS).split(",")]
        last = max((place for place in found if place is not None), default=None)
        given.append(None if last is None else before[last].outputs[0])
    return dict(zip((op.name for op in running), layers_of_running(before, running, given), strict=True))


def _told(node: Any, key: str) -> str:
    """What the execution graph says of a node."""
    return str(node.get_rt_info()[key].astype(str))


def _op(node: Any, before: Sequence[Op], places: Mapping[str, int]) -> Op:
    """A node of the execution graph, of the kind that it mainly is; its tensors are called after what makes them."""
    name, kind = node.get_friendly_name(), _told(node, _KIND)
    place = places.get(name)
    kind = _FUSING.get(kind) or (kind if place is None else before[place].kind)
    inputs = tuple(_tensor(value.get_source_output()) for value in node.inputs())
    return Op(name, kind, inputs, tuple(_tensor(value) for value in node.outputs()))


def _tensor(output: Any) -> str:
    return f"{output.get_node().get_friendly_name()}:{output.get_index()}"
