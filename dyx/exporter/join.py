"""Folded layers that follow each other: between two that can, a map keeps its positions first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dyx.exporter.plan import Decision, Plan
from dyx.exporter.trace import Call, Link, confirmed, observed_calls
from dyx.nn.framework import paddle


def join(plan: Plan, network: Any, image: np.ndarray, name: str) -> Plan:
    """The plan with its joints: pairs of sites where the second alone reads what the first gives.

    Args:
        plan: As `make_plan` made it.
        network: The dynamic network in float64 and eval mode.
        image: float64 `(batch, channels, height, width)`.
        name: What errors call the network.
    """
    able = [decision for decision in plan.decisions if decision.offer.by_positions]
    if len(able) < 2:
        return plan
    x = paddle.to_tensor(image)
    calls, output = observed_calls(network, x, name)
    links = confirmed(network, x, output, _links(able, calls))
    return replace(plan, joined=tuple(_paths(links, able)))


def _links(able: Sequence[Decision], calls: Sequence[Call]) -> list[Link]:
    # A layer that is called twice may read or give a map of the other form the other time.
    count = Counter(call.path for call in calls)
    made = {call.path: call for call in calls if count[call.path] == 1}
    givers = [made[path] for path in map(_last, able) if path in made]
    readers = [made[decision.site.path] for decision in able if decision.site.path in made]
    return [Link(giver, reader) for giver in givers for reader in readers if reader.input is giver.output]


def _paths(links: Sequence[Link], able: Sequence[Decision]) -> list[tuple[str, str]]:
    site_of = {_last(decision): decision.site.path for decision in able}
    return [(site_of[link.producer.path], link.consumer.path) for link in links]


def _last(decision: Decision) -> str:
    """Path of the last layer that a decision's offer computes."""
    taken = [found.path for found in decision.site.after if found.path in decision.offer.takes]
    return [decision.site.path, *taken][-1]
