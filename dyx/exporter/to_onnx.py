"""From a Paddle program to a clean ONNX file."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dyx.bundle import ONNX_MODEL, PADDLE_PARAMETERS, PADDLE_PROGRAM
from dyx.errors import ConversionFailed, InvalidOption, PackageMissing
from dyx.exporter.naming import layers_of_tensors, name_nodes
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


def to_onnx(folder: Path, out: Path, image: TensorSpec, logits: TensorSpec, opset: int = 17) -> None:
    """Convert the Paddle program in a folder into `model.onnx` in `out`.

    The graph's input and output get the names of their specs, a free dimension its name, nodes the names of their
    layers; weights are initialisers, constants are folded, dead nodes are gone.

    Raises:
        ConversionFailed: The converter failed, died, or wrote a graph that the ONNX checker refuses.
        PackageMissing: onnx or onnxslim is not installed.
    """
    raw = out / f"raw-{ONNX_MODEL}"
    try:
        _convert(folder / PADDLE_PROGRAM, folder / PADDLE_PARAMETERS, raw, check_opset(opset))
        model = _clean(raw, read_program(folder / PADDLE_PROGRAM))
        _write(model, out / ONNX_MODEL, image, logits, opset)
    finally:
        raw.unlink(missing_ok=True)


def _convert(program: Path, parameters: Path, raw: Path, opset: int) -> None:
    command = [
        sys.executable,
        "-m",
        "dyx.exporter.paddle2onnx_child",
        str(program),
        str(parameters),
        str(raw),
        str(opset),
    ]
    child = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if child.returncode != 0:
        raise ConversionFailed("paddle2onnx", _death(child))
    if not raw.is_file() or raw.stat().st_size == 0:  # it logs errors and goes on
        raise ConversionFailed("paddle2onnx", f"it ended well but wrote no file; {_tail(child)}")


def _death(child: subprocess.CompletedProcess[str]) -> str:
    if child.returncode < 0:
        return f"it was ended by {signal.Signals(-child.returncode).name}; {_tail(child)}"
    return f"it exited with {child.returncode}; {_tail(child)}"


def _tail(child: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (child.stderr + child.stdout).splitlines() if line.strip()]
    return f"its last words: {' | '.join(lines[-3:])}" if lines else "it said nothing"


def _clean(raw: Path, operations: Sequence[Operation]) -> Any:
    """The converted graph without what is superfluous, its nodes named by the layers that made them."""
    onnx, slim = _packages()
    model = onnx.load(raw)
    before = ops_of(model.graph)
    layers = layers_of_tensors(before, operations, model.graph.output[0].name)
    model = slim(model)
    name_nodes(model.graph, before, layers)
    return model


def _write(model: Any, clean: Path, image: TensorSpec, logits: TensorSpec, opset: int) -> None:
    onnx, _ = _packages()
    _rename(model.graph, image, logits)
    del model.graph.value_info[:]
    model.producer_name, model.doc_string = "dyx", ""
    if model.ByteSize() > _PROTOBUF_LIMIT_BYTES:
        raise ConversionFailed("ONNX export", f"the file would have {model.ByteSize()} bytes, protobuf carries 2 GiB")
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
