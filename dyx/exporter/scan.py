"""Convolutions by a kernel per sample as loops over the samples of an ONNX graph, by its own operator `Scan`.

A convolution shares its kernel among all samples, and its number of groups is an attribute, so that kernels of each
sample would freeze the batch. A `Scan` takes sample after sample of the map and of the kernels instead, and its body is
an ordinary convolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def scan_samples(model: Any) -> None:
    """Make a loop over all samples of every convolution by the first sample's kernel, in place.

    What `sample_by_sample` had traced is a `Conv` of a `Reshape` of a `Slice` of the kernels; no other layer of dyx
    makes that.

    Args:
        model: An `onnx.ModelProto` whose nodes have their final names.
    """
    import onnx

    graph = model.graph
    found = list(_of_first_sample(graph))
    if not found:
        return
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: _shape(value) for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    for conv, reshape, kernels in found:
        _replace(graph, conv, reshape, kernels, shapes)
    _drop_unused(graph)


def _of_first_sample(graph: Any) -> Iterator[tuple[Any, Any, str]]:
    """Each such convolution, what gives its kernel the shape, and all samples' kernels."""
    makers = {tensor: node for node in graph.node for tensor in node.output}
    for conv in graph.node:
        reshape = makers.get(conv.input[1]) if conv.op_type == "Conv" else None
        cut = makers.get(reshape.input[0]) if reshape is not None and reshape.op_type == "Reshape" else None
        if cut is not None and cut.op_type == "Slice":
            yield conv, reshape, cut.input[0]


def _replace(graph: Any, conv: Any, reshape: Any, kernels: str, shapes: Mapping[str, list[int]]) -> None:
    """Put the loop where the convolution is.

    A sample keeps an axis of one in front, so that the body is the convolution alone: an operator that adds it there
    would copy the sample.
    """
    from onnx import helper, numpy_helper

    (_, *map_in), kernel, (_, *map_out) = (shapes[name] for name in (conv.input[0], conv.input[1], conv.output[0]))
    layer = conv.name.removesuffix(conv.op_type)
    nodes: list[Any] = []

    def reshaped(tensor: str, shape: list[int], name: str, gives: str = "") -> str:
        """A view of a tensor with all its samples, by a node of such a name."""
        graph.initializer.append(numpy_helper.from_array(np.array([0, *shape]), f"{name}:shape"))
        nodes.append(helper.make_node("Reshape", [tensor, f"{name}:shape"], [gives or name], name=name))
        return gives or name

    taken = [
        reshaped(conv.input[0], [1, *map_in], f"{layer}Reshape_samples"),
        reshaped(kernels, kernel, f"{layer}Reshape_kernels"),
    ]
    scan, body = f"{layer}Scan", _body(conv, [1, *map_in], kernel, [1, *map_out])
    nodes.append(helper.make_node("Scan", taken, [scan], name=scan, body=body, num_scan_inputs=len(taken)))
    reshaped(scan, map_out, f"{layer}Reshape_answers", conv.output[0])
    place = [node.name for node in graph.node].index(conv.name)
    del graph.node[place]
    for node in reversed(nodes):
        graph.node.insert(place, node)


def _body(conv: Any, map_in: list[int], kernel: list[int], map_out: list[int]) -> Any:
    """One sample's convolution, as a graph."""
    from onnx import TensorProto, helper

    sample, weight, answer = (
        helper.make_tensor_value_info(f"{conv.name}:{name}", TensorProto.FLOAT, shape)
        for name, shape in (("sample", map_in), ("kernel", kernel), ("answer", map_out))
    )
    node = helper.make_node("Conv", [sample.name, weight.name], [answer.name], name=conv.name)
    node.attribute.extend(conv.attribute)
    return helper.make_graph([node], conv.name, [sample, weight], [answer])


def _shape(value: Any) -> list[int]:
    return [size.dim_value for size in value.type.tensor_type.shape.dim]


def _drop_unused(graph: Any) -> None:
    """Forget nodes whose outputs nobody takes, what makes their inputs included, and initialisers alike."""
    wanted = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if wanted.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            wanted.update(node.input)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in wanted]:
        graph.initializer.remove(tensor)
