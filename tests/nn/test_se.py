"""Squeeze and excitation, against its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from dyx.nn.se import SqueezeExcite

SHAPE = (6, 8, 5, 4)


@pytest.fixture
def layer() -> SqueezeExcite:
    layer = SqueezeExcite(8, 3)
    layer.to(dtype="float64")
    layer.fc1.bias.set_value(np.array([0.5, -0.2, 1.0]))
    layer.fc2.weight.set_value(6 * layer.fc2.weight)
    layer.eval()
    return layer


@pytest.fixture
def images() -> np.ndarray:
    random = np.random.default_rng(1)
    return random.standard_normal(SHAPE) + 3 * random.standard_normal((*SHAPE[:2], 1, 1))


def test_gate_is_the_definition(layer: SqueezeExcite, images: np.ndarray) -> None:
    """In float64, where Paddle's own hard sigmoid (slope .1666667) is off by 1e-7."""
    fc1, fc2 = (conv.weight.numpy()[:, :, 0, 0] for conv in (layer.fc1, layer.fc2))
    hidden = np.maximum(images.mean((2, 3)) @ fc1.T + layer.fc1.bias.numpy(), 0)
    wanted = np.clip(hidden @ fc2.T + layer.fc2.bias.numpy() + 3, 0, 6) / 6
    assert (wanted == 0).any()
    assert (wanted == 1).any()
    assert ((wanted > 0) & (wanted < 1)).any()
    gate = layer.gate(paddle.to_tensor(images)).numpy()
    np.testing.assert_allclose(gate[:, :, 0, 0], wanted, rtol=1e-12, atol=1e-15)
    y = layer(paddle.to_tensor(images)).numpy()
    np.testing.assert_allclose(y, images * wanted[:, :, None, None], rtol=1e-12, atol=1e-15)


def test_parameters(layer: SqueezeExcite) -> None:
    assert {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()} == {
        "fc1.weight": (3, 8, 1, 1),
        "fc1.bias": (3,),
        "fc2.weight": (8, 3, 1, 1),
        "fc2.bias": (8,),
    }


def test_a_traced_layer_takes_any_batch(tmp_path: Path) -> None:
    layer = SqueezeExcite(8, 3)
    layer.eval()
    paddle.jit.save(layer, str(tmp_path / "se"), [paddle.static.InputSpec([None, 8, 5, 4], "float32")])
    traced = paddle.jit.load(str(tmp_path / "se"))
    for batch in (1, 3):
        x = paddle.randn([batch, 8, 5, 4])
        np.testing.assert_allclose(traced(x).numpy(), layer(x).numpy(), atol=1e-6)
