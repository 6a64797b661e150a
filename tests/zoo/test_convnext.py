"""ConvNeXt against its definition, with linear layers on channels-last maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.nn import functional

from dyx.zoo.convnext import ConvNeXt, convnext_tiny
from dyx.zoo.spot import Spot, plain_conv

KEYS = {
    "downsample_layers.0.0.weight": (96, 3, 4, 4),
    "downsample_layers.0.1.weight": (96,),
    "downsample_layers.1.0.bias": (96,),
    "downsample_layers.1.1.weight": (192, 96, 2, 2),
    "stages.2.8.dwconv.weight": (384, 1, 7, 7),
    "stages.2.8.norm.bias": (384,),
    "stages.2.8.pwconv1.weight": (1536, 384, 1, 1),
    "stages.2.8.pwconv2.bias": (384,),
    "stages.2.8.gamma": (1, 384, 1, 1),
    "norm.weight": (768,),
    "head.weight": (768, 1000),
}


def test_convnext_tiny_has_the_official_keys_and_count(counts: Any, shapes: Any) -> None:
    network = convnext_tiny()
    assert counts(network) == (28_589_128, 0)
    found = shapes(network)
    assert len(found) == 182
    assert {key: found.get(key) for key in KEYS} == KEYS
    np.testing.assert_allclose(network.stages[0][0].gamma.numpy(), 1e-6)
    network.eval()
    with paddle.no_grad():
        assert network(paddle.randn([2, 3, 64, 64])).shape == [2, 1000]


def test_forward_is_the_definition() -> None:
    network = ConvNeXt((1, 2), (8, 16), classes=5)
    random = np.random.default_rng(0)
    for tensor in network.state_dict().values():
        tensor.set_value(random.normal(0.2, 0.5, tensor.shape).astype("float32"))
    network.to(dtype="float64")
    image = paddle.to_tensor(random.standard_normal((2, 3, 32, 24)))
    np.testing.assert_allclose(network(image).numpy(), _defined(network.state_dict(), image).numpy(), rtol=1e-9)


def _defined(state: Any, image: Any) -> Any:
    """The paper's network as its official code writes it, of two stages with 1 and 2 blocks."""

    def weights(name: str) -> tuple[Any, Any]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        return functional.layer_norm(x, x.shape[-1:], *weights(name), 1e-6)

    def linear(x: Any, name: str) -> Any:
        weight, bias = weights(name)
        return paddle.matmul(x, weight.flatten(1), transpose_y=True) + bias

    def conv(x: Any, name: str, **geometry: int) -> Any:
        return functional.conv2d(x.transpose([0, 3, 1, 2]), *weights(name), **geometry).transpose([0, 2, 3, 1])

    def block(x: Any, name: str) -> Any:
        y = norm(conv(x, f"{name}.dwconv", padding=3, groups=x.shape[-1]), f"{name}.norm")
        y = linear(functional.gelu(linear(y, f"{name}.pwconv1")), f"{name}.pwconv2")
        return x + state[f"{name}.gamma"].flatten() * y

    x = image.transpose([0, 2, 3, 1])
    x = norm(conv(x, "downsample_layers.0.0", stride=4), "downsample_layers.0.1")
    x = block(x, "stages.0.0")
    x = conv(norm(x, "downsample_layers.1.0"), "downsample_layers.1.1", stride=2)
    x = block(block(x, "stages.1.0"), "stages.1.1")
    return paddle.matmul(norm(x.mean([1, 2]), "norm"), state["head.weight"]) + state["head.bias"]


def test_it_traces_with_a_free_batch(tmp_path: Path) -> None:
    network = ConvNeXt((1, 1), (8, 16), classes=5)
    network.eval()
    image = paddle.static.InputSpec([None, 3, 32, 32], "float32", "image")
    paddle.jit.save(network, str(tmp_path / "model"), input_spec=[image])
    images = paddle.randn([3, 3, 32, 32])
    np.testing.assert_allclose(paddle.jit.load(str(tmp_path / "model"))(images), network(images), atol=1e-6)


def test_convolutions_are_made_in_the_official_order() -> None:
    spots: list[Spot] = []

    def conv(spot: Spot, channels_in: int, channels_out: int, kernel: int, /, **geometry: Any) -> Any:
        spots.append(spot)
        assert geometry.pop("bias")
        return plain_conv(spot, channels_in, channels_out, kernel, **geometry)

    ConvNeXt((1, 1, 2, 1), (4, 8, 12, 16), conv, classes=3)
    assert spots[:4] == [Spot(0, 0, "stem"), *(Spot(stage, 0, "downsample") for stage in (1, 2, 3))]
    roles = ("depthwise", "expand", "project")
    places = ((0, 0), (1, 0), (2, 0), (2, 1), (3, 0))
    assert spots[4:] == [Spot(*place, role) for place in places for role in roles]
