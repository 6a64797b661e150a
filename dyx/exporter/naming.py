"""Which layer made which operator: noted while Paddle traces, carried into the names of ONNX nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dyx.nn.framework import paddle
from dyx.onnx_graph import SEPARATOR, Op, Origins, ops_of
from dyx.paddle_program import LAYER, Operation

_CONVERTED = "p2o.pd_op.{name}.{number}.{output}"
"""How paddle2onnx calls what an operation gives: its name, how many of that name came before, which output."""


@contextmanager
def layers_noted(network: Any) -> Iterator[None]:
    """While a network is traced, every operation is given the path of the layer whose forward made it."""
    inside: list[str] = []
    hooks = []
    for path, layer in network.named_sublayers(include_self=True):

        def enter(_layer: Any, _inputs: Any, path: str = path) -> None:
            if inside:
                _note(inside[-1])  # what the layer around it made before
            inside.append(path)

        def leave(_layer: Any, _inputs: Any, _output: Any) -> None:
            _note(inside.pop())

        hooks += [layer.register_forward_pre_hook(enter), layer.register_forward_post_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _note(path: str) -> None:
    """Give the operations that have come since the last note the path of a layer."""
    if paddle.in_dynamic_mode():
        return
    for operation in reversed(paddle.static.default_main_program().global_block().ops):
        # Paddle's own note is there already; it names classes, and begins with a slash.
        if operation.has_attr(LAYER) and not operation.str_attr(LAYER).startswith("/"):
            break
        if not operation.name().startswith("builtin."):
            operation.set_str_attr(LAYER, path)


def layers_of_tensors(ops: Sequence[Op], operations: Sequence[Operation], logits: str) -> dict[str, str]:
    """Name of each tensor → the layer that made it, for a graph as paddle2onnx writes it.

    An operation becomes one node or several, the last of which gives what the operation gave.

    Args:
        ops: Of the graph.
        operations: Of the program that it was made from.
        logits: What the graph calls its output.
    """
    known = _layers_of_outputs(operations)
    known[logits] = next((each.layer or "" for each in reversed(operations) if each.name != "fetch"), "")
    users = {tensor: op for op in reversed(ops) for tensor in op.inputs}
    for op in reversed(ops):
        for tensor in op.outputs:
            if tensor not in known and tensor in users:
                known[tensor] = known.get(users[tensor].outputs[0], "")
    return known


def _layers_of_outputs(operations: Sequence[Operation]) -> dict[str, str]:
    found, seen = {}, Counter[str]()
    for operation in operations:
        for place in range(len(operation.outputs)):
            name = _CONVERTED.format(name=operation.name, number=seen[operation.name], output=place)
            found[name] = operation.layer or ""
        seen[operation.name] += 1
    return found


def name_nodes(graph: Any, before: Sequence[Op], layers: Mapping[str, str]) -> None:
    """Give each node of a graph, and what it computes, a name that begins with its layer: `features.8/Conv_1`.

    Args:
        graph: An `onnx.GraphProto`, cleaned; the names of its inputs and outputs stay.
        before: The operators that it was made from.
        layers: Tensor → layer, of those.
    """
    origins, ops = Origins(before), ops_of(graph)
    found = [origins.of(op.kind, op.inputs, op.outputs[0]) or op for op in ops]
    name_by_layer(graph, [layers.get(origin.outputs[0], "") for origin in found])


def name_by_layer(graph: Any, layers: Sequence[str]) -> None:
    """The same where the layer of each node is known; "" for the network's own forward."""
    seen = Counter[str]()
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    for node, op, layer in zip(graph.node, ops_of(graph), layers, strict=True):
        name = f"{layer}{SEPARATOR}{op.kind}" if layer else op.kind
        node.name = f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1
        for place, tensor in enumerate(op.outputs):
            names.setdefault(tensor, f"{node.name}:{place}" if place else node.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
