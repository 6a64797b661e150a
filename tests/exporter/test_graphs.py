"""Which graphs a bundle gets, from which batch on each answers, and how many images it takes at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import pytest

import dyx
from dyx.bundle import Bundle, Graph
from dyx.exporter import graphs
from dyx.exporter.graphs import CHUNK_BYTES, WORTH, PlannedGraph, plan_graphs, price_s
from dyx.exporter.plan import Plan, make_plan
from dyx.exporter.rule import CPUS, FLOAT_BYTES, MACHINES, STATIC, Machine, Offer, Site, Target
from dyx.exporter.rules import RULES

LARGE = 512


@pytest.fixture(scope="module")
def sites() -> Sequence[Site]:
    """Of alexnet-dy: a static convolution that may be rewritten, and three dynamic ones."""
    return dyx.plan("alexnet-dy", tune_batch=1).trace.sites


TWO = 0.85
"""What a graph must be worth for two of them, and not three, on the priced CPUs."""


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "WORTH", TWO)


def both(sites: Sequence[Site], tune_batch: int = LARGE) -> tuple[PlannedGraph, PlannedGraph]:
    small, main = plan_graphs(sites, Target(tune_batch=tune_batch), single=False)
    return small, main


def test_a_graph_is_planned_for_one_image_and_one_for_what_lies_between(sites: Sequence[Site]) -> None:
    """What lies between gains on AVX2 cores, and on the others it is about as fast."""
    small, medium, main = plan_graphs(sites, Target(), single=False)
    assert [each.graph.stem for each in (small, medium, main)] == ["small", "medium", "model"]
    assert (small.graph, medium.graph, main.graph.from_batch) == (Graph("small"), Graph("medium", 8), 16)
    assert main.plan.to_json() == make_plan(sites, Target(tune_batch=LARGE)).to_json()
    assert small.plan.to_json() == make_plan(sites, Target(tune_batch=1)).to_json()
    assert medium.plan.to_json() == make_plan(sites, Target(tune_batch=8, cpu="AVX2")).to_json()
    assert {decision.rule for decision in main.plan.decisions} == {"conv/winograd", "dyconv/winograd"}
    assert price_s(small.plan, sites, 1) < WORTH * price_s(main.plan, sites, 1)


def test_rules_asked_for_govern_both_graphs(sites: Sequence[Site], two: None) -> None:
    asked = ("conv/direct",)
    for each, tune_batch in zip(plan_graphs(sites, Target(), asked, single=False), (1, LARGE), strict=True):
        assert each.plan.to_json() == make_plan(sites, Target(tune_batch=tune_batch), asked).to_json()
        assert each.plan.decisions[0].rule == "conv/direct"


@pytest.mark.parametrize(
    ("target", "requested", "single"),
    [
        pytest.param({}, (), True, id="asked for"),
        pytest.param({"tune_batch": 1}, (), False, id="for one image already"),
        pytest.param({"batch": 512}, (), False, id="frozen batch"),
        pytest.param({}, ("dyconv/mix-outputs", "conv/direct"), False, id="rules asked for"),
        pytest.param({"tune_batch": 2}, (), False, id="both would be the same"),
    ],
)
def test_one_graph_is_enough(
    sites: Sequence[Site], target: dict[str, Any], requested: tuple[str, ...], single: bool
) -> None:
    (alone,) = plan_graphs(sites, Target(**target), requested, single=single)
    assert (alone.graph.stem, alone.graph.from_batch) == ("model", 1)
    assert alone.plan.to_json() == make_plan(sites, Target(**target), requested).to_json()


@pytest.fixture
def three(sites: Sequence[Site], monkeypatch: pytest.MonkeyPatch) -> tuple[PlannedGraph, ...]:
    """On a machine where arithmetic is dearer beside memory, and where a graph is cheap to have."""
    monkeypatch.setitem(MACHINES, "onnxruntime", dict.fromkeys(CPUS, Machine(62e9, 14e9, 10e9, 4.5e9)))
    monkeypatch.setattr(graphs, "WORTH", 0.95)
    return plan_graphs(sites, Target(), single=False)


def test_a_third_graph_is_planned_for_what_lies_between(sites: Sequence[Site], three: tuple[PlannedGraph, ...]) -> None:
    small, medium, main = three
    assert [each.graph.stem for each in three] == ["small", "medium", "model"]
    assert small.graph.from_batch == 1 < medium.graph.from_batch < main.graph.from_batch < LARGE
    assert small.plan.target.tune_batch < medium.plan.target.tune_batch < main.plan.target.tune_batch == LARGE
    assert "gathered" in medium.plan.decisions[-1].offer.form and "gathered" not in main.plan.decisions[-1].offer.form
    assert (small.graph.chunk, medium.graph.chunk) == (None, None) and main.graph.chunk is not None


def test_each_graph_begins_where_it_is_not_dearer(sites: Sequence[Site], three: tuple[PlannedGraph, ...]) -> None:
    for smaller, larger in pairwise(three):
        start = larger.graph.from_batch
        assert price_s(larger.plan, sites, start) <= price_s(smaller.plan, sites, start)
        assert price_s(larger.plan, sites, start // 2) > price_s(smaller.plan, sites, start // 2)


def share_beside(others: Sequence[PlannedGraph], plan: Plan, sites: Sequence[Site]) -> float:
    """Of the cheapest of other graphs, what a plan costs at the power of two where it gains most."""
    return min(
        price_s(plan, sites, batch) / min(price_s(other.plan, sites, batch) for other in others)
        for batch in (2**power for power in range(9))
    )


def test_a_third_graph_must_be_worth_it_beside_two(
    sites: Sequence[Site], three: tuple[PlannedGraph, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    small, medium, main = three
    share = share_beside((small, main), medium.plan, sites)
    for worth, wanted in ((share * 1.001, 3), (share * 0.999, 2)):
        monkeypatch.setattr(graphs, "WORTH", worth)
        assert len(plan_graphs(sites, Target(), single=False)) == wanted


def test_a_graph_more_is_the_one_that_gains_most_on_either_kind_of_cpu(sites: Sequence[Site]) -> None:
    """On OpenVINO plans for both would be worth a third graph."""
    target = Target(backend="openvino")
    small, medium, main = plan_graphs(sites, target, single=False)
    assert [each.plan.target.cpu for each in (small, medium, main)] == ["AVX-512", "AVX2", "AVX-512"]
    other = make_plan(sites, replace(target, tune_batch=8, cpu="AVX-512"))
    shares = [share_beside((small, main), plan, sites) for plan in (medium.plan, other)]
    assert shares[0] < shares[1] < WORTH


def test_nothing_to_fold_is_nothing_to_fold_twice() -> None:
    (alone,) = plan_graphs([], Target(tune_batch=8), single=False)
    assert (alone.graph, alone.plan.decisions) == (Graph(), ())


def test_a_second_graph_must_be_worth_it(sites: Sequence[Site], two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    small, main = both(sites)
    share = price_s(small.plan, sites, 1) / price_s(main.plan, sites, 1)
    for worth, wanted in ((share * 1.001, 2), (share * 0.999, 1)):
        monkeypatch.setattr(graphs, "WORTH", worth)
        assert len(plan_graphs(sites, Target(), single=False)) == wanted


@pytest.mark.parametrize("tune_batch", [32, 48, 64, 512, 1000])
def test_the_main_graph_begins_where_it_is_not_dearer(sites: Sequence[Site], two: None, tune_batch: int) -> None:
    small, main = both(sites, tune_batch)
    start = main.graph.from_batch
    assert 1 < start <= tune_batch and start.bit_count() == 1
    assert price_s(main.plan, sites, start) <= price_s(small.plan, sites, start)
    assert price_s(main.plan, sites, start // 2) > price_s(small.plan, sites, start // 2)


def test_the_main_graph_begins_at_its_own_batch_at_the_latest(
    sites: Sequence[Site], two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever prices say of the powers of two below."""
    monkeypatch.setattr(graphs, "price_s", lambda plan, *_: 1.0 if plan.target.tune_batch == 1 else 2.0)
    assert both(sites, 48)[1].graph.from_batch == 48


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("limit", [CHUNK_BYTES, CHUNK_BYTES // 2, CHUNK_BYTES * 4 + 1])
def test_a_chunk_is_what_keeps_the_widest_tensor_small(
    sites: Sequence[Site], limit: int, single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "CHUNK_BYTES", limit)
    main = plan_graphs(sites, Target(), single=single)[-1]
    widest = max(decision.offer.widest for decision in main.plan.decisions) * FLOAT_BYTES
    chunk = main.graph.chunk
    assert chunk is not None and chunk.bit_count() == 1
    assert chunk * widest <= limit < 2 * chunk * widest


def test_pieces_bound_the_memory_of_kernels_per_sample(sites: Sequence[Site]) -> None:
    requested = ("dyconv/aggregate-kernel", "conv/direct")
    (alone,) = plan_graphs(sites, Target(tune_batch=64), requested, single=True)
    widest = max(decision.offer.widest for decision in alone.plan.decisions) * FLOAT_BYTES
    assert widest > 0 and alone.graph.chunk is not None
    assert alone.graph.chunk * widest <= CHUNK_BYTES < 2 * alone.graph.chunk * widest


def test_a_chunk_is_an_image_at_least_and_no_less_than_the_graph_is_for(
    sites: Sequence[Site], two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces below `from_batch` would all go to the other graph."""
    monkeypatch.setattr(graphs, "CHUNK_BYTES", 1)
    (alone,) = plan_graphs(sites, Target(), single=True)
    assert alone.graph.chunk == 1
    _, main = both(sites)
    assert main.graph.chunk == main.graph.from_batch > 1


@pytest.mark.parametrize(
    ("target", "requested"),
    [
        pytest.param({"tune_batch": 2}, (), id="nothing wide"),
        pytest.param({"batch": 512}, (), id="frozen batch"),
        pytest.param({}, ("dyconv/mix-outputs", "conv/direct"), id="rules asked for"),
    ],
)
def test_batches_are_taken_whole(sites: Sequence[Site], target: dict[str, Any], requested: tuple[str, ...]) -> None:
    (alone,) = plan_graphs(sites, Target(**target), requested, single=False)
    assert alone.graph.chunk is None


def mean_price_s(offers: Sequence[Offer], batch: int) -> float:
    """The geometric mean of what they cost together on each kind of CPU."""
    machines = [Target(cpu=cpu).machine for cpu in CPUS]
    return geometric_mean(sum(machine.seconds(offer.cost, batch) for offer in offers) for machine in machines)


def all_offers(plan: Plan, sites: Sequence[Site], alone: Sequence[str]) -> list[Offer]:
    """Of the static convolutions that are left alone, at these paths, and of what is folded."""
    folded = {each.site.path for each in plan.decisions}
    left = [site for site in sites if site.path not in folded]
    assert [(site.path, site.kind) for site in left] == [(path, STATIC) for path in alone]
    direct = next(rule for rule in RULES if rule.id == "conv/direct")
    answers = [direct.offer(site, plan.target) for site in left]
    return [*(each.offer for each in plan.decisions), *(answer for answer in answers if isinstance(answer, Offer))]


def test_prices_are_means_over_the_kinds_of_cpu(sites: Sequence[Site], two: None) -> None:
    _, main = both(sites)
    offers = all_offers(main.plan, sites, ["features.0"])
    assert price_s(main.plan, sites, LARGE) == pytest.approx(mean_price_s(offers, LARGE))
    assert price_s(main.plan, sites, LARGE) > 1.1 * sum(each.price_s for each in main.plan.decisions)
    assert price_s(main.plan, sites, 1) > 2 * price_s(main.plan, sites, LARGE)


def test_static_convolutions_that_are_left_alone_are_counted(sites: Sequence[Site]) -> None:
    """Else a plan that rewrites them would look dearer than one that does not."""
    plan = make_plan(sites, Target(tune_batch=1))
    offers = all_offers(plan, sites, ["features.0", "features.4"])
    assert price_s(plan, sites, 1) == pytest.approx(mean_price_s(offers, 1))
    assert price_s(plan, sites[:2], 1) == pytest.approx(mean_price_s(offers[-2:], 1))


def test_a_batch_that_a_rule_refuses_is_never_cheap(sites: Sequence[Site]) -> None:
    plan = make_plan(sites, Target(tune_batch=1), ["dyconv/aggregate-kernel"])
    assert price_s(plan, sites, 1) < price_s(plan, sites, 10**6) == inf


def test_a_bundle_reads_the_graphs_that_were_planned(sites: Sequence[Site]) -> None:
    planned = plan_graphs(sites, Target(), single=False)
    assert Bundle(Path(), {"graphs": [each.to_json() for each in planned]}).graphs == tuple(
        each.graph for each in planned
    )
    assert planned[0].to_json()["plan"] == planned[0].plan.to_json()
