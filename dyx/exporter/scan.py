"""Convolutions by a kernel per sample as loops over the samples of an ONNX graph, by its own operator `Scan`.

A convolution shares its kernel among all samples, and its number of groups is an attribute, so that kernels of each
sample would freeze the batch. A `Scan` takes sample after sample of the map and of the kernels instead, and its body is
an ordinary convolution.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dyx.errors import ConversionFailed
from dyx.onnx_graph import SEPARATOR, layer_of, replace_node, with_inner


@dataclass(frozen=True)
class Loops:
    """What becomes loops over samples.

    Attributes:
        layers: Paths of the layers that convolve with the first sample's kernels; see `sample_by_sample`.
        channels_last: Whether samples go in and come out with their channels last.
    """

    layers: Collection[str] = ()
    channels_last: bool = False


NO_LOOPS = Loops()


def scan_samples(model: Any, loops: Loops) -> None:
    """Make loops over all samples of convolutions by the first sample's kernel, in place.

    Args:
        model: An `onnx.ModelProto` whose nodes have their final names.
        loops: Which convolutions, and how.

    Raises:
        ConversionFailed: The converter made something else of such a layer.
    """
    layers = loops.layers
    if not layers:
        return
    graph, shapes = model.graph, shapes_of(model)
    found = [node for node in graph.node if node.op_type == "Conv" and layer_of(node.name) in layers]
    if missing := set(layers).difference(layer_of(node.name) for node in found):
        raise ConversionFailed("paddle2onnx", f"it made no convolution of {min(missing)}")
    makers = {tensor: node for node in graph.node for tensor in node.output}
    for conv in found:
        _replace(graph, conv, _all_kernels(conv, makers), shapes, channels_last=loops.channels_last)
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


def _replace(graph: Any, conv: Any, kernels: str, shapes: Mapping[str, list[int]], *, channels_last: bool) -> None:
    """Put the loop where the convolution is.

    A sample keeps an axis of one in front: an operator of the body that adds it there would copy the sample.
    """
    from onnx import helper, numpy_helper

    (_, *map_in), kernel, (_, *map_out) = (shapes[name] for name in (conv.input[0], conv.input[1], conv.output[0]))
    nodes: list[Any] = []

    def reshaped(tensor: str, shape: Sequence[int], what: str) -> str:
        """A view of a tensor with all its samples."""
        name = _named(conv, f"Reshape_{what}")
        graph.initializer.append(numpy_helper.from_array(np.array([0, *shape]), f"{name}:shape"))
        nodes.append(helper.make_node("Reshape", [tensor, f"{name}:shape"], [name], name=name))
        return name

    samples = conv.input[0]
    if channels_last:
        nodes.append(_turned(conv, samples, TO_LAST, "samples"))
        (samples,), map_in, map_out = nodes[-1].output, [*map_in[1:], map_in[0]], [*map_out[1:], map_out[0]]
    taken = [reshaped(samples, [1, *map_in], "samples"), reshaped(kernels, kernel, "kernels")]
    scan, body = _named(conv, "Scan"), _body(conv, [1, *map_in], kernel, [1, *map_out], channels_last=channels_last)
    nodes.append(helper.make_node("Scan", taken, [scan], name=scan, body=body, num_scan_inputs=len(taken)))
    answers = reshaped(scan, map_out, "answers")
    if channels_last:
        nodes.append(_turned(conv, answers, TO_FIRST, "answers"))
    replace_node(graph, [node.name for node in graph.node].index(conv.name), nodes)


TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
"""Where each axis comes from when channels go last, and when they come back."""


def _named(conv: Any, kind: str) -> str:
    """`features.8/Conv_1` as a node of another kind."""
    layer, _, operator = conv.name.rpartition(SEPARATOR)
    return f"{layer}{SEPARATOR}{kind}{operator.removeprefix(conv.op_type)}"


def _turned(conv: Any, tensor: str, axes: Sequence[int], what: str) -> Any:
    """The node that orders the axes of a tensor anew."""
    from onnx import helper

    name = _named(conv, f"Transpose_{what}")
    return helper.make_node("Transpose", [tensor], [name], name=name, perm=axes)


def _body(conv: Any, map_in: list[int], kernel: list[int], map_out: list[int], *, channels_last: bool) -> Any:
    """One sample's convolution, as a graph."""
    from onnx import TensorProto, helper

    sample, weight, answer = (
        helper.make_tensor_value_info(f"{conv.name}:{name}", TensorProto.FLOAT, shape)
        for name, shape in (("sample", map_in), ("kernel", kernel), ("answer", map_out))
    )
    nodes = [_turned(conv, sample.name, TO_FIRST, "sample")] if channels_last else []
    read = nodes[0].output[0] if nodes else sample.name
    nodes.append(helper.make_node("Conv", [read, weight.name], [f"{conv.name}:convolved"], name=conv.name))
    nodes[-1].attribute.extend(conv.attribute)
    if channels_last:
        nodes.append(_turned(conv, nodes[-1].output[0], TO_LAST, "answer"))
    nodes[-1].output[:] = [answer.name]
    return helper.make_graph(nodes, conv.name, [sample, weight], [answer])


def shapes_of(model: Any) -> dict[str, list[int]]:
    """Name of a tensor → its shape, with 0 for what is free, as far as ONNX can tell."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {value.name: _shape(value) for value in (*inferred.input, *inferred.value_info, *inferred.output)}


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
