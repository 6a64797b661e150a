"""MobileNetV2 against Paddle's stock one."""

from __future__ import annotations

from typing import Any

import pytest
from paddle import nn
from paddle.vision import models as stock

from dyx.zoo.mobilenetv2 import MobileNetV2, mobilenetv2, round8
from dyx.zoo.spot import Spot, plain_conv, plain_linear
from dyx.zoo.weights import draw_weights

COUNTS = {1.0: (3_504_872, 34_164 - 52), 0.5: (1_968_680, 18_596 - 52)}


@pytest.mark.parametrize("width", COUNTS)
def test_is_the_stock_network(width: float, counts: Any, shapes: Any, difference: Any) -> None:
    network, other = mobilenetv2(width), stock.mobilenet_v2(scale=width)
    assert counts(network) == COUNTS[width]
    assert list(shapes(network).items()) == list(shapes(other).items())
    draw_weights(network, (3, 64, 64), seed=0)
    other.set_state_dict(network.state_dict())
    assert difference(network, other) < 1e-6


@pytest.mark.parametrize(
    ("channels", "rounded"),
    [(3, 8), (8, 8), (11.9, 16), (12, 16), (19.9, 24), (48, 48), (26.6, 24), (26.7, 32), (33.6, 32), (1280, 1280)],
)
def test_round8_goes_to_the_nearest_but_not_below_nine_tenths(channels: float, rounded: int) -> None:
    assert round8(channels) == rounded


def test_spots_name_the_setting_and_the_block() -> None:
    spots: list[Spot] = []

    def conv(spot: Spot, channels_in: int, channels_out: int, kernel: int, /, **geometry: Any) -> Any:
        spots.append(spot)
        return plain_conv(spot, channels_in, channels_out, kernel, **geometry)

    def linear(spot: Spot, channels_in: int, channels_out: int) -> Any:
        spots.append(spot)
        return plain_linear(spot, channels_in, channels_out)

    network = MobileNetV2(0.5, conv, classes=10, linear=linear)
    assert len(spots) == 53
    assert spots[:6] == [
        Spot(0, 0, "stem"),
        *(Spot(0, 0, role) for role in ("depthwise", "project")),
        *(Spot(1, 0, role) for role in ("expand", "depthwise", "project")),
    ]
    assert spots[6] == Spot(1, 1, "expand")
    assert spots[-2:] == [Spot(6, 0, "last"), Spot(6, 0, "classifier")]
    assert network.classifier[1].weight.shape == [1280, 10]


def test_classifier_without_dropout_stands_alone() -> None:
    assert isinstance(MobileNetV2(0.5, classes=10, dropout=None).classifier, nn.Linear)
    assert MobileNetV2(0.5, classes=10, dropout=0.1).classifier[0].p == 0.1
