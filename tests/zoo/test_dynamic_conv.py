"""DY-Conv backbones: counts, keys of the reference, and the plain network where there is one expert."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import paddle
import pytest

from dyx.errors import UnknownName
from dyx.nn.dynamic_conv import DynamicConv2D
from dyx.zoo.dynamic_conv import CONVERSIONS, dynamic_conv
from dyx.zoo.mobilenetv2 import MobileNetV2
from dyx.zoo.weights import draw_weights

COUNTS = {
    "resnet18": (45_475_008, 19),
    "resnet50": (100_895_176, 52),
    "mobilenetv2-100": (11_149_736, 50),
    "mobilenetv3-small": (4_781_254, 33),
}
"""Trainable numbers, dynamic layers."""


@pytest.fixture(scope="module", params=list(COUNTS))
def network(request: pytest.FixtureRequest) -> Any:
    built = dynamic_conv(request.param)
    built.made_of = request.param
    built.eval()
    return built


def test_counts(network: Any, counts: Any) -> None:
    kinds = Counter(type(layer).__name__ for layer in network.sublayers())
    assert (counts(network)[0], kinds["DynamicConv2D"] + kinds["DYConv2D"]) == COUNTS[network.made_of]


@pytest.mark.parametrize("network", ["resnet18", "resnet50"], indirect=True)
def test_keys_and_shapes_are_the_references(network: Any, shapes: Any, official: Any) -> None:
    assert shapes(network) == official(f"dy4x_{network.made_of}")


def test_it_stands_at_the_final_temperature(network: Any) -> None:
    attentions = [
        layer.attention if isinstance(layer, DynamicConv2D) else layer.routing
        for layer in network.sublayers()
        if type(layer).__name__ in ("DynamicConv2D", "DYConv2D")
    ]
    assert {attention.temperature for attention in attentions} == {1.0}


def test_forward_gives_logits(network: Any) -> None:
    with paddle.no_grad():
        logits = network(paddle.randn([2, 3, 32, 32]))
    assert logits.shape == [2, 1000]
    assert bool(paddle.isfinite(logits).all())


@pytest.mark.parametrize("backbone", CONVERSIONS)
def test_with_one_expert_it_is_the_plain_network(backbone: str, difference: Any) -> None:
    network, plain = dynamic_conv(backbone, experts=1), CONVERSIONS[backbone].backbone()
    draw_weights(plain, (3, 64, 64), seed=0)
    own = network.state_dict()
    for key, tensor in plain.state_dict().items():
        own[key].set_value(tensor.reshape(own[key].shape))
    assert difference(network, plain) < 1e-5


@pytest.mark.parametrize(("width", "published"), [(1.0, 11.1e6), (0.75, 7.0e6), (0.5, 4.0e6)])
def test_reading_of_the_paper_holds_at_other_widths(width: float, published: float, counts: Any) -> None:
    network = replace(CONVERSIONS["mobilenetv2-100"], backbone=partial(MobileNetV2, width)).build(4)
    assert abs(counts(network)[0] / published - 1) < 0.015


def test_unknown_backbone_offers_the_nearest() -> None:
    with pytest.raises(UnknownName, match="backbone named 'resnet5'") as caught:
        dynamic_conv("resnet5")
    assert "resnet50" in caught.value.hint
