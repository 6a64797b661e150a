"""From a Paddle program to a clean ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dyx.bundle import ONNX_MODEL, PADDLE_PARAMETERS, PADDLE_PROGRAM
from dyx.errors import ConversionFailed, InvalidOption, PackageMissing
from dyx.exporter.channels_last import keep_channels_last
from dyx.exporter.converter import Converter
from dyx.exporter.naming import layers_of_tensors, name_nodes
from dyx.exporter.scan import NO_LOOPS, Loops, scan_samples
from dyx.onnx_graph import ops_of
from dyx.paddle_program import Operation, read_program
from dyx.tensors import TensorSpec

OPSETS = range(17, 22)
"""What paddle2onnx honours exactly; from 22 on it aborts the interpreter."""

_PROTOBUF_LIMIT_BYTES = 2**31 - 1


def check_opset(opset: int) -> int:
    """The opset itself. Raises InvalidOption outside 17–21."""
    if opset not in OPSETS:
        raise InvalidOption("--opset", opset, f"a number from {OPSETS[0]} to {OPSETS[-1]}")
    return opset


def to_onnx(
    converter: Converter,
    folder: Path,
    image: TensorSpec,
    logits: TensorSpec,
    opset: int = 17,
    loops: Loops = NO_LOOPS,
) -> None:
    """Convert the Paddle program in a folder into `model.onnx` beside it.

    The graph's input and output get the names of their specs, a free dimension its name, nodes the names of their
    layers; weights are initialisers, constants are folded, dead nodes are gone.

    Args:
        converter: Runs paddle2onnx.
        folder: Of the program.
        image: The input.
        logits: The output.
        opset: 17 to 21.
        loops: Which layers convolve with the first sample's kernel where a loop over samples is wanted.

    Raises:
        ConversionFailed: The converter failed, died, or wrote a graph that the ONNX checker refuses.
        PackageMissing: onnx or onnxslim is not installed.
    """
    program, raw = folder / PADDLE_PROGRAM, folder / f"raw-{ONNX_MODEL}"
    try:
        converter.convert(program, folder / PADDLE_PARAMETERS, raw, check_opset(opset))
        model = _clean(raw, read_program(program))
        _check_size(model)
        scan_samples(model, loops)
        model = keep_channels_last(model) if loops.channels_last else model
        _write(model, folder / ONNX_MODEL, image, logits, opset)
    finally:
        raw.unlink(missing_ok=True)


def _clean(raw: Path, operations: Sequence[Operation]) -> Any:
    """The converted graph without what is superfluous, its nodes named by the layers that made them."""
    onnx, slim = _packages()
    model = onnx.load(raw)
    before = ops_of(model.graph)
    layers = layers_of_tensors(before, operations, model.graph.output[0].name)
    model = slim(model)
    name_nodes(model.graph, before, layers)
    return model


def _check_size(model: Any) -> None:
    """Raises ConversionFailed for a model that does not fit into a file."""
    if model.ByteSize() > _PROTOBUF_LIMIT_BYTES:
        raise ConversionFailed("ONNX export", f"the file would have {model.ByteSize()} bytes, protobuf carries 2 GiB")


def _write(model: Any, clean: Path, image: TensorSpec, logits: TensorSpec, opset: int) -> None:
    onnx, _ = _packages()
    _rename(model.graph, image, logits)
    del model.graph.value_info[:]
    model.producer_name, model.doc_string = "dyx", ""
    if [entry.version for entry in model.opset_import] != [opset]:
        raise ConversionFailed("paddle2onnx", f"it wrote opset {model.opset_import}, not {opset}")
    written = model.SerializeToString()
    try:
        onnx.checker.check_model(written, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConversionFailed("the ONNX checker", str(error).strip().splitlines()[0]) from error
    clean.write_bytes(written)


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        from onnxslim import slim
    except ModuleNotFoundError as error:
        raise PackageMissing(str(error.name), "paddle") from error
    return onnx, slim


def _rename(graph: Any, image: TensorSpec, logits: TensorSpec) -> None:
    """Give input and output their names and free dimensions in every place that speaks of them."""
    names = {graph.input[0].name: image.name, graph.output[0].name: logits.name}
    for node in graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(name, name) for name in tensors]
    for value, spec in ((graph.input[0], image), (graph.output[0], logits)):
        value.name = spec.name
        for dimension, size in zip(value.type.tensor_type.shape.dim, spec.shape, strict=True):
            dimension.Clear()
            if isinstance(size, str):
                dimension.dim_param = size
            else:
                dimension.dim_value = size
