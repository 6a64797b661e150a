"""Which graphs a bundle gets: one, or a second for small batches where the first would be slow at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any

from dyx.bundle import STEM, Graph
from dyx.exporter.plan import Plan, make_plan
from dyx.exporter.rule import FLOAT_BYTES, MACHINES, STATIC, Refusal, Site, Target
from dyx.exporter.rules import RULES
from dyx.exporter.rules.conv import AS_IT_STANDS

SMALL = "small"
"""What the files of the graph for small batches are called."""
WORTH = 0.8
"""A second graph must be predicted to take no more than this share of the first one's time at batch 1."""
CHUNK_BYTES = 80_000_000
"""How large the widest tensor of a piece may get; alexnet-dy measured fastest at 51 MB, dy4x-resnet18 at 75 MB."""


@dataclass(frozen=True)
class PlannedGraph:
    """A graph of the bundle to be, and what folds it."""

    graph: Graph
    plan: Plan

    def to_json(self) -> dict[str, Any]:
        """The form kept in `dyx.json`."""
        return {**asdict(self.graph), "plan": self.plan.to_json()}


def plan_graphs(
    sites: Sequence[Site], target: Target, requested: Sequence[str] = (), name: str = "the network", *, single: bool
) -> tuple[PlannedGraph, ...]:
    """The main graph, and before it one for small batches where that is worth it.

    Args:
        sites: Of the network.
        target: What the main graph is for.
        requested: Rule ids; see `make_plan`.
        name: What errors call the network.
        single: Whether there shall be one graph only.

    Raises:
        As `make_plan`.
    """
    main = make_plan(sites, target, requested, name)
    chunk = usual_chunk(main)
    alone = (PlannedGraph(Graph(chunk=chunk), main),)
    if single or target.batch is not None or target.tune_batch == 1:
        return alone
    small = make_plan(sites, replace(target, tune_batch=1), requested, name)
    if price_s(small, sites, 1) >= WORTH * price_s(main, sites, 1):
        return alone
    crossover = _crossover(small, main, sites)
    chunk = chunk and max(chunk, crossover)  # pieces that are smaller would all be the other graph's
    return PlannedGraph(Graph(SMALL), small), PlannedGraph(Graph(STEM, crossover, chunk), main)


def price_s(plan: Plan, sites: Sequence[Site], batch: int) -> float:
    """What a plan costs at another batch size, seconds per image; static convolutions are counted too.

    Infinite where one of its rules refuses such a batch.
    """
    target, machine = replace(plan.target, tune_batch=batch), MACHINES[plan.target.backend]
    decided = {decision.site.path: decision for decision in plan.decisions}
    total = 0.0
    for site in sites:
        decision = decided.get(site.path)
        rule = AS_IT_STANDS if decision is None and site.kind == STATIC else decision and decision.rule
        answers = [each.offer(site, target) for each in RULES if each.id == rule]
        for answer in answers:
            if isinstance(answer, Refusal):
                return inf
            # What is built stays as it is at any batch; only a static convolution that is left alone has no decision.
            total += machine.seconds((decision.offer if decision else answer).cost, batch)
    return total


def _crossover(small: Plan, main: Plan, sites: Sequence[Site]) -> int:
    """The smallest power of two from which the main graph is cheaper; its own batch size at the latest."""
    last = main.target.tune_batch
    batches = [2**power for power in range(last.bit_length()) if 2**power < last]
    cheaper = (batch for batch in batches if price_s(main, sites, batch) <= price_s(small, sites, batch))
    return next(cheaper, last)


def usual_chunk(plan: Plan) -> int | None:
    """How many images keep the widest tensor small, as a power of two; None where no rule makes wide ones."""
    widest = max((decision.offer.widest for decision in plan.decisions), default=0) * FLOAT_BYTES
    return None if widest == 0 or plan.target.batch else 2 ** max((CHUNK_BYTES // widest).bit_length() - 1, 0)
