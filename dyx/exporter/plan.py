"""Which rule folds which site, and why not another: decided from costs, without touching a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dyx.errors import FoldRefused, InvalidOption, RuleMatchesNothing, UnknownName
from dyx.exporter.rule import CHANNELS_LAST, GATE, STATIC, Offer, Refusal, Site, Target
from dyx.exporter.rules import RULES
from dyx.exporter.rules.conv import AS_IT_STANDS, IN_TILES
from dyx.exporter.rules.depthwise import SCAN_FORM

AUTO = "auto"


@dataclass(frozen=True)
class Decision:
    """What folds one site.

    Attributes:
        site: The site.
        rule: The id of the chosen rule.
        offer: What that rule offered.
        price_s: Its price, seconds per image.
        passed_over: Id of every other rule of this kind → why it was not taken.
    """

    site: Site
    rule: str
    offer: Offer
    price_s: float
    passed_over: Mapping[str, str]

    def to_json(self, batch: int) -> dict[str, Any]:
        """The form kept in `dyx.json`; bytes are of one image of a batch."""
        return {
            "path": self.site.path,
            "layer": self.site.class_name,
            "experts": self.site.layer.experts,
            "rule": self.rule,
            "form": self.offer.form,
            "computed_kernel": self.offer.computed_kernel,
            "lossy": self.offer.lossy,
            "takes": list(self.offer.takes),
            "macs": self.offer.cost.macs,
            "bytes": round(self.offer.cost.bytes_at(batch)),
            "price_us": round(self.price_s * 1e6, 3),
            "passed_over": dict(self.passed_over),
        }


@dataclass(frozen=True)
class Plan:
    """What folds each site, and what that was decided for.

    Attributes:
        target: Batch sizes, backend, formats.
        decisions: One per dynamic layer, and one per static convolution that is rewritten.
        joined: Paths of two such layers between which a map keeps its positions first.
    """

    target: Target
    decisions: tuple[Decision, ...]
    joined: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The form kept in `dyx.json`."""
        return {
            "batch": self.target.batch or "dynamic",
            "tune_batch": self.target.priced_batch,
            "tune_backend": self.target.backend,
            "tune_cpu": self.target.cpu,
            "sites": [decision.to_json(self.target.priced_batch) for decision in self.decisions],
            "joined": [list(pair) for pair in self.joined],
            "channels_last": self.channels_last,
        }

    @property
    def is_lossy(self) -> bool:
        """Whether some rule, on request, only approximates its layer."""
        return any(decision.offer.lossy for decision in self.decisions)

    @property
    def computes_kernels(self) -> bool:
        """Whether the plan itself chose a convolution whose kernel is no constant."""
        return any(decision.offer.computed_kernel for decision in self.decisions)

    @property
    def channels_last(self) -> bool:
        """Whether maps keep their channels last between layers: where loops over samples would turn each of them."""
        loops = any(decision.offer.form == SCAN_FORM for decision in self.decisions)
        return loops and self.target.backend in CHANNELS_LAST


def make_plan(
    sites: Sequence[Site],
    target: Target,
    requested: Sequence[str] = (),
    name: str = "the network",
    preferred: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """Ask every rule at every site and take the cheapest offer, or the rule that was asked for.

    Args:
        sites: Of the network.
        target: Batch sizes and backend that offers are priced for.
        requested: Rule ids; each governs its own kind of layer, other kinds stay automatic. "auto" asks for nothing.
        name: What errors call the network.
        preferred: Path of a site → the rule to take there, cheapest or not, where it offers an exact fold.

    Raises:
        UnknownName: A rule that does not exist.
        InvalidOption: Two rules for one kind.
        RuleMatchesNothing: A rule whose kind of layer the network does not have.
        FoldRefused: A site that no rule, or not the rule asked for, accepts.
    """
    forced = _forced(requested, [site.kind for site in sites], name)
    decisions = _decide_all(sites, target, forced, preferred)
    return Plan(target, tuple(found for found in decisions if not _stays(found, decisions, forced)))


def _stays(decision: Decision, decisions: Sequence[Decision], forced: Mapping[str, str]) -> bool:
    """Whether a static convolution is left alone: nothing is cheaper, or a dynamic layer takes it or its neighbour."""
    if decision.site.kind != STATIC:
        return False
    unchanged = decision.rule == AS_IT_STANDS != forced.get(STATIC)
    # Gates that saturate nearly close their channels: what tiles round then stands out from what is left.
    rounds = decision.rule == IN_TILES != forced.get(STATIC)
    gated = rounds and any(other.site.kind == GATE for other in decisions)
    wanted = {path for other in decisions if other.site.kind != STATIC for path in other.offer.takes}
    return unchanged or gated or not wanted.isdisjoint((decision.site.path, *decision.offer.takes))


def check_rules(requested: Sequence[str]) -> None:
    """Raises UnknownName for a rule that does not exist, with the nearest known one."""
    known = [rule.id for rule in RULES]
    for rule in requested:
        if rule not in (*known, AUTO):
            raise UnknownName("fold rule", rule, [AUTO, *known])


def _forced(requested: Sequence[str], kinds: Sequence[str], name: str) -> dict[str, str]:
    """Kind of layer → the rule asked for."""
    check_rules(requested)
    forced: dict[str, str] = {}
    for rule in dict.fromkeys(requested):
        if rule == AUTO:
            continue
        kind = rule.partition("/")[0]
        if kind not in kinds and kind != STATIC:
            raise RuleMatchesNothing(rule, name, [found for found in kinds if found != STATIC])
        if kind in forced:
            raise InvalidOption("--fold", f"{forced[kind]} and {rule}", f"one rule per kind of layer ({kind})")
        forced[kind] = rule
    return forced


def _decide_all(
    sites: Sequence[Site], target: Target, forced: Mapping[str, str], preferred: Mapping[str, str]
) -> list[Decision]:
    """A decision per site; a static convolution that refuses the rule asked for stays as it is, unless all do."""
    decisions: list[Decision] = []
    refused: list[FoldRefused] = []
    for site in sites:
        try:
            decisions.append(_decide(site, target, forced.get(site.kind), preferred.get(site.path)))
        except FoldRefused as refusal:
            if site.kind != STATIC:
                raise
            refused.append(refusal)
            decisions.append(_decide(site, target, AS_IT_STANDS, None))
    if refused and not any(decision.rule == forced[STATIC] for decision in decisions):
        raise refused[0]
    return decisions


def _decide(site: Site, target: Target, forced: str | None, preferred: str | None) -> Decision:
    answers = {rule.id: rule.offer(site, target) for rule in RULES if rule.kind == site.kind}
    reasons = {rule: answer.reason for rule, answer in answers.items() if isinstance(answer, Refusal)}
    offers = {rule: answer for rule, answer in answers.items() if isinstance(answer, Offer)}
    prices = {rule: target.price_s(offer.cost) for rule, offer in offers.items()}
    exact = [rule for rule, offer in offers.items() if not offer.lossy]
    if not exact or (forced and forced not in offers):
        hints = [answer.hint for answer in answers.values() if isinstance(answer, Refusal) and answer.hint]
        raise FoldRefused(site.path, {forced: reasons[forced]} if forced else reasons, *hints[:1])
    chosen = forced or (preferred if preferred in exact else min(exact, key=lambda rule: prices[rule]))
    for rule, price in prices.items():
        if rule != chosen:
            reasons[rule] = _comparison(price, prices[chosen], forced, lossy=offers[rule].lossy)
    return Decision(site, chosen, offers[chosen], prices[chosen], reasons)


def _comparison(price: float, chosen: float, forced: str | None, *, lossy: bool) -> str:
    """Why an offer was passed over."""
    figures = f"{price * 1e6:.0f} µs per image against {chosen * 1e6:.0f}"
    if lossy and not forced:
        return f"only approximates the layer; taken when asked for ({figures})"
    return f"{forced} was asked for ({figures})" if forced else f"costs {figures}"
