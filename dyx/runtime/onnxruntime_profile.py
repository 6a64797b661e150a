"""ONNX Runtime's own profiler: what its events say, and which layer each node of its optimised graph computes."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dyx.onnx_graph import Op
from dyx.runtime.profile import Ran, layers_of_running

_EVENT = "_kernel_time"
_PREFIX = "dyx"
_OPTIMISED, _WEIGHTS = "optimised.onnx", "weights"
_FUSED, _BLOCKED = "Fused", "_nchwc"


def ask_for_profile(options: Any, folder: Path) -> None:
    """Make a session that is opened with these options profile itself, and keep its optimised graph, in a folder."""
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / _PREFIX)
    options.optimized_model_filepath = str(folder / _OPTIMISED)
    # Names are all that is wanted of it: weights go into a file that nobody reads.
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "64")


def read_events(file: str, calls: int, inner: Container[str] = ()) -> list[Ran]:
    """The nodes that ran in each of the last so many calls, with their times.

    Args:
        file: What the session wrote.
        calls: How many.
        inner: Names of nodes inside loops, whose time is that of the loop.
    """
    events = json.loads(Path(file).read_text(encoding="utf-8"))
    runs: list[dict[str, tuple[str, int]]] = [{}]
    for event in events:
        name = event["name"].removesuffix(_EVENT)
        if event["cat"] == "Node" and event["name"].endswith(_EVENT) and name not in inner:
            runs[-1][name] = (event["args"]["op_name"], event["dur"] * 1000)
        elif event["name"] == "model_run":  # comes when the call is over
            runs.append({})
    last = runs[-1 - calls : -1]
    return [Ran(name, kind, tuple(run[name][1] for run in last)) for name, (kind, _) in last[0].items()]


def optimised_graph(folder: Path) -> Any:
    """The graph that the session really runs, an `onnx.GraphProto` without its weights."""
    import onnx

    return onnx.load(folder / _OPTIMISED, load_external_data=False).graph


def layers_of_optimised(before: Sequence[Op], optimised: Sequence[Op]) -> list[str | None]:
    """The path of the layer that each node of the optimised graph computes."""
    known = {tensor for op in before for tensor in op.outputs}
    # Between nodes of a blocked layout tensors have new names; a node is then called like what it computes.
    named = [(op.outputs[0], op.name.removesuffix(_BLOCKED)) for op in optimised]
    given = [next((name for name in names if name in known), None) for names in named]
    plain = [replace(op, kind=op.kind.removeprefix(_FUSED)) for op in optimised]
    return layers_of_running(before, plain, given)
