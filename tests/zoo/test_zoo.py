"""The reference models: one test iterates the table."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from dyx.errors import UnknownName
from dyx.inputs import varied_images
from dyx.nn.adapters import dynamic_layers, set_temperature
from dyx.zoo import MODELS, PAPERS, PUBLISHED, Model, build, find_model
from dyx.zoo.weights import draw_weights

NAMES = [model.name for model in MODELS]
ALEXNET_DY_KEYS = [
    *(f"features.0.{key}" for key in ("weight", "bias")),
    *(f"features.1.{key}" for key in ("weight", "bias", "_mean", "_variance")),
    *(f"features.4.{key}" for key in ("weight", "bias")),
    *(f"features.5.{key}" for key in ("weight", "bias", "_mean", "_variance")),
    *(
        key
        for conv in (8, 11, 14)
        for key in (
            *(f"features.{conv}.{name}" for name in ("weight", "bias")),
            *(f"features.{conv}.routing.net.{i}.{name}" for i in (0, 2) for name in ("weight", "bias")),
            *(f"features.{conv + 1}.{name}" for name in ("weight", "bias", "_mean", "_variance")),
        )
    ),
    *(f"classifier.{i}.{key}" for i in (0, 3, 6) for key in ("weight", "bias")),
]


TRAINABLE = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "convnext-tiny": 28_589_128,
    "mobilenetv2-100": 3_504_872,
    "mobilenetv2-050": 1_968_680,
    "kw1d4x-resnet18": 4_031_768,
    "kw1d2x-resnet18": 7_431_044,
    "kw1x-resnet18": 11_932_148,
    "kw2x-resnet18": 23_242_127,
    "kw4x-resnet18": 45_862_085,
    "kw1d2x-resnet50": 17_638_264,
    "kw1x-resnet50": 28_052_310,
    "kw4x-resnet50": 102_015_144,
    "kw1d2x-mobilenetv2-100": 2_654_396,
    "kw1x-mobilenetv2-100": 5_168_146,
    "kw4x-mobilenetv2-100": 11_379_382,
    "kw1d2x-mobilenetv2-050": 1_466_888,
    "kw1x-mobilenetv2-050": 2_854_522,
    "kw4x-mobilenetv2-050": 4_648_587,
    "kw1x-convnext-tiny": 39_370_674,
    "odconv1x-resnet18": 11_943_944,
    "odconv2x-resnet18": 22_930_056,
    "odconv4x-resnet18": 44_901_640,
    "odconv1x-resnet50": 28_635_112,
    "odconv2x-resnet50": 49_314_696,
    "odconv4x-resnet50": 90_670_888,
    "odconv1x-mobilenetv2-100": 4_940_185,
    "odconv2x-mobilenetv2-100": 7_131_719,
    "odconv4x-mobilenetv2-100": 11_512_149,
    "odconv1x-mobilenetv2-050": 2_425_537,
    "odconv2x-mobilenetv2-050": 3_096_167,
    "odconv4x-mobilenetv2-050": 4_435_501,
    "condconv8x-mobilenetv2-100": 22_877_496,
    "dy4x-resnet18": 45_475_008,
    "dy4x-resnet50": 100_895_176,
}
"""What the official code counts: trainable parameters alone."""

WITH_STATISTICS = {
    "alexnet-bn": 7_526_794,
    "alexnet-dy": 8_324_368,
    "alexnet": 7_524_042,
    "alexnet-eca": 7_524_061,
    "alexnet-na": 7_524_052,
    "resnet18-na": 11_237_428,
    "resnet18-cifar": 11_237_412,
}
"""What the articles count: running statistics included."""


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_model_is_what_its_row_says(model: Model) -> None:
    network = build(model.name)
    counts = {key: int(np.prod(tensor.shape)) for key, tensor in network.state_dict().items()}
    trainable = sum(count for key, count in counts.items() if not key.endswith(("._mean", "._variance")))
    assert sum(counts.values()) == model.parameters == WITH_STATISTICS.get(model.name, model.parameters)
    assert trainable == TRAINABLE.get(model.name, trainable)
    assert not network.training
    assert model.preprocess.size == model.shape[1:]
    assert model.paper
    if model.baseline:
        assert find_model(model.baseline).data == model.data


def test_every_count_belongs_to_a_model() -> None:
    assert {*TRAINABLE, *WITH_STATISTICS, *PUBLISHED} <= set(NAMES)
    assert {model.builder for model in MODELS} == set(PAPERS)


ARTICLES = [model for model in MODELS if model.name in WITH_STATISTICS]


@pytest.mark.parametrize("model", ARTICLES, ids=[model.name for model in ARTICLES])
def test_parameter_count_is_paddles(model: Model) -> None:
    assert paddle.summary(build(model.name), (1, *model.shape))["total_params"] == model.parameters


def test_state_dict_keys_of_alexnet_dy_are_the_articles() -> None:
    state = build("alexnet-dy").state_dict()
    assert sorted(state) == sorted(ALEXNET_DY_KEYS)
    assert tuple(state["features.8.weight"].shape) == (2, 192, 128, 3, 3)
    assert tuple(state["features.8.bias"].shape) == (2, 192)
    assert tuple(state["features.8.routing.net.0.weight"].shape) == (32, 128, 1, 1)


def test_unknown_model_offers_the_nearest() -> None:
    with pytest.raises(UnknownName, match="there is no model named 'alexnet-dyn'") as caught:
        find_model("alexnet-dyn")
    assert caught.value.nearest == "alexnet-dy"


def attention_over(network: paddle.nn.Layer, images: np.ndarray) -> list[np.ndarray]:
    seen: list[np.ndarray] = []
    hooks = [
        layer.routing.register_forward_post_hook(lambda _layer, _inputs, output: seen.append(output.numpy()))
        for layer, _ in dynamic_layers(network).values()
    ]
    network(paddle.to_tensor(images))
    for hook in hooks:
        hook.remove()
    return seen


def test_drawn_weights_route_strongly_and_their_statistics_fit() -> None:
    network = build("alexnet-dy")
    draw_weights(network, (3, 128, 128), 0)
    images = varied_images((3, 128, 128), 24, np.random.default_rng(9))
    for attention in attention_over(network, images):
        assert attention[:, 0].std() > 0.15
        assert 0.2 < attention[:, 0].mean() < 0.8
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            assert layer._mean.numpy().std() > 0.01
            assert not np.allclose(layer._variance.numpy(), 1)
    logits = network(paddle.to_tensor(images)).numpy()
    assert np.isfinite(logits).all()
    assert 0.05 < logits.std() < 100


def test_drawn_weights_are_seeded() -> None:
    states = []
    for seed in (0, 0, 1):
        network = build("alexnet-dy")
        draw_weights(network, (3, 128, 128), seed)
        states.append(network.state_dict()["features.8.routing.net.2.weight"].numpy())
    np.testing.assert_array_equal(states[0], states[1])
    assert not np.array_equal(states[0], states[2])


def test_hotter_routing_is_flatter() -> None:
    network = build("alexnet-dy")
    draw_weights(network, (3, 128, 128), 0)
    images = varied_images((3, 128, 128), 8, np.random.default_rng(9))
    cold = attention_over(network, images)[0]
    set_temperature(network, 30.0)
    hot = attention_over(network, images)[0]
    assert hot[:, 0].std() < cold[:, 0].std() / 10
