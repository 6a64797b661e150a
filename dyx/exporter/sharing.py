"""Weights that two ONNX files of a bundle have in common stand in one of them."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

LEAST_BYTES = 2**16
"""Smaller tensors stand in both: what runtimes fold at load time needs them at hand."""


def share_weights(path: Path, main: Path) -> int:
    """Replace large tensors of an ONNX file by references to the same bytes in another file of its folder.

    ONNX lets a tensor's data lie in any file, at any offset: here in the other graph's own file, so that this one
    still stands alone.

    Returns:
        How many bytes became references.
    """
    import onnx

    model, shared = onnx.load(path), 0
    with main.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        for tensor in model.graph.initializer:
            start = held.find(tensor.raw_data) if len(tensor.raw_data) >= LEAST_BYTES else -1
            if start >= 0:
                shared += len(tensor.raw_data)
                _refer(tensor, main.name, start)
    if shared:
        onnx.save(model, path)
    return shared


def _refer(tensor: Any, location: str, offset: int) -> None:
    """Let a tensor's data lie in a file."""
    import onnx

    length = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
