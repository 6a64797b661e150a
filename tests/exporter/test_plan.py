"""The planner: cheapest offer, reasons for the rest, rules asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

import dyx
from dyx.errors import FoldRefused, InvalidOption, RuleMatchesNothing, UnknownName
from dyx.exporter.apply import apply_plan
from dyx.exporter.plan import make_plan
from dyx.exporter.rule import Offer, Site, Target, check_target
from dyx.exporter.rules import RULES
from dyx.exporter.trace import trace_sites
from dyx.nn.attention import Routing
from dyx.nn.dyconv import DyConvParameters
from dyx.nn.experts import Experts
from dyx.nn.geometry import Geometry
from dyx.nn.na import NA
from dyx.nn.se import SqueezeExcite


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
        (Target().machine.seconds(offer.cost, 512), name) for name, offer in prices.items() if isinstance(offer, Offer)
    )
    assert (decision.price_s, decision.rule) == cheapest
    assert set(decision.passed_over) == set(prices) - {decision.rule}
    reasons = dict(decision.passed_over)
    assert reasons.pop("dyconv/mean-attention") == "it needs calibration images (--calibrate)"
    assert reasons.pop("dyconv/aggregate-scan").startswith("it convolves ")
    assert all("µs per image against" in reason for reason in reasons.values())


def test_large_map_and_many_experts_prefer_one_kernel_per_sample() -> None:
    """Mixing K outputs costs K convolutions; mixing the kernel does not grow with the map, nor do its factors."""
    chosen = []
    for side, experts in ((56, 8), (14, 8), (7, 2)):
        (decision,) = make_plan([site(side=side, experts=experts)], Target(tune_batch=8)).decisions
        chosen.append(decision.rule)
    assert chosen == ["dyconv/aggregate-winograd", "dyconv/aggregate-kernel", "dyconv/mix-outputs"]


def depthwise_site() -> Site:
    """Of 64 channels at 56 × 56."""
    walk = Geometry((3, 3), (1, 1), (1, 1), (1, 1), 64)
    layer = DyConvParameters(np.zeros((2, 64, 1, 3, 3)), None, walk, site().layer.routing)
    return Site("depthwise", "dyconv", "DYConv2D", layer, (64, 56, 56), (64, 56, 56))


@pytest.mark.parametrize(
    ("backend", "rule", "last"),
    [
        ("openvino", "dyconv/aggregate-scan", True),
        ("openvino", "dyconv/mix-outputs", False),
        ("onnxruntime", "dyconv/aggregate-scan", False),
    ],
)
def test_maps_keep_channels_last_around_loops_of_a_backend_that_wants_them_so(
    backend: str, rule: str, last: bool
) -> None:
    plan = make_plan([depthwise_site(), site(kernel=1)], Target(backend=backend), (), preferred={"depthwise": rule})
    assert plan.decisions[0].rule == rule
    assert plan.channels_last == plan.to_json()["channels_last"] == last


def test_rule_asked_for_governs_every_site_of_its_kind() -> None:
    plan = make_plan([site("a"), site("b")], Target(), ["auto", "dyconv/mix-inputs"])
    assert [decision.rule for decision in plan.decisions] == ["dyconv/mix-inputs"] * 2
    assert plan.decisions[0].passed_over["dyconv/mix-outputs"].startswith("dyconv/mix-inputs was asked for")


def test_json_says_what_was_decided() -> None:
    entry = make_plan([site()], Target(batch=1)).to_json()
    assert (entry["batch"], entry["tune_batch"]) == (1, 1)
    assert (entry["tune_backend"], entry["tune_cpu"]) == ("onnxruntime", "AVX-512")
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


def static_site(kernel: tuple[int, int] = (3, 3)) -> Site:
    """A static convolution of 128 channels, on 7×7."""
    walk = Geometry(kernel, (1, 1), (kernel[0] // 2, kernel[1] // 2), (1, 1), 1)
    layer = Experts(np.zeros((1, 192, 128, *kernel)), None, walk)
    return Site("features.4", "conv", "Conv2D", layer, (128, 7, 7), (192, 7, 7))


def test_static_convolution_is_listed_only_where_another_form_is_cheaper() -> None:
    (decision,) = make_plan([static_site()], Target(tune_batch=512)).decisions
    prices = {rule.id: rule.offer(static_site(), Target(tune_batch=512)) for rule in RULES if rule.kind == "conv"}
    seconds = {
        name: Target().machine.seconds(offer.cost, 512) for name, offer in prices.items() if isinstance(offer, Offer)
    }
    assert decision.rule == "conv/winograd"
    assert decision.price_s == seconds["conv/winograd"] < seconds["conv/direct"]
    figures = f"{seconds['conv/direct'] * 1e6:.0f} µs per image against {seconds['conv/winograd'] * 1e6:.0f}"
    assert decision.passed_over == {
        "conv/direct": f"costs {figures}",
        "conv/padded-map": "it reads 128 channels, no image",
    }
    assert make_plan([static_site()], Target(batch=1)).decisions == (), "factors are read for one image only"


def test_static_convolution_that_no_tile_fits_stays_as_it_is() -> None:
    assert make_plan([static_site((3, 1))], Target()).decisions == ()
    with pytest.raises(FoldRefused, match=r"conv/winograd: its kernel is \[3, 1\]"):
        make_plan([static_site((3, 1))], Target(), ["conv/winograd"])


def test_static_convolution_that_refuses_the_rule_asked_for_stays_where_others_take_it() -> None:
    odd = replace(static_site((3, 1)), path="features.9")
    for sites in ([odd, static_site()], [static_site(), odd]):
        (decision,) = make_plan(sites, Target(batch=1), ["conv/winograd"]).decisions
        assert (decision.site.path, decision.rule) == ("features.4", "conv/winograd")


def test_static_convolution_is_listed_as_it_stands_where_that_was_asked_for() -> None:
    (decision,) = make_plan([static_site()], Target(), ["conv/direct"]).decisions
    assert (decision.rule, decision.offer.form) == ("conv/direct", "the convolution as it stands")
    assert decision.offer.cost.macs == 192 * 128 * 9 * 49
    assert decision.passed_over["conv/winograd"].startswith("conv/direct was asked for (")


def test_rule_for_static_convolutions_leaves_dynamic_ones_automatic() -> None:
    plan = make_plan([static_site(), site()], Target(batch=1), ["conv/winograd"])
    assert [decision.rule for decision in plan.decisions] == ["conv/winograd", "dyconv/mix-outputs"]


def test_static_convolutions_beside_gates_are_rewritten_on_request_alone() -> None:
    """A gate that saturates leaves little of a channel, beside which the rounding of tiles stands out."""
    net = Gated(SqueezeExcite(6, 2), norm=False).to(dtype="float64")
    net.eval()
    x = np.random.default_rng(0).standard_normal((3, 4, 9, 8))
    gate = next(site for site in trace_sites(net, x, "net", logits=False).sites if site.kind == "gate")
    assert [found.site.kind for found in make_plan([static_site(), gate], Target()).decisions] == ["gate"]
    asked = make_plan([static_site(), gate], Target(), ["conv/winograd"])
    assert asked.decisions[0].rule == "conv/winograd"


class Gated(nn.Layer):
    """A static convolution, perhaps a batch norm, and a layer that goes into what stands before it."""

    def __init__(self, gate: Any, *, norm: bool) -> None:
        super().__init__()
        paddle.seed(0)
        self.conv, self.gate = nn.Conv2D(4, 6, 3, padding=1), gate
        self.norm = nn.BatchNorm2D(6) if norm else nn.Identity()
        if norm:
            self.norm._mean.set_value(np.arange(6, dtype="float32"))
            self.norm.weight.set_value(np.arange(1, 7, dtype="float32"))

    def forward(self, x: Any) -> Any:
        return self.gate(self.norm(self.conv(x)) if isinstance(self.norm, nn.BatchNorm2D) else self.conv(x))


@pytest.mark.parametrize("norm", [False, True], ids=["convolution", "batch norm"])
@pytest.mark.parametrize("rule", ["gate/mean-attention", "na/constant"])
def test_static_convolution_is_left_to_the_layer_that_takes_it_or_its_norm(rule: str, norm: bool) -> None:
    gate = SqueezeExcite(6, 2) if rule == "gate/mean-attention" else NA()
    net = Gated(gate, norm=norm).to(dtype="float64")
    net.eval()
    x = np.random.default_rng(0).standard_normal((3, 4, 9, 8))
    trace = trace_sites(net, x, "net", logits=False)
    factor = np.linspace(0.1, 0.9, 6) if rule == "gate/mean-attention" else np.full(6, 0.5)
    sites = [replace(found, mean_attention=(factor,)) if found.path == "gate" else found for found in trace.sites]
    assert [found.path for found in sites] == ["conv", "gate"]
    plan = make_plan(sites, Target(), [rule, "conv/winograd"])
    (decision,) = plan.decisions
    assert (decision.site.path, decision.rule) == ("gate", rule)
    assert decision.offer.takes == (("norm",) if norm else ("conv",))
    y = net.conv(paddle.to_tensor(x))
    wanted = (net.norm(y) if norm else y).numpy() * factor[:, None, None]
    got = apply_plan(plan, net, trace.inputs)(paddle.to_tensor(x)).numpy()
    assert np.abs(got - wanted).max() < 1e-9 * np.abs(wanted).max()


def test_static_convolution_before_a_gate_that_leaves_it_alone_is_rewritten() -> None:
    net = Gated(SqueezeExcite(6, 2), norm=True).to(dtype="float64")
    net.eval()
    x = np.random.default_rng(0).standard_normal((3, 4, 9, 8))
    trace = trace_sites(net, x, "net", logits=False)
    plan = make_plan(trace.sites, Target(), ["conv/winograd", "gate/in-place"])
    assert [(found.rule, found.offer.takes) for found in plan.decisions] == [
        ("conv/winograd", ("norm",)),
        ("gate/in-place", ()),
    ]
    wanted = net(paddle.to_tensor(x)).numpy()
    got = apply_plan(plan, net, trace.inputs)(paddle.to_tensor(x)).numpy()
    assert np.abs(got - wanted).max() < 1e-9 * np.abs(wanted).max()


def test_plain_network_may_be_folded_too() -> None:
    """The two convolutions of a plain network, in a transform domain and as they stand."""
    net = nn.Sequential(nn.Conv2D(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2D(8, 6, 5))
    net.eval()
    x = paddle.randn([3, 3, 12, 9])
    for rule, word in (("conv/winograd", "Winograd"), ("conv/direct", "StaticConv")):
        static = dyx.fold(net, rule=rule, shape=(3, 12, 9))
        assert [type(layer).__name__ for layer in static.sublayers()].count(word) == 2
        assert float((static(x) - net(x)).abs().max()) < 1e-5
