"""What `--tune` tries: plans by strategy, plans layer by layer, and what profiles say of layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import dyx
from dyx.bench.breakdown import Breakdown, LayerTime
from dyx.exporter import candidates as module
from dyx.exporter.candidates import (
    Candidate,
    Profiled,
    by_strategy,
    layer_by_layer,
    layer_times,
    priced,
    worth_measuring,
)
from dyx.exporter.planned import Planned

DYNAMIC = ("features.8", "features.11", "features.14")
STATIC = "features.4"
STEM = "features.0"


@pytest.fixture(scope="module")
def planned() -> Planned:
    """alexnet-dy, priced for 512 and, in graphs of their own, for 1 and for 8."""
    found: Planned = dyx.plan("alexnet-dy")
    return found


def named(found: tuple[Candidate, ...]) -> dict[str, Candidate]:
    return {one.name: one for one in found}


def test_what_prices_chose_is_named_by_batch(planned: Planned) -> None:
    names = ["priced for 1", "priced for 8 on AVX2", "priced for 512"]
    assert [one.name for one in priced(planned)] == names, "batches alone may be the same on both kinds of CPU"
    assert priced(planned)[-1].plan is planned.plan


def test_a_strategy_is_used_wherever_it_is_offered(planned: Planned) -> None:
    found = named(by_strategy(planned, 64, ()))
    everywhere = ("mix-outputs", "mix-inputs", "aggregate-kernel", "aggregate-winograd")
    strategies = ("winograd", "direct", "padded-map", *everywhere)
    assert set(found) == {f"{strategy} for 64" for strategy in strategies}
    for strategy in everywhere:
        rules = found[f"{strategy} for 64"].rules
        assert [rules[path] for path in DYNAMIC] == [f"dyconv/{strategy}"] * 3
        assert rules[STATIC] == "conv/winograd", "what has no such rule is as priced"
    assert found["winograd for 64"].rules == dict.fromkeys(DYNAMIC, "dyconv/winograd") | {STATIC: "conv/winograd"}
    assert STATIC not in found["direct for 64"].rules, "it stays as it stands"
    assert found["padded-map for 64"].rules == found["winograd for 64"].rules | {STEM: "conv/padded-map"}
    assert found["winograd for 64"].plan.joined and not found["mix-outputs for 64"].plan.joined


def test_rules_asked_for_stay(planned: Planned) -> None:
    for one in by_strategy(planned, 64, ("dyconv/mix-inputs",)):
        assert [one.rules[path] for path in DYNAMIC] == ["dyconv/mix-inputs"] * 3


def test_lossy_rules_are_no_candidates(planned: Planned) -> None:
    means = (np.full(2, 0.5),)
    calibrated = [replace(site, mean_attention=means) if site.path in DYNAMIC else site for site in planned.sites]
    planned = replace(planned, sites=calibrated)
    for batch in (1, 64, 512):
        for one in by_strategy(planned, batch, ()):
            assert not one.plan.is_lossy and "mean-attention" not in one.name


def test_a_plan_layer_by_layer_takes_the_fastest(planned: Planned) -> None:
    times = {
        "features.8": {"dyconv/mix-outputs": 2e-4, "dyconv/winograd": 3e-4},
        "features.11": {"dyconv/aggregate-kernel": 2e-4, "dyconv/winograd": 3e-4},
    }
    rules = layer_by_layer(planned, 64, (), times).rules
    assert [rules[path] for path in DYNAMIC] == ["dyconv/mix-outputs", "dyconv/aggregate-kernel", "dyconv/winograd"]


def test_what_memory_forbids_or_costs_far_more_is_not_measured(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, *_ = (one for one in by_strategy(planned, 1, ()) if one.name.startswith("aggregate"))
    main = priced(planned)[-1]
    assert worth_measuring([main, few], planned, 8) == [main, few]
    assert worth_measuring([main, few], planned, 10**6) == [main], "a kernel per sample would not fit"
    for hopeless, wanted in ((100.0, [main, few]), (2.0, [few])):  # factors would be read for one image
        monkeypatch.setattr(module, "HOPELESS", hopeless)
        assert worth_measuring([main, few], planned, 1) == wanted


def breakdown(times: dict[str, float]) -> Breakdown:
    layers = tuple(LayerTime(path, "", {}, ms, 0.0) for path, ms in times.items())
    return Breakdown(1, False, 1.0, layers, sum(times.values()), {}, 0.0, None, ())


def test_layers_are_charged_with_their_neighbours(planned: Planned) -> None:
    """`features.9` and `.10`, batch norm and ReLU, stand inside one rule's fold and outside the other's."""
    found = named(by_strategy(planned, 64, ()))
    mixed, whole = found["mix-outputs for 64"], found["winograd for 64"]
    assert set(_takes(whole, "features.8")) > set(_takes(mixed, "features.8"))
    seen = [
        Profiled(mixed, breakdown({"features.8": 6.0, "features.10": 2.0, "features.4": 1.0}), 64),
        Profiled(whole, breakdown({"features.8": 7.0, "features.4": 3.0}), 32),
    ]
    assert layer_times(seen, planned) == {
        "features.8": {"dyconv/mix-outputs": pytest.approx(8e-3 / 64), "dyconv/winograd": pytest.approx(7e-3 / 32)}
    }, "features.4 was folded by one rule alone: nothing to choose"


def test_of_two_measurements_of_a_rule_the_faster_counts(planned: Planned) -> None:
    found = named(by_strategy(planned, 64, ()))
    whole, direct, mixed = (found[f"{name} for 64"] for name in ("winograd", "direct", "mix-inputs"))
    seen = [Profiled(one, breakdown({"features.8": ms}), 1) for one, ms in ((whole, 3.0), (direct, 2.0), (mixed, 5.0))]
    for each in (seen, seen[::-1]):
        times = layer_times(each, planned)["features.8"]
        assert times == {"dyconv/winograd": pytest.approx(2e-3), "dyconv/mix-inputs": pytest.approx(5e-3)}


def test_static_convolutions_that_stay_are_known_by_their_rule(planned: Planned) -> None:
    found = named(by_strategy(planned, 64, ()))
    seen = [
        Profiled(found["direct for 64"], breakdown({"features.4": 4.0}), 1),
        Profiled(found["winograd for 64"], breakdown({"features.4": 3.0}), 1),
    ]
    times = layer_times(seen, planned)
    assert times["features.4"] == {"conv/direct": pytest.approx(4e-3), "conv/winograd": pytest.approx(3e-3)}


def test_candidates_are_alike_by_rule_and_form(planned: Planned) -> None:
    small, _, main = priced(planned)
    assert main.is_like(replace(main, name="other")) and not main.is_like(small)
    known = [main]
    module.add(known, replace(main, name="other"))
    module.add(known, small)
    assert known == [main, small]


def _takes(one: Candidate, path: str) -> tuple[str, ...]:
    (decision,) = (found for found in one.plan.decisions if found.site.path == path)
    return decision.offer.takes
