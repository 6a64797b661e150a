"""MobileNetV3-Small against Paddle's stock one."""

from __future__ import annotations

from typing import Any

import pytest
from paddle.vision import models as stock

from dyx.zoo.mobilenetv3 import MobileNetV3Small, mobilenetv3_small
from dyx.zoo.weights import draw_weights


def test_is_the_stock_network(counts: Any, shapes: Any, difference: Any) -> None:
    network, other = mobilenetv3_small(), stock.mobilenet_v3_small()
    assert counts(network) == (2_542_856, 12_112)
    assert list(shapes(network).values()) == list(shapes(other).values())
    draw_weights(network, (3, 64, 64), seed=0)
    for ours, theirs in zip(network.state_dict().values(), other.state_dict().values(), strict=True):
        theirs.set_value(ours)
    assert difference(network, other) < 1e-5


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("features.0.0.weight", [16, 3, 3, 3]),
        ("features.1.block.0.0.weight", [16, 1, 3, 3]),
        ("features.1.block.1.fc1.weight", [8, 16, 1, 1]),
        ("features.2.block.2.1.bias", [24]),
        ("features.4.block.2.fc2.bias", [96]),
        ("features.12.1._variance", [576]),
        ("classifier.0.weight", [576, 1024]),
        ("classifier.3.bias", [1000]),
    ],
)
def test_keys_are_torchvisions(key: str, shape: list[int]) -> None:
    assert mobilenetv3_small().state_dict()[key].shape == shape


def test_a_wider_classifier_gives_the_count_published_first(counts: Any) -> None:
    assert counts(MobileNetV3Small(hidden=1280))[0] == 2_946_568
