"""What `--tune` tries: whole plans that differ in their rules, and plans put together layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dyx.bench.breakdown import Breakdown
from dyx.exporter.graphs import price_s
from dyx.exporter.plan import Plan, make_plan
from dyx.exporter.planned import Planned
from dyx.exporter.rule import CPUS, STATIC, Offer, Target
from dyx.exporter.rules import RULES
from dyx.exporter.rules.conv import AS_IT_STANDS

HOPELESS = 3.0
"""A plan that is priced at so many times the cheapest one is not measured at that batch size."""

LayerTimes = Mapping[str, Mapping[str, float]]
"""Path of a site → rule → seconds per image that it and the static layers around it took."""


@dataclass(frozen=True)
class Candidate:
    """A plan that may become a graph.

    Attributes:
        name: What records call it.
        plan: With its joints.
    """

    name: str
    plan: Plan

    @property
    def rules(self) -> dict[str, str]:
        """Path of a site → the rule that folds it."""
        return {decision.site.path: decision.rule for decision in self.plan.decisions}

    def is_like(self, other: Candidate) -> bool:
        """Whether both would be built the same."""
        return _forms(self.plan) == _forms(other.plan)


def _forms(plan: Plan) -> set[tuple[str, str, str]]:
    return {(decision.site.path, decision.rule, decision.offer.form) for decision in plan.decisions}


def priced(planned: Planned) -> tuple[Candidate, ...]:
    """The graphs that prices chose, the main one last."""
    return tuple(Candidate(_priced_name(graph.plan.target), graph.plan) for graph in planned.graphs)


def _priced_name(target: Target) -> str:
    name = f"priced for {target.priced_batch}"
    return name if target.cpu == CPUS[0] else f"{name} on {target.cpu}"


def by_strategy(planned: Planned, batch: int, requested: Sequence[str]) -> tuple[Candidate, ...]:
    """For every strategy of an exact rule the plan that uses it wherever it can, all else priced for a batch size."""
    target = _target(planned, batch)
    return tuple(
        _candidate(f"{strategy} for {batch}", planned, target, requested, wanted)
        for strategy, wanted in _strategies(planned, target).items()
    )


def add(found: list[Candidate], one: Candidate) -> None:
    """Append a candidate that is like none before it."""
    if not any(one.is_like(other) for other in found):
        found.append(one)


def layer_by_layer(planned: Planned, batch: int, requested: Sequence[str], times: LayerTimes) -> Candidate:
    """The plan that takes at every site the rule that was measured fastest there."""
    fastest = {path: min(rules, key=lambda rule: rules[rule]) for path, rules in times.items()}
    return _candidate(f"layer by layer at {batch}", planned, _target(planned, batch), requested, fastest)


def _candidate(
    name: str, planned: Planned, target: Target, requested: Sequence[str], wanted: Mapping[str, str]
) -> Candidate:
    plan = make_plan(planned.sites, target, requested, planned.source.name, wanted)
    return Candidate(name, planned.joined(plan))


def _target(planned: Planned, batch: int) -> Target:
    return replace(planned.plan.target, tune_batch=batch)


def _strategies(planned: Planned, target: Target) -> dict[str, dict[str, str]]:
    """Name of a strategy → path of every site where it is offered → the rule's id."""
    found: dict[str, dict[str, str]] = {}
    for site in planned.sites:
        for rule in RULES:
            answer = rule.offer(site, target) if rule.kind == site.kind else None
            if isinstance(answer, Offer) and not answer.lossy:
                found.setdefault(rule.id.partition("/")[2], {})[site.path] = rule.id
    return found


def worth_measuring(candidates: Sequence[Candidate], planned: Planned, batch: int) -> list[Candidate]:
    """Those whose rules are all offered at a batch size, at a price that is not hopeless."""
    prices = [price_s(candidate.plan, planned.sites, batch) for candidate in candidates]
    limit = HOPELESS * min(prices)
    return [candidate for candidate, price in zip(candidates, prices, strict=True) if price <= limit]


@dataclass(frozen=True)
class Profiled:
    """A candidate and where the time of a call went."""

    candidate: Candidate
    breakdown: Breakdown
    images: int


def layer_times(seen: Sequence[Profiled], planned: Planned) -> dict[str, dict[str, float]]:
    """What each site took under each rule that was tried there, where there were several; see `LayerTimes`.

    A rule may compute static neighbours too, so all are charged with the neighbours that any of them computes. Where
    several candidates fold a site by one rule, the fastest counts.
    """
    found: dict[str, dict[str, float]] = {}
    taken = _taken([one.candidate for one in seen])
    for site in planned.sites:
        paths = {site.path, *taken.get(site.path, ())}
        for one in seen:
            rule = one.candidate.rules.get(site.path, AS_IT_STANDS if site.kind == STATIC else None)
            ms = sum(layer.ms for layer in one.breakdown.layers if layer.layer in paths)
            if rule is not None and ms > 0:
                rules, seconds = found.setdefault(site.path, {}), ms / 1e3 / one.images
                rules[rule] = min(seconds, rules.get(rule, seconds))
    return {path: rules for path, rules in found.items() if len(rules) > 1}


def _taken(candidates: Sequence[Candidate]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for candidate in candidates:
        for decision in candidate.plan.decisions:
            found.setdefault(decision.site.path, set()).update(decision.offer.takes)
    return found
