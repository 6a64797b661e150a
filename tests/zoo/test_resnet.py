"""ResNets against Paddle's stock ones, and the order in which their convolutions are made."""

from __future__ import annotations

from typing import Any

import paddle
import pytest
from paddle.vision import models as stock

from dyx.nn.na import NA
from dyx.zoo.resnet import resnet18, resnet18_cifar, resnet18_na, resnet50
from dyx.zoo.spot import Spot, plain_conv
from dyx.zoo.weights import draw_weights

NETWORKS = {"resnet18": resnet18, "resnet50": resnet50, "resnet18-cifar": resnet18_cifar}
STOCKS = {
    "resnet18": stock.resnet18,
    "resnet50": stock.resnet50,
    "resnet18-cifar": lambda: stock.resnet18(num_classes=100),
}
COUNTS = {
    "resnet18": (11_689_512, 9_620 - 20),
    "resnet50": (25_557_032, 53_173 - 53),
    "resnet18-cifar": (11_227_812, 9_600),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_is_the_stock_network(name: str, counts: Any, shapes: Any, difference: Any) -> None:
    network, other = NETWORKS[name](), STOCKS[name]()
    assert counts(network) == COUNTS[name]
    assert list(shapes(network).items()) == list(shapes(other).items())
    draw_weights(network, (3, 64, 64), seed=0)
    other.set_state_dict(network.state_dict())
    assert difference(network, other) < 1e-6


class Recorder:
    """A ConvMaker that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Spot, int, int, int, int]] = []

    def __call__(self, spot: Spot, channels_in: int, channels_out: int, kernel: int, /, **geometry: Any) -> Any:
        self.asked.append((spot, channels_in, channels_out, kernel, geometry.get("stride", 1)))
        return plain_conv(spot, channels_in, channels_out, kernel, **geometry)


def test_downsample_is_made_first_and_registered_last() -> None:
    recorder = Recorder()
    network = resnet18(recorder)
    assert recorder.asked[:6] == [
        (Spot(0, 0, "stem"), 3, 64, 7, 2),
        (Spot(0, 0, "conv1"), 64, 64, 3, 1),
        (Spot(0, 0, "conv2"), 64, 64, 3, 1),
        (Spot(0, 1, "conv1"), 64, 64, 3, 1),
        (Spot(0, 1, "conv2"), 64, 64, 3, 1),
        (Spot(1, 0, "downsample"), 64, 128, 1, 2),
    ]
    assert len(recorder.asked) == 20
    block = [key for key in network.state_dict() if key.startswith("layer2.0.")]
    norm = [f"layer2.0.downsample.1.{name}" for name in ("weight", "bias", "_mean", "_variance")]
    assert block[-5:] == ["layer2.0.downsample.0.weight", *norm]


def test_bottleneck_strides_in_its_3x3_convolution() -> None:
    recorder = Recorder()
    resnet50(recorder)
    first = [
        (spot.role, channels_out, stride) for spot, _, channels_out, _, stride in recorder.asked if spot.stage == 1
    ]
    assert first[:4] == [("downsample", 512, 2), ("conv1", 128, 1), ("conv2", 128, 2), ("conv3", 512, 1)]
    assert [spot for spot, *_ in recorder.asked if spot.role == "downsample"] == [
        Spot(stage, 0, "downsample") for stage in range(4)
    ]


def test_na_gates_each_block_before_the_addition(counts: Any) -> None:
    network = resnet18_na()
    assert sum(counts(network)) == 11_237_428
    assert [key for key, layer in network.named_sublayers() if isinstance(layer, NA)] == [
        f"layer{stage}.{block}.gate" for stage in (1, 2, 3, 4) for block in (0, 1)
    ]
    network.eval()
    block = network.layer1[0]
    # In exact arithmetic NA multiplies by sigmoid(beta): by nothing here, and the gated branch vanishes.
    block.gate.beta.set_value(paddle.to_tensor([-200.0]))
    x = paddle.randn([2, 64, 8, 8])
    with paddle.no_grad():
        assert float((block(x) - paddle.nn.functional.relu(x)).abs().max()) == 0
        assert network(paddle.randn([2, 3, 64, 64])).shape == [2, 100]
