"""MobileNetV2 with CondConv: counts, keys of the reference, shared routing, and the plain network at one expert."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from paddle.nn import functional

from dyx.nn.condconv import CondRouting
from dyx.zoo.condconv import CondMobileNetV2, InvertedResidual, condconv_mobilenetv2
from dyx.zoo.mobilenetv2 import mobilenetv2
from dyx.zoo.weights import draw_weights

COUNTS = {1.0: (22_877_496, 34_164 - 52), 0.5: (13_612_920, 18_596 - 52)}


@pytest.fixture(scope="module", params=list(COUNTS))
def network(request: pytest.FixtureRequest) -> Any:
    built = condconv_mobilenetv2(request.param)
    built.width = request.param
    built.eval()
    return built


def test_counts_are_the_references(network: Any, counts: Any) -> None:
    assert counts(network) == COUNTS[network.width]


def test_keys_and_shapes_are_the_references(network: Any, shapes: Any, official: Any) -> None:
    reference = official("condconv8x_mobilenetv2_100")
    assert list(shapes(network)) == list(reference)
    if network.width == 1.0:
        assert shapes(network) == reference


def test_forward_gives_logits(network: Any) -> None:
    with paddle.no_grad():
        logits = network(paddle.randn([2, 3, 32, 32]))
    assert logits.shape == [2, 1000]
    assert bool(paddle.isfinite(logits).all())


def test_the_last_six_blocks_and_the_classifier_have_a_routing(network: Any) -> None:
    routed = [path for path, layer in network.named_sublayers() if isinstance(layer, CondRouting)]
    assert routed == [*(f"features.{index}.route" for index in range(12, 18)), "classifier_route"]


def test_one_routing_of_the_input_serves_the_whole_block() -> None:
    block = InvertedResidual(6, 6, 1, expansion=2, experts=3)
    block.to(dtype="float64")
    random = np.random.default_rng(0)
    for key, tensor in block.state_dict().items():
        positive = key.endswith("_variance")
        tensor.set_value(random.uniform(0.5, 2, tensor.shape) if positive else random.normal(0, 1, tensor.shape))
    block.eval()
    x = paddle.to_tensor(random.standard_normal((4, 6, 5, 7)))
    wanted = [_defined(block, x[index : index + 1]) for index in range(4)]
    np.testing.assert_allclose(block(x).numpy(), paddle.concat(wanted).numpy(), rtol=1e-9, atol=1e-12)


def _defined(block: Any, x: Any) -> Any:
    """One sample, by ordinary convolutions."""
    scores = paddle.matmul(x.mean([2, 3]), block.route.fc.weight) + block.route.fc.bias
    routing = functional.sigmoid(scores)[0]

    def conv(x: Any, layer: Any, norm: Any, **geometry: int) -> Any:
        kernel = (routing.reshape([-1, 1, 1, 1, 1]) * layer.weight).sum(0)
        return norm(functional.conv2d(x, kernel, **geometry))

    y = conv(x, block.pw, block.bn_pw).clip(0, 6)
    y = conv(y, block.dw, block.bn_dw, padding=1, groups=12).clip(0, 6)
    return x + conv(y, block.pw_linear, block.bn_pw_linear)


def test_with_one_expert_it_is_the_plain_network(difference: Any) -> None:
    network, plain = CondMobileNetV2(0.5, experts=1), mobilenetv2(0.5)
    draw_weights(plain, (3, 64, 64), seed=0)
    plain.classifier[1].bias.set_value(paddle.zeros([1000]))
    for layer in network.sublayers():
        if isinstance(layer, CondRouting):
            layer.fc.weight.set_value(paddle.zeros_like(layer.fc.weight))
            layer.fc.bias.set_value(paddle.to_tensor([100.0]))  # whose sigmoid is 1
    own = [tensor for key, tensor in network.state_dict().items() if "route" not in key]
    *features, classifier, _bias = plain.state_dict().values()
    for mine, tensor in zip(own, [*features, classifier.t()], strict=True):
        mine.set_value(tensor.reshape(mine.shape))
    assert difference(network, plain) < 1e-5
