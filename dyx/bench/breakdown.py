"""From a profile to figures: nodes summed by layer and rule; pure, and done anew whenever a record is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from dyx.runtime.profile import Node, Profile


@dataclass(frozen=True)
class LayerTime:
    """What one layer takes of a call.

    Attributes:
        layer: Its path in the static network, "" for the network's own forward; None for nodes that tell no layer.
        rule: The rule that made it; "" for a static layer.
        kinds: Kind of node → how many of them ran, by falling time.
        ms: The time in all its nodes.
        share: The same as a share of a profiled call, end to end.
    """

    layer: str | None
    rule: str
    kinds: dict[str, int]
    ms: float
    share: float


@dataclass(frozen=True)
class Breakdown:
    """A profile in figures, in ms: medians over calls; means where the runtime tells only those of its nodes.

    Attributes:
        calls: How many were profiled.
        is_mean: Whether the figures are means.
        call_ms: A profiled call, end to end on the host.
        layers: In the order in which they first ran.
        nodes_ms: All nodes of a call; None where the runtime told of none.
        copies_ms: "in" and "out" → copying, where it can be told apart.
        outside_ms: What is left of a call: the runtime's own bookkeeping and what it does not tell of; None without
            nodes.
        preprocess_ms: One picture; None where it was not timed.
        notes: What a reader must know.
    """

    calls: int
    is_mean: bool
    call_ms: float | None
    layers: tuple[LayerTime, ...]
    nodes_ms: float | None
    copies_ms: dict[str, float]
    outside_ms: float | None
    preprocess_ms: float | None
    notes: tuple[str, ...]

    @property
    def by_rule(self) -> dict[str, tuple[int, float]]:
        """Rule → how many layers it made, and the ms in them; "" for static layers."""
        found: dict[str, tuple[int, float]] = {}
        for each in self.layers:
            layers, ms = found.get(each.rule, (0, 0.0))
            found[each.rule] = layers + 1, ms + each.ms
        return found

    def to_json(self) -> dict[str, Any]:
        """The form shown by `--json`."""
        return asdict(self)


def broken_down(profile: Profile) -> Breakdown:
    """A profile's figures."""
    in_nodes = _summed(profile.nodes)
    is_mean = bool(in_nodes) and len(in_nodes) != len(profile.calls_ns)
    calls_ns = [round(fmean(profile.calls_ns))] if is_mean else profile.calls_ns
    call_ms = _median_ms(calls_ns)
    copies = {way: ms for way, times_ns in profile.copies_ns.items() if (ms := _median_ms(times_ns)) is not None}
    told = zip(calls_ns, in_nodes, *profile.copies_ns.values(), strict=True) if in_nodes else ()
    return Breakdown(
        calls=len(profile.calls_ns),
        is_mean=is_mean,
        call_ms=call_ms,
        layers=_layers(profile.nodes, call_ms or 0.0),
        nodes_ms=_median_ms(in_nodes),
        copies_ms=copies,
        outside_ms=_median_ms([call - sum(parts) for call, *parts in told]),
        preprocess_ms=_median_ms(profile.preprocess_ns),
        notes=profile.notes,
    )


def _median_ms(times_ns: Sequence[int]) -> float | None:
    return median(times_ns) / 1e6 if times_ns else None


def _summed(nodes: Iterable[Node]) -> list[int]:
    """The time of each call in some nodes, in ns."""
    return [sum(each) for each in zip(*(node.times_ns for node in nodes), strict=True)]


def _layers(nodes: Sequence[Node], call_ms: float) -> tuple[LayerTime, ...]:
    """One entry per layer; one per node where none tells its layer."""
    tells = any(node.layer for node in nodes)
    groups: dict[str | None, list[Node]] = {}
    for node in nodes:
        groups.setdefault(node.layer if tells else node.name, []).append(node)
    return tuple(_layer(layer, members, call_ms) for layer, members in groups.items())


def _layer(layer: str | None, nodes: Sequence[Node], call_ms: float) -> LayerTime:
    spent: Counter[str] = Counter()
    for node in nodes:
        spent[node.kind] += sum(node.times_ns)
    many = Counter(node.kind for node in nodes)
    ms = median(_summed(nodes)) / 1e6
    return LayerTime(layer, nodes[0].rule, {kind: many[kind] for kind, _ in spent.most_common()}, ms, ms / call_ms)
