"""Which graphs a bundle gets: one, or others for smaller batches where the main one would be slow at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from math import inf, prod
from typing import Any

from dyx.bundle import STEM, Graph
from dyx.exporter.plan import Plan, make_plan
from dyx.exporter.rule import CPUS, FLOAT_BYTES, MACHINES, STATIC, Cost, Refusal, Site, Target
from dyx.exporter.rules import RULES
from dyx.exporter.rules.conv import AS_IT_STANDS

OTHERS = ("small", "medium")
"""What the files of graphs for smaller batches are called, in the order of these."""
MOST_GRAPHS = 1 + len(OTHERS)
WORTH = 0.93
"""A graph more must be predicted to take no more than this share of the others' time at some batch size."""
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
    """The main graph, and before it those for smaller batches that are worth it.

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
    if single or target.batch is not None or not sites:
        return named_graphs([main], [1], usual_chunk(main))
    others = [
        make_plan(sites, replace(target, tune_batch=batch, cpu=cpu), requested, name)
        for batch in _below(target)
        for cpu in CPUS
    ]
    plans = _worthwhile(main, others, sites)
    starts = [1]
    for smaller, larger in pairwise(plans):
        starts.append(_crossover(smaller, larger, sites, starts[-1]))
    return named_graphs(plans, starts, usual_chunk(main))


def named_graphs(plans: Sequence[Plan], starts: Sequence[int], chunk: int | None) -> tuple[PlannedGraph, ...]:
    """Plans as graphs.

    Args:
        plans: For ever larger batches, the main one last.
        starts: The smallest batch that each is for.
        chunk: How many images the main one takes at a time.
    """
    chunk = chunk and max(chunk, starts[-1])  # smaller pieces would all be another graph's
    graphs = [Graph(stem, start) for stem, start in zip(OTHERS, starts[:-1], strict=False)]
    graphs.append(Graph(STEM, starts[-1], chunk))
    return tuple(PlannedGraph(graph, plan) for graph, plan in zip(graphs, plans, strict=True))


def _below(target: Target) -> list[int]:
    """The powers of two below the batch size that is planned for."""
    return [2**power for power in range(target.tune_batch.bit_length()) if 2**power < target.tune_batch]


def _worthwhile(main: Plan, others: Sequence[Plan], sites: Sequence[Site]) -> list[Plan]:
    """The main plan, and those of the others that are worth a graph; the one for the smallest batches comes first.

    What is made for the first kind of CPU is asked first, since prices of the other are fitted to less; a graph more
    may be of any.
    """
    batches = _below(main.target)
    priced = [(other, [price_s(other, sites, batch) for batch in batches]) for other in others]
    chosen, least = [main], [price_s(main, sites, batch) for batch in batches]
    for asked in (CPUS[:1], *[CPUS] * (MOST_GRAPHS - 1)):
        offered = [each for each in priced if each[0].target.cpu in asked]
        if not offered or len(chosen) == MOST_GRAPHS:
            break
        plan, prices = min(offered, key=lambda each: _share(each[1], least))
        if _share(prices, least) < WORTH:
            chosen.append(plan)
            least = list(map(min, least, prices))
    return sorted(chosen, key=lambda plan: plan.target.tune_batch)


def _share(prices: Sequence[float], least: Sequence[float]) -> float:
    """Of the time that the graphs so far take, what a plan takes at the batch size where it gains most."""
    return min(price / other for price, other in zip(prices, least, strict=True))


def price_s(plan: Plan, sites: Sequence[Site], batch: int) -> float:
    """What a plan costs at another batch size, seconds per image; static convolutions are counted too.

    The geometric mean of what it costs on each kind of CPU: a bundle does not know where it will run, and a graph that
    is twice as fast on one and half as fast on the other gains nothing. Infinite where one of its rules refuses such a
    batch.
    """
    costs = _costs(plan, sites, batch)
    if costs is None:
        return inf
    machines = MACHINES[plan.target.backend].values()
    prices = [sum(machine.seconds(cost, batch) for cost in costs) for machine in machines]
    return prod(prices) ** (1 / len(prices))


def _costs(plan: Plan, sites: Sequence[Site], batch: int) -> list[Cost] | None:
    """What each site costs, one by one; None where a rule refuses such a batch."""
    target = replace(plan.target, tune_batch=batch)
    decided = {decision.site.path: decision for decision in plan.decisions}
    costs: list[Cost] = []
    for site in sites:
        decision = decided.get(site.path)
        rule = AS_IT_STANDS if decision is None and site.kind == STATIC else decision and decision.rule
        answers = [each.offer(site, target) for each in RULES if each.id == rule]
        for answer in answers:
            if isinstance(answer, Refusal):
                return None
            # What is built stays as it is at any batch; only a static convolution that is left alone has no decision.
            costs.append((decision.offer if decision else answer).cost)
    return costs


def _crossover(smaller: Plan, larger: Plan, sites: Sequence[Site], start: int) -> int:
    """The smallest power of two above `start` from which the second plan is not dearer; its own batch at the latest."""
    last = larger.target.tune_batch
    batches = (batch for batch in _below(larger.target) if batch > start)
    cheaper = (batch for batch in batches if price_s(larger, sites, batch) <= price_s(smaller, sites, batch))
    return next(cheaper, last)


def usual_chunk(plan: Plan) -> int | None:
    """How many images keep the widest tensor small, as a power of two; None where no rule makes wide ones."""
    widest = max((decision.offer.widest for decision in plan.decisions), default=0) * FLOAT_BYTES
    return None if widest == 0 or plan.target.batch else 2 ** max((CHUNK_BYTES // widest).bit_length() - 1, 0)
