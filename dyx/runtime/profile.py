"""Where the time of a call goes: the nodes that a runtime really runs, and the layers and rules that made them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from typing import Any

from dyx.bundle import ONNX_MODEL, Bundle
from dyx.errors import PackageMissing
from dyx.onnx_graph import Op, Origins, are_named_by_layer, layer_of, ops_of

WARM_UP_CALLS = 3
"""Made before those that are profiled, in the same session: the first ones allocate and choose kernels."""


@dataclass(frozen=True)
class Node:
    """One node of the graph that a runtime really runs, which has fused, renamed and inserted some.

    Attributes:
        name: As the runtime calls it.
        kind: Its operator, as the runtime calls it.
        layer: Path of the layer that it computes: of a fold where it stands inside one, "" for the network's own
            forward; None where nothing tells.
        rule: The rule that made that layer; "" for a static layer.
        times_ns: How long it took in each profiled call, by the runtime's own profiler; a single entry, the mean, where
            that tells no more.
    """

    name: str
    kind: str
    layer: str | None
    rule: str
    times_ns: tuple[int, ...]

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Node:
        """The node that `asdict` gave."""
        return cls(**{**entry, "times_ns": tuple(entry["times_ns"])})


@dataclass(frozen=True)
class Profile:
    """Calls with the runtime's own profiler on.

    Attributes:
        calls_ns: How long each took, end to end on the host.
        nodes: In the order in which they ran; every time they ran, in a loop.
        copies_ns: "in" and "out" → how long copying took in each call, where the runtime lets it be told apart.
        preprocess_ns: How long a picture's preprocessing took, one entry per picture.
        notes: What a reader must know, and what could not be told and why.
    """

    calls_ns: tuple[int, ...] = ()
    nodes: tuple[Node, ...] = ()
    copies_ns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    preprocess_ns: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The form kept in a saved comparison."""
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Profile:
        """The profile that `to_json` wrote."""
        return cls(
            tuple(entry["calls_ns"]),
            tuple(map(Node.from_json, entry["nodes"])),
            {way: tuple(times) for way, times in entry["copies_ns"].items()},
            tuple(entry["preprocess_ns"]),
            tuple(entry["notes"]),
        )


@dataclass(frozen=True)
class Ran:
    """A node as a runtime's profiler tells of it, before anyone has asked which layer it computes."""

    name: str
    kind: str
    times_ns: tuple[int, ...]


def timed(call: Callable[[], object]) -> int:
    """How long a call took, in ns."""
    sent = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - sent


def timed_warm(call: Callable[[], object], calls: int) -> tuple[int, ...]:
    """How long each of so many calls took, in ns, after some that are not told of."""
    return tuple(timed(call) for _ in range(WARM_UP_CALLS + calls))[WARM_UP_CALLS:]


def attributed(bundle: Bundle, ran: Sequence[Ran], layers: Sequence[str | None]) -> tuple[Node, ...]:
    """Nodes with the layer and the rule of each.

    Args:
        bundle: Whose plan tells the rules.
        ran: What the profiler told.
        layers: Path of the layer that made each; None where nothing tells.
    """
    rules = {site["path"]: site["rule"] for site in bundle.manifest["plan"].get("sites", ())}
    return tuple(_node(each, path, rules) for each, path in zip(ran, layers, strict=True))


def _node(ran: Ran, path: str | None, rules: Mapping[str, str]) -> Node:
    layer = path if path is None else _fold_around(path, rules)
    return Node(ran.name, ran.kind, layer, rules.get(layer or "", ""), ran.times_ns)


def _fold_around(path: str, folds: Iterable[str]) -> str:
    """The innermost fold that a layer stands in; itself where there is none."""
    around = [fold for fold in folds if f"{path}.".startswith(f"{fold}.")]
    return max(around, key=len, default=path)


def onnx_ops(bundle: Bundle) -> list[Op]:
    """The operators of a bundle's ONNX file. Raises PackageMissing."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise PackageMissing("onnx", "onnx") from error
    return ops_of(onnx.load(bundle.file(ONNX_MODEL)).graph)


UNNAMED = "the nodes of this file do not name their layers: it was written before dyx did that; export it again"


def unnamed(ops: Sequence[Op]) -> tuple[str, ...]:
    """The note for a file whose nodes do not name their layers; nothing for any other."""
    return () if are_named_by_layer(ops) else (UNNAMED,)


def layers_of_running(before: Sequence[Op], running: Sequence[Op], given: Sequence[str | None]) -> list[str | None]:
    """The path of the layer that each operator of the graph that runs computes.

    A fused one computes what stands between its inputs and its output in the graph that was there before. What a
    runtime inserted, such as a change of layout, counts to the layer that takes what it gives.

    Args:
        before: The operators of the file.
        running: Those that the runtime made of them, in its order.
        given: Per operator that runs, the tensor of the file that it gives; None for what was inserted.
    """
    origins, stands_for = Origins(before), dict[str, str]()
    found: list[str | None] = []
    for op, tensor in zip(running, given, strict=True):
        inputs = [stands_for.get(name, name) for name in op.inputs]
        stands_for.update(dict.fromkeys(op.outputs, tensor or (inputs or [""])[0]))
        origin = None if tensor is None or tensor in inputs else origins.of(op.kind, inputs, tensor)
        found.append(None if origin is None else layer_of(origin.name))
    return _with_inserted(running, found)


def _with_inserted(running: Sequence[Op], layers: Sequence[str | None]) -> list[str | None]:
    found = list(layers)
    users = {tensor: place for place, op in reversed([*enumerate(running)]) for tensor in op.inputs}
    makers = {tensor: place for place, op in enumerate(running) for tensor in op.outputs}
    for place, op in reversed([*enumerate(running)]):
        near = [users[tensor] for tensor in op.outputs if tensor in users]
        near += [makers[tensor] for tensor in op.inputs if tensor in makers]
        if found[place] is None:
            found[place] = next((found[each] for each in near if found[each] is not None), None)
    return found


def aligned(kinds: Sequence[str], layers: Sequence[str | None], ran: Sequence[str]) -> list[str | None]:
    """The layer of each node that ran, where a profiler tells only of which kind it was, and all come in order.

    Args:
        kinds: Of the operators of the graph.
        layers: Of the same.
        ran: Kinds of what ran; what is in no graph, such as a change of layout, counts to the layer before it.
    """
    found: list[str | None] = [None] * len(ran)
    for match in SequenceMatcher(None, kinds, ran, autojunk=False).get_matching_blocks():
        found[match.b : match.b + match.size] = layers[match.a : match.a + match.size]
    for place in range(1, len(found)):
        found[place] = found[place - 1] if found[place] is None else found[place]
    return found
