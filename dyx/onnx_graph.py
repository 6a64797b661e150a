"""Operators of an ONNX graph, the layers that made them, and what became of them in a graph made from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SEPARATOR = "/"
"""Between the path of a layer and the operator in the name of a node: `features.8/Conv_1`."""


@dataclass(frozen=True)
class Op:
    """One operator.

    Attributes:
        name: The node's name.
        kind: Its operator, as ONNX calls it.
        inputs: Names of the tensors that it takes.
        outputs: Names of the tensors that it gives.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def ops_of(graph: Any) -> list[Op]:
    """The operators of an `onnx.GraphProto`, in their order."""
    return [Op(node.name, node.op_type, tuple(node.input), tuple(node.output)) for node in graph.node]


def bodies_of(node: Any) -> list[Any]:
    """The graphs inside an `onnx.NodeProto`: what a loop does each time."""
    return [attribute.g for attribute in node.attribute if attribute.HasField("g")]


def with_inner(nodes: Iterable[Any]) -> Iterator[Any]:
    """Each `onnx.NodeProto`, followed by those of the graphs inside it."""
    for node in nodes:
        yield node
        for body in bodies_of(node):
            yield from with_inner(body.node)


def inner_names(graph: Any) -> set[str]:
    """Names of the nodes inside the nodes of an `onnx.GraphProto`."""
    return {node.name for node in with_inner(graph.node)} - {node.name for node in graph.node}


def replace_node(graph: Any, place: int, nodes: Sequence[Any]) -> None:
    """Put nodes where one of an `onnx.GraphProto` is; the last of them gives what that one gave."""
    nodes[-1].output[:] = graph.node[place].output
    del graph.node[place]
    for node in reversed(nodes):
        graph.node.insert(place, node)


def layer_of(name: str) -> str:
    """The path of the layer in the name of a node, "" for the network's own forward."""
    return name.rpartition(SEPARATOR)[0]


def are_named_by_layer(ops: Sequence[Op]) -> bool:
    """Whether the names of nodes tell their layers: not in what dyx wrote before they did, nor in others' files."""
    return any(SEPARATOR in op.name for op in ops)


class Origins:
    """What the operators of a graph were in the one that it was made from by fusing, renaming and inserting.

    Args:
        ops: Of the graph that was there first.
    """

    def __init__(self, ops: Sequence[Op]) -> None:
        self._makers = {tensor: op for op in ops for tensor in op.outputs}

    def __contains__(self, tensor: str) -> bool:
        return tensor in self._makers

    def of(self, kind: str, inputs: Collection[str], output: str) -> Op | None:
        """The operator that gave a fused one its name: of its kind and nearest to its output, else its first one.

        Args:
            kind: Of the fused operator.
            inputs: What it takes, as the first graph calls it.
            output: What it gives, as the first graph calls it.
        """
        found = None
        for found in self._behind(output, inputs):
            if found.kind == kind:
                return found
        return found

    def _behind(self, output: str, inputs: Collection[str]) -> Iterator[Op]:
        """The operators between some tensors and one that is computed from them, last ones first."""
        waiting, seen = deque([output]), {*inputs}
        while waiting:
            tensor = waiting.popleft()
            maker = self._makers.get(tensor)
            if maker is not None and maker.kind != "Constant":
                yield maker
                waiting.extend(name for name in maker.inputs if name not in seen)
                seen.update(maker.inputs)
