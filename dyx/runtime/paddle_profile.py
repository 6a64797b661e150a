"""Paddle's profiler around a predictor: which operation of the optimised program each of its events is.

Its events name kinds of operations, never layers: `onednn_op.fused_conv2d`. They come in the order of the program that
the predictor's passes left behind, which it can be told to save; there most operations still name their layers. Those
that were fused are told by parameters that only one layer has, or stand behind one that is named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dyx.paddle_program import PARAMETER, Operation
from dyx.runtime.profile import UNNAMED, Ran, aligned

_OPERATORS, _STEPS = "Operator", "ProfileStep"
_OPTIMISED, _TRACE = "_optimized.json", "trace.json"


def optimised_program(folder: Path) -> Path:
    """Where a predictor puts the program that it runs, when told to save it into a folder."""
    return folder / _OPTIMISED


def traced(call: Callable[[], object], calls: int, folder: Path) -> list[list[tuple[str, int]]]:
    """Per call, the kind of each operation that ran and how long it took in ns, in their order."""
    from paddle import profiler

    file = folder / _TRACE
    watch = profiler.Profiler(
        targets=[profiler.ProfilerTarget.CPU], on_trace_ready=lambda seen: seen.export(str(file), format="json")
    )
    watch.start()
    for _ in range(calls):
        call()
        watch.step()
    watch.stop()
    return read_events(json.loads(file.read_text(encoding="utf-8"))["traceEvents"], calls)


def read_events(events: Sequence[Mapping[str, Any]], calls: int) -> list[list[tuple[str, int]]]:
    """The same, from the events of a trace."""
    steps = sorted((each for each in events if each.get("cat") == _STEPS), key=lambda step: float(step["ts"]))[:calls]
    ran = sorted((each for each in events if each.get("cat") == _OPERATORS), key=lambda event: float(event["ts"]))
    return [[_event(each) for each in ran if _is_within(each, step)] for step in steps]


def _event(event: Mapping[str, Any]) -> tuple[str, int]:
    return event["name"].partition("[")[0], round(event["dur"] * 1000)


def _is_within(event: Mapping[str, Any], step: Mapping[str, Any]) -> bool:
    return bool(0 <= event["ts"] - step["ts"] <= step["dur"])


def ran_operations(calls: Sequence[Sequence[tuple[str, int]]]) -> list[Ran]:
    """The operations that ran, numbered, with their times in each call that ran the same ones as the first."""
    kinds = [kind for kind, _ in calls[0]]
    alike = [call for call in calls if [kind for kind, _ in call] == kinds]
    return [
        Ran(f"{place}:{kind}", kind.rpartition(".")[2], tuple(call[place][1] for call in alike))
        for place, kind in enumerate(kinds)
    ]


def layers_of_events(
    kinds: Sequence[str], before: Sequence[Operation], optimised: Sequence[Operation]
) -> list[str | None]:
    """The path of the layer of each event.

    Args:
        kinds: Of the events of a call, in their order.
        before: The program of the bundle.
        optimised: The one that ran.
    """
    layers = layers_of_operations(before, optimised)
    computed = [_kind(optimised[place].name) for place in layers]
    return aligned(computed, list(layers.values()), [_kind(kind) for kind in kinds])


def _kind(name: str) -> str:
    """Of an operation or event: without the underscore of one that was made to work in place."""
    return (name if "." in name else f"pd_op.{name}").removesuffix("_")


def unnamed_program(program: Sequence[Operation]) -> tuple[str, ...]:
    """The note for a program whose operations do not name their layers; nothing for any other."""
    return () if any(each.layer for each in program) else (UNNAMED,)


def layers_of_operations(before: Sequence[Operation], optimised: Sequence[Operation]) -> dict[int, str | None]:
    """Place of each operation that computes something from the input → the path of its layer."""
    owners = _owners(before)
    parameters = {each.outputs[0]: owners.get(each.parameter) for each in optimised if each.name == PARAMETER}
    makers = {value: each for each in optimised for value in each.outputs}
    live: set[int] = set()
    layers: dict[int, str | None] = {}
    last: str | None = None
    for place, each in enumerate(optimised):
        if each.name == "data" or live.intersection(each.inputs):
            live.update(each.outputs)
        if each.name in ("data", "fetch") or not live.intersection(each.outputs):
            continue
        if each.layer is not None:
            last = each.layer
        else:
            behind = [parameters[value] for value in _parameters_behind(each, makers, live) if value in parameters]
            # The first in the program: a convolution stands before the batch norm that was folded into it.
            last = min((owner for owner in behind if owner), default=(0, last))[1]
        layers[place] = last
    return layers


def _owners(program: Sequence[Operation]) -> dict[str, tuple[int, str]]:
    """Name of each parameter of one layer alone → where the first operation that takes it stands, and that layer."""
    names = {each.outputs[0]: each.parameter for each in program if each.name == PARAMETER}
    takers: dict[str, dict[str, int]] = {}
    for place, each in enumerate(program):
        for value in each.inputs:
            if value in names and each.layer is not None:
                takers.setdefault(names[value], {}).setdefault(each.layer, place)
    alone = {name: layers for name, layers in takers.items() if len(layers) == 1}
    return {name: (place, layer) for name, layers in alone.items() for layer, place in layers.items()}


def _parameters_behind(operation: Operation, makers: Mapping[int, Operation], live: set[int]) -> list[int]:
    """Values that an operation takes, or that its constant inputs are computed from."""
    found, waiting = [], [value for value in operation.inputs if value not in live]
    while waiting:
        value = waiting.pop()
        found.append(value)
        waiting += makers[value].inputs if value in makers else ()
    return found
