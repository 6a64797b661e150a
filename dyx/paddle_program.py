"""A Paddle program as it lies on disk: JSON, read without Paddle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyx.errors import BundleAltered

PARAMETER = "p"
"""How the file calls what stands for a parameter."""
INPUT = "data"
"""How it calls what stands for an input."""
LAYER = "struct_name"
"""The attribute in which Paddle notes the layers around an operator, and an export of dyx the path of its layer."""


@dataclass(frozen=True)
class Operation:
    """One operation of a program.

    Attributes:
        name: Without its dialect where that is Paddle's usual one: "conv2d", but "onednn_op.fused_conv2d".
        inputs: Ids of the values that it takes.
        outputs: Ids of the values that it gives.
        shapes: Of each output; () where it is no dense tensor.
        parameter: The name of the parameter that it stands for, else "".
        layer: Path of the layer that made it, "" for the network's own forward; None where the file does not say.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    parameter: str
    layer: str | None


def read_program(path: Path) -> list[Operation]:
    """The operations of a program's main block, in their order. Raises BundleAltered."""
    try:
        program = json.loads(path.read_text(encoding="utf-8"))
        return list(_operations(program["program"]["regions"][0]["blocks"][0]))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise BundleAltered(path.parent, {path.name: f"is no Paddle program ({error!r})"}) from error


def computed_kernels_of(operations: Iterable[Operation]) -> int:
    """How many convolutions have a kernel that depends on the input; what parameters alone give is the same always."""
    depends: set[int] = set()
    found = 0
    for each in operations:
        if each.name == INPUT or not depends.isdisjoint(each.inputs):
            depends.update(each.outputs)
        found += "conv2d" in each.name and len(each.inputs) > 1 and each.inputs[1] in depends
    return found


def _operations(block: Mapping[str, Any]) -> Iterator[Operation]:
    for entry in block["ops"]:
        name, given = entry["#"].removeprefix("1."), entry.get("O", [])
        outputs = given if isinstance(given, list) else [given]
        yield Operation(
            name,
            tuple(value["%"] for value in entry.get("I", [])),
            tuple(value["%"] for value in outputs),
            tuple(_shape(value.get("TT")) for value in outputs),
            # A parameter's attributes stand in a fixed order, without names.
            entry["A"][3] if name == PARAMETER else "",
            None if name == PARAMETER else _layer(entry.get("A", [])),
        )


def _shape(kind: Mapping[str, Any] | None) -> tuple[int, ...]:
    fields = (kind or {}).get("D")
    return tuple(fields[1]) if isinstance(fields, list) and len(fields) > 1 and isinstance(fields[1], list) else ()


def _layer(attributes: list[Mapping[str, Any]]) -> str | None:
    """What an export of dyx noted; Paddle's own notes, which name classes, begin with a slash."""
    noted = next((entry["AT"]["D"] for entry in attributes if entry.get("N") == LAYER), None)
    return None if noted is None or noted.startswith("/") else str(noted)
