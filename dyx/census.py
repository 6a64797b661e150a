"""What an exported graph holds: operators, parameters, arithmetic, and whether it keeps the promises made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from dyx.bundle import ONNX_MODEL, PADDLE_PROGRAM, Bundle
from dyx.errors import PackageMissing
from dyx.onnx_graph import bodies_of, with_inner
from dyx.paddle_program import INPUT, PARAMETER, computed_kernels_of, read_program

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_SMALL_BYTES = 1024
"""Initialisers up to this size may be shapes, which inference reads."""


@dataclass(frozen=True)
class Census:
    """What stands in one graph.

    Attributes:
        file: Its name, or that of its program.
        format: "onnx" or "paddle".
        opset: Of an ONNX graph, else None.
        operators: Operator → how many, those inside loops included.
        parameters: Numbers in all initialisers, or None where only the weights file knows.
        macs: Multiply-accumulates per image, of convolutions and matrix products; None where shapes are not known.
        computed_kernels: Convolutions whose kernel is no constant (in a Paddle program: depends on the input); without
            those inside loops, which have a kernel for every sample.
        free_batch: Whether the batch dimension is free in input and output.
        foreign_domains: Operator domains other than ONNX's own.
    """

    file: str
    format: str
    opset: int | None
    operators: Mapping[str, int]
    parameters: int | None
    macs: int | None
    computed_kernels: int
    free_batch: bool
    foreign_domains: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON, operators by falling count."""
        ordered = dict(sorted(self.operators.items(), key=lambda item: (-item[1], item[0])))
        return asdict(self) | {"operators": ordered, "foreign_domains": list(self.foreign_domains)}


def take_census(bundle: Bundle) -> tuple[Census, ...]:
    """A census of each graph of a bundle. Raises PackageMissing where onnx is needed and absent."""
    counters = {"paddle": paddle_census, "onnx": onnx_census}
    return tuple(counters[name](bundle.of_graph(graph)) for graph in reversed(bundle.graphs) for name in bundle.formats)


def broken_promises(census: Census, batch: int | str, *, computed_kernels: bool) -> tuple[str, ...]:
    """What a graph holds that it should not, in words.

    Args:
        census: Of the graph.
        batch: "dynamic", or the size it is frozen to.
        computed_kernels: Whether the plan chose convolutions with computed kernels.
    """
    faults = []
    if census.foreign_domains:
        faults.append(f"operators of other domains: {', '.join(census.foreign_domains)}")
    if census.computed_kernels and not computed_kernels:
        faults.append(f"{census.computed_kernels} convolutions with a computed kernel that the plan did not choose")
    if census.free_batch != (batch == "dynamic"):
        faults.append(f"the batch is {'free' if census.free_batch else 'frozen'}, where the plan says {batch}")
    return tuple(f"{census.file}: {fault}" for fault in faults)


def onnx_census(bundle: Bundle) -> Census:
    """A census of the ONNX file of a bundle's graph."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise PackageMissing("onnx", "onnx") from error
    file = bundle.file(ONNX_MODEL)
    model = onnx.load(file, load_external_data=False)
    graph = model.graph
    _drop_weights(graph)
    ends = (graph.input[0], graph.output[0])
    batches = [value.type.tensor_type.shape.dim[0] for value in ends]
    free_batch = all(batch.HasField("dim_param") for batch in batches)
    for batch in batches if free_batch else ():
        batch.dim_value = 1  # MACs are counted for one image
    with suppress(onnx.shape_inference.InferenceError):  # at a foreign operator: the census then lacks MACs only
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    kernels = [node.input[1] for node in graph.node if node.op_type in _CONVOLUTIONS]
    return Census(
        file=file.name,
        format="onnx",
        opset=model.opset_import[0].version,
        operators=Counter(node.op_type for node in with_inner(graph.node)),
        parameters=sum(prod(shape) for shape in constants.values()),
        macs=_onnx_macs(graph, batches[0].dim_value or 1),
        computed_kernels=sum(kernel not in constants for kernel in kernels),
        free_batch=free_batch,
        foreign_domains=tuple(sorted({node.domain for node in with_inner(graph.node)} - {"", "ai.onnx"})),
    )


def _drop_weights(graph: Any) -> None:
    """Forget the values of large initialisers: shapes are all that counts, and inference would copy them twice."""
    for tensor in graph.initializer:
        if len(tensor.raw_data) > _SMALL_BYTES:
            tensor.ClearField("raw_data")


def _onnx_macs(graph: Any, images: int) -> int | None:
    """Per image of so many that the graph takes; None where shape inference left a size open that is not the batch."""
    with suppress(KeyError):
        return _graph_macs(graph, images)
    return None


def _graph_macs(graph: Any, images: int) -> int:
    """Of a graph, or of what a loop does with one image. Raises KeyError for a tensor of unknown shape."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dimensions = value.type.tensor_type.shape.dim
        # A free dimension is the batch: count one image.
        shapes[value.name] = tuple(size.dim_value if size.HasField("dim_value") else 1 for size in dimensions)
    inner = sum(_graph_macs(body, 1) for node in graph.node for body in bodies_of(node))
    return inner + sum(_node_macs(node, shapes) for node in graph.node) // images


def _node_macs(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    if node.op_type in _CONVOLUTIONS:
        return prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
    if node.op_type == "MatMul":
        return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        transposed = any(entry.name == "transA" and entry.i for entry in node.attribute)
        return prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else -1]
    return 0


def paddle_census(bundle: Bundle) -> Census:
    """A census of the Paddle program of a bundle's graph. Paddle itself is not needed: the program is JSON."""
    file = bundle.file(PADDLE_PROGRAM)
    operations = read_program(file)
    parameters = [each.shapes[0] for each in operations if each.name == PARAMETER]
    ends = [shape for each in operations for shape in each.shapes if each.name == INPUT]
    return Census(
        file=file.name,
        format="paddle",
        opset=None,
        operators=Counter(each.name for each in operations if each.name != PARAMETER),
        parameters=sum(map(prod, parameters)),
        macs=None,
        computed_kernels=computed_kernels_of(operations),
        free_batch=all(shape and shape[0] == -1 for shape in ends),
        foreign_domains=(),
    )
