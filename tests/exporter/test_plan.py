"""The planner: cheapest offer, reasons for the rest, rules asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dyx.errors import InvalidOption, RuleMatchesNothing, UnknownName
from dyx.exporter.plan import make_plan
from dyx.exporter.rule import MACHINES, Offer, Site, Target, check_target
from dyx.exporter.rules import RULES
from dyx.nn.attention import Routing
from dyx.nn.dyconv import DyConvParameters
from dyx.nn.geometry import Geometry


def site(path: str = "features.8", kernel: int = 3, side: int = 7, experts: int = 2) -> Site:
    routing = Routing(np.zeros((32, 128)), np.zeros(32), np.zeros((experts, 32)), np.zeros(experts), 1.0)
    weight = np.zeros((experts, 192, 128, kernel, kernel))
    walk = Geometry((kernel, kernel), (1, 1), (kernel // 2,) * 2, (1, 1), 1)
    layer = DyConvParameters(weight, np.zeros((experts, 192)), walk, routing)
    return Site(path, "dyconv", "DYConv2D", layer, (128, side, side), (192, side, side))


def test_cheapest_offer_wins_and_every_other_rule_has_a_reason() -> None:
    plan = make_plan([site()], Target())
    (decision,) = plan.decisions
    prices = {rule.id: rule.offer(site(), Target()) for rule in RULES if rule.kind == "dyconv"}
    cheapest = min(
        (MACHINES["onnxruntime"].seconds(offer.cost), name)
        for name, offer in prices.items()
        if isinstance(offer, Offer)
    )
    assert (decision.price_s, decision.rule) == cheapest
    assert set(decision.passed_over) == set(prices) - {decision.rule}
    reasons = dict(decision.passed_over)
    assert reasons.pop("dyconv/mean-attention") == "it needs calibration images (--calibrate)"
    assert all("µs per image against" in reason for reason in reasons.values())


def test_large_map_and_many_experts_prefer_one_kernel_per_sample() -> None:
    """Mixing K outputs costs K convolutions; mixing the kernel does not grow with the map."""
    (many,) = make_plan([site(side=56, experts=8)], Target(tune_batch=8)).decisions
    (few,) = make_plan([site(side=7, experts=2)], Target(tune_batch=8)).decisions
    assert many.rule == "dyconv/aggregate-kernel"
    assert few.rule == "dyconv/mix-outputs"


def test_rule_asked_for_governs_every_site_of_its_kind() -> None:
    plan = make_plan([site("a"), site("b")], Target(), ["auto", "dyconv/mix-inputs"])
    assert [decision.rule for decision in plan.decisions] == ["dyconv/mix-inputs"] * 2
    assert plan.decisions[0].passed_over["dyconv/mix-outputs"].startswith("dyconv/mix-inputs was asked for")


def test_json_says_what_was_decided() -> None:
    entry = make_plan([site()], Target(batch=1)).to_json()
    assert (entry["batch"], entry["tune_batch"], entry["tune_backend"]) == (1, 1, "onnxruntime")
    assert entry["sites"][0]["path"] == "features.8"
    assert {"rule", "form", "macs", "bytes", "passed_over", "takes"} <= set(entry["sites"][0])


@pytest.mark.parametrize(
    ("error", "words", "sites", "rules"),
    [
        (UnknownName, "no fold rule named 'dyconv/mix-output'", [site()], ["dyconv/mix-output"]),
        (RuleMatchesNothing, "--fold dyconv/mix-inputs matches no layer of net", [], ["dyconv/mix-inputs"]),
        (InvalidOption, "one rule per kind of layer", [site()], ["dyconv/mix-inputs", "dyconv/mix-outputs"]),
    ],
)
def test_rules_that_cannot_be_used(error: Any, words: str, sites: list[Site], rules: list[str]) -> None:
    with pytest.raises(error, match=words):
        make_plan(sites, Target(), rules, "net")


def test_nearest_rule_is_offered() -> None:
    with pytest.raises(UnknownName) as caught:
        make_plan([site()], Target(), ["dyconv/mix-output"])
    assert "did you mean 'dyconv/mix-outputs'?" in caught.value.hint


@pytest.mark.parametrize("target", [Target(batch=0), Target(tune_batch=-1), Target(backend="tensorrt")])
def test_targets_that_cannot_be_priced(target: Target) -> None:
    with pytest.raises(InvalidOption):
        check_target(target)


def test_lossy_rule_is_cheapest_and_still_only_taken_when_asked_for() -> None:
    calibrated = replace(site(), mean_attention=(np.array([0.5, 0.5]),))
    (decision,) = make_plan([calibrated], Target()).decisions
    assert decision.rule != "dyconv/mean-attention"
    reason = decision.passed_over["dyconv/mean-attention"]
    assert reason.startswith("only approximates the layer; taken when asked for (")
    asked = make_plan([calibrated], Target(), ["dyconv/mean-attention"])
    assert asked.is_lossy
    assert asked.decisions[0].price_s < decision.price_s
