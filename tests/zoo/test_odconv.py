"""ODConv backbones: counts, official keys, and the plain network where no attention attends."""

from __future__ import annotations

from collections import Counter
from typing import Any

import paddle
import pytest

from dyx.errors import UnknownName
from dyx.nn.odconv import ODConv2D
from dyx.zoo.odconv import BACKBONES, odconv
from dyx.zoo.weights import draw_weights

COUNTS = {
    ("resnet18", 1): (11_943_944, 10_244, 16),
    ("resnet18", 2): (22_930_056, 10_244, 16),
    ("resnet18", 4): (44_901_640, 10_244, 16),
    ("resnet50", 1): (28_635_112, 56_101, 48),
    ("resnet50", 2): (49_314_696, 56_101, 48),
    ("resnet50", 4): (90_670_888, 56_101, 48),
    ("mobilenetv2-100", 1): (4_940_185, 36_751, 51),
    ("mobilenetv2-100", 2): (7_131_719, 36_751, 51),
    ("mobilenetv2-100", 4): (11_512_149, 36_751, 51),
    ("mobilenetv2-050", 1): (2_425_537, 20_471, 51),
    ("mobilenetv2-050", 2): (3_096_167, 20_471, 51),
    ("mobilenetv2-050", 4): (4_435_501, 20_471, 51),
}
"""Trainable numbers, buffered ones with PyTorch's counter in each batch norm, ODConv layers."""

OFFICIAL = {
    ("resnet18", 1): "odconv1x_resnet18",
    ("resnet18", 4): "odconv4x_resnet18",
    ("resnet50", 2): "odconv2x_resnet50",
    ("mobilenetv2-050", 1): "odconv1x_mobilenetv2_050",
    ("mobilenetv2-050", 4): "odconv4x_mobilenetv2_050",
}


@pytest.fixture(scope="module", params=list(COUNTS), ids=lambda made: f"{made[0]}-{made[1]}")
def network(request: pytest.FixtureRequest) -> Any:
    built = odconv(*request.param)
    built.made_of = request.param
    built.eval()
    return built


def test_counts_are_the_official_ones(network: Any, counts: Any) -> None:
    kinds = Counter(type(layer).__name__ for layer in network.sublayers())
    trained, statistics = counts(network)
    assert (trained, statistics + kinds["BatchNorm2D"], kinds["ODConv2D"]) == COUNTS[network.made_of]


@pytest.mark.parametrize("network", OFFICIAL, indirect=True, ids=OFFICIAL.get)
def test_keys_and_shapes_are_the_official_ones(network: Any, shapes: Any, official: Any) -> None:
    assert shapes(network) == official(OFFICIAL[network.made_of])


def test_forward_gives_logits(network: Any) -> None:
    with paddle.no_grad():
        logits = network(paddle.randn([2, 3, 32, 32]))
    assert logits.shape == [2, 1000]
    assert bool(paddle.isfinite(logits).all())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_without_attention_it_is_the_plain_network(backbone: str, difference: Any) -> None:
    network, plain = odconv(backbone, 1), BACKBONES[backbone]()
    draw_weights(plain, (3, 64, 64), seed=0)
    own = network.state_dict()
    for key, tensor in plain.state_dict().items():
        own[key].set_value(tensor.reshape(own[key].shape))
    for layer in network.sublayers():
        if isinstance(layer, ODConv2D):
            for head in (layer.attention.channel_fc, layer.attention.filter_fc, layer.attention.spatial_fc):
                if head is not None:
                    head.weight.set_value(paddle.zeros_like(head.weight))
                    head.bias.set_value(paddle.full_like(head.bias, 100.0))  # whose sigmoid is 1
    assert difference(network, plain) < 1e-5


def test_unknown_backbone_offers_the_nearest() -> None:
    with pytest.raises(UnknownName, match="backbone named 'resnet81'") as caught:
        odconv("resnet81", 1)
    assert "resnet18" in caught.value.hint
