"""An ONNX graph whose maps keep their channels last from layer to layer, for runtimes that compute so.

Folded layers turn a map to channels last and their answer back. Here poolings learn to read maps as they lie then, and
onnxruntime's optimiser drops every turn that meets its reverse, past biases, activations and sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dyx.bundle import ONNX_MODEL
from dyx.errors import PackageMissing
from dyx.exporter.algebra import Affine
from dyx.exporter.naming import name_by_layer
from dyx.exporter.scan import TO_FIRST, TO_LAST, shapes_of
from dyx.onnx_graph import ops_of, replace_node
from dyx.runtime.onnxruntime_profile import layers_of_optimised


def keep_channels_last(model: Any) -> Any:
    """A graph that computes the same with as few turns of maps as can be.

    Args:
        model: An `onnx.ModelProto` whose nodes have their final names; it is changed.

    Returns:
        Another one, its nodes named by the layers that made them.

    Raises:
        PackageMissing: onnxruntime is not installed.
    """
    _spell_out(model)
    kept, before = _without_turns(model), ops_of(model.graph)
    del kept.opset_import[:]  # onnxruntime adds its own sets, of which nothing is used
    kept.opset_import.extend(model.opset_import)
    layers = layers_of_optimised(before, ops_of(kept.graph))
    name_by_layer(kept.graph, [layer or "" for layer in layers])
    return kept


def _without_turns(model: Any) -> Any:
    """What onnxruntime's optimiser makes of a model where it keeps to ONNX's own operators."""
    import onnx

    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise PackageMissing("onnxruntime", "onnx") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with TemporaryDirectory(prefix="dyx-") as folder:
        path = Path(folder) / ONNX_MODEL
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def _spell_out(model: Any) -> None:
    """Put operators past which that optimiser moves turns in the place of some which it does not know so well."""
    graph, shapes = model.graph, shapes_of(model)
    for place, node in reversed([*enumerate(graph.node)]):
        spell = _SPELLINGS.get(node.op_type)
        shape = shapes.get(node.input[0], []) if spell else []
        if spell and len(shape) == 4 and all(shape[1:]) and (nodes := spell(graph, node, shape)):
            replace_node(graph, place, nodes)


def _pooled_lines(graph: Any, pool: Any, shape: Sequence[int]) -> list[Any]:
    """A pooling along whole lines as a product with a constant, of a map whose channels are last."""
    attributes = {attribute.name: list(attribute.ints) for attribute in pool.attribute}
    padded = "auto_pad" in attributes or any(attributes.get("pads", ()))
    whole = attributes["kernel_shape"] == [1, shape[3]] and attributes.get("strides", [1])[0] == 1
    return _line_means(graph, pool, shape[3]) if whole and not padded else []


def _pooled_map(graph: Any, pool: Any, shape: Sequence[int]) -> list[Any]:
    """A global pooling so; what is left to pool, a number a line, is small."""
    lines = _line_means(graph, pool, shape[3])
    return [*lines, _node(pool, pool.op_type, lines[-1].output, "map")]


def _line_means(graph: Any, pool: Any, width: int) -> list[Any]:
    """Nodes that make `(B, C, H, 1)` of what a pooling takes.

    OpenVINO needs 2.3 times as long to reduce 8 maps of 96 channels of 112 × 112 over their two middle axes, and as
    long to pool them where channels are first.
    """
    share = _constant(graph, pool, np.full((1, 1, 1, width), 1 / width), "share")
    turned = _node(pool, "Transpose", pool.input, "turned", perm=TO_LAST)
    means = _node(pool, "MatMul", [share, *turned.output], "means")
    return [turned, means, _node(pool, "Transpose", means.output, "lines", perm=TO_FIRST)]


def _normed(graph: Any, norm: Any, _shape: Sequence[int]) -> list[Any]:
    """A batch norm as a product and a sum."""
    from onnx import numpy_helper

    held = {tensor.name: tensor for tensor in graph.initializer}
    if not held.keys() >= {*norm.input[1:]}:
        return []
    epsilon = next((attribute.f for attribute in norm.attribute if attribute.name == "epsilon"), 1e-5)
    weight, bias, mean, variance = (numpy_helper.to_array(held[name]).astype("float64") for name in norm.input[1:])
    affine = Affine.of_batch_norm(weight, bias, mean, variance, epsilon)
    scale, shift = (
        _constant(graph, norm, array.reshape(1, -1, 1, 1), name)
        for array, name in ((affine.scale, "scale"), (affine.shift, "shift"))
    )
    scaled = _node(norm, "Mul", [norm.input[0], scale], "scaled")
    return [scaled, _node(norm, "Add", [*scaled.output, shift], "shifted")]


_SPELLINGS: dict[str, Callable[[Any, Any, Sequence[int]], list[Any]]] = {
    "AveragePool": _pooled_lines,
    "GlobalAveragePool": _pooled_map,
    "BatchNormalization": _normed,
}
"""Operator of maps `(B, C, H, W)` → the nodes that do the same, if any."""


def _node(replaced: Any, kind: str, inputs: Sequence[str], what: str, **attributes: Any) -> Any:
    """One of the nodes that take another's place."""
    from onnx import helper

    name = f"{replaced.name}:{what}"
    return helper.make_node(kind, inputs, [name], name=name, **attributes)


def _constant(graph: Any, replaced: Any, array: np.ndarray, what: str) -> str:
    """The name of a constant that they take; it goes into the graph."""
    from onnx import numpy_helper

    name = f"{replaced.name}:{what}"
    graph.initializer.append(numpy_helper.from_array(array.astype("float32"), name))
    return name
