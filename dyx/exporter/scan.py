"""Convolutions by a kernel per sample as loops over the samples of an ONNX graph, by its own operator `Scan`.

A convolution shares its kernel among all samples, and its number of groups is an attribute, so that kernels of each
sample would freeze the batch. A `Scan` takes sample after sample of the map and of the kernels instead, and its body is
an ordinary convolution.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from dyx.errors import ConversionFailed
from dyx.onnx_graph import SEPARATOR, layer_of, with_inner


def scan_samples(model: Any, layers: Collection[str]) -> None:
    """Make loops over all samples of convolutions by the first sample's kernel, in place.

    Args:
        model: An `onnx.ModelProto` whose nodes have their final names.
        layers: Paths of the layers that made those convolutions; see `sample_by_sample`.

    Raises:
        ConversionFailed: The converter made something else of such a layer.
    """
    if not layers:
        return
    import onnx

    graph, inferred = model.graph, onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: _shape(value) for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    found = [node for node in graph.node if node.op_type == "Conv" and layer_of(node.name) in layers]
    if missing := set(layers).difference(layer_of(node.name) for node in found):
        raise ConversionFailed("paddle2onnx", f"it made no convolution of {min(missing)}")
    makers = {tensor: node for node in graph.node for tensor in node.output}
    for conv in found:
        _replace(graph, conv, _all_kernels(conv, makers), shapes)
    _drop_unused(graph)


def _all_kernels(conv: Any, makers: Mapping[str, Any]) -> str:
    """The kernels `(B, C · taps)` of which a convolution takes the first, by a `Reshape` of a `Slice`."""
    tensor = conv.input[1]
    for wanted in ("Reshape", "Slice"):
        made = makers.get(tensor)
        if made is None or made.op_type != wanted:
            raise ConversionFailed("paddle2onnx", f"the kernel of {conv.name} does not come from a {wanted}")
        tensor = made.input[0]
    return str(tensor)


def _replace(graph: Any, conv: Any, kernels: str, shapes: Mapping[str, list[int]]) -> None:
    """Put the loop where the convolution is.

    A sample keeps an axis of one in front, so that the body is the convolution alone: an operator that adds it there
    would copy the sample.
    """
    from onnx import helper, numpy_helper

    (_, *map_in), kernel, (_, *map_out) = (shapes[name] for name in (conv.input[0], conv.input[1], conv.output[0]))
    nodes: list[Any] = []

    def named(kind: str) -> str:
        """`features.8/Conv_1` as a node of another kind."""
        layer, _, operator = conv.name.rpartition(SEPARATOR)
        return f"{layer}{SEPARATOR}{kind}{operator.removeprefix(conv.op_type)}"

    def reshaped(tensor: str, shape: list[int], name: str, gives: str = "") -> str:
        """A view of a tensor with all its samples, by a node of such a name."""
        graph.initializer.append(numpy_helper.from_array(np.array([0, *shape]), f"{name}:shape"))
        nodes.append(helper.make_node("Reshape", [tensor, f"{name}:shape"], [gives or name], name=name))
        return gives or name

    taken = [
        reshaped(conv.input[0], [1, *map_in], named("Reshape_samples")),
        reshaped(kernels, kernel, named("Reshape_kernels")),
    ]
    scan, body = named("Scan"), _body(conv, [1, *map_in], kernel, [1, *map_out])
    nodes.append(helper.make_node("Scan", taken, [scan], name=scan, body=body, num_scan_inputs=len(taken)))
    reshaped(scan, map_out, named("Reshape_answers"), conv.output[0])
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
    """Forget nodes whose outputs nobody takes, what makes their inputs included, and initialisers alike.

    What stands inside a node may take any tensor of the graph around it.
    """
    wanted = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if wanted.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            wanted.update(name for each in with_inner([node]) for name in each.input)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in wanted]:
        graph.initializer.remove(tensor)
