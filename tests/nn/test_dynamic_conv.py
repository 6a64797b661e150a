"""Dynamic convolution in its ImageNet form, against the reference that published counts come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest

import dyx
from dyx.errors import LayerUnreadable
from dyx.nn.dynamic_conv import DynamicConv2D, read_dynamic_conv

BOTH = pytest.mark.parametrize("golden", ["trimmed", "whole"], indirect=True)


def reference(wanted: Any, index: int, dtype: str = "float32") -> DynamicConv2D:
    """Layer `index` of a golden."""
    layer = DynamicConv2D(**wanted.meta["specs"][index])
    layer.to(dtype=dtype)
    wanted.load(layer, f"layers.{index}.")
    return layer


def image(wanted: Any, index: int, dtype: str = "float32") -> Any:
    return paddle.to_tensor(wanted.array(f"in/x{index}").astype(dtype))


@BOTH
def test_outputs_are_the_references(golden: Any) -> None:
    wanted = golden("dy_layers")
    assert {temperature for temperature, _, _ in wanted.outputs()} == {34, 4, 1}
    for temperature, index, y in wanted.outputs():
        layer = reference(wanted, index)
        layer.attention.temperature = temperature
        wanted.assert_agrees(layer(image(wanted, index)).numpy(), y, 2e-5)


@BOTH
def test_float64_outputs_and_attention_are_the_references(golden: Any) -> None:
    wanted = golden("dy_layers")
    assert wanted.outputs("out64/T")
    for temperature, index, y in wanted.outputs("out64/T"):
        layer, x = reference(wanted, index, "float64"), image(wanted, index, "float64")
        layer.attention.temperature = temperature
        wanted.assert_agrees(layer(x).numpy(), y, 1e-12)
        wanted.assert_agrees(layer.attention(x).numpy(), wanted.array(f"aux/layer{index}.attn_T1"), 2e-5)


def test_a_fresh_layer_stands_at_temperature_34() -> None:
    assert DynamicConv2D(4, 6, 1).attention.temperature == 34


@pytest.mark.parametrize(("channels", "hidden"), [(3, 4), (4, 2), (64, 17)])
def test_parameters(channels: int, hidden: int) -> None:
    """A picture's routing has as many hidden channels as there are experts."""
    state = DynamicConv2D(channels, 6, 3).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "weight": (4, 6, channels, 3, 3),
        "bias": (4, 6),
        "attention.fc1.weight": (hidden, channels, 1, 1),
        "attention.fc2.weight": (4, hidden, 1, 1),
        "attention.fc2.bias": (4,),
    }


def test_initial_values() -> None:
    """Experts are uniform within √(6 / fan_in), the attention is normal with √(2 / fan_out), biases are zero."""
    layer = DynamicConv2D(512, 64, 3, groups=4)
    bound = np.sqrt(6 / (128 * 9))
    for expert in layer.weight.numpy():
        assert 0.99 * bound < np.abs(expert).max() <= bound
    np.testing.assert_allclose(layer.attention.fc1.weight.numpy().std(), np.sqrt(2 / 129), rtol=0.02)
    np.testing.assert_allclose(layer.attention.fc2.weight.numpy().std(), np.sqrt(2 / 4), rtol=0.1)
    assert not layer.bias.numpy().any()


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_layer_is_read_and_folded(bias: bool) -> None:
    layer = DynamicConv2D(8, 6, 3, stride=2, padding=1, groups=2, bias=bias, K=3, temperature=5)
    read = read_dynamic_conv(layer)
    assert (read.experts, read.channels_in, read.channels_out) == (3, 8, 6)
    assert read.routing.temperature == 5
    assert read.routing.fc1_weight.shape == (3, 8)
    assert not read.routing.fc1_bias.any()
    x = 3 * paddle.randn([4, 8, 9, 9])
    assert float((dyx.fold(layer, temperature=5)(x) - layer(x)).abs().max()) < 1e-5
    assert float((dyx.fold(layer)(x) - layer(x)).abs().max()) > 1e-4, "it is folded at 1 unless told otherwise"


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("it has no attribute 'attention'", lambda layer: delattr(layer, "attention")),
        ("it has no attribute 'fc2'", lambda layer: delattr(layer.attention, "fc2")),
        ("it has no attribute 'temperature'", lambda layer: delattr(layer.attention, "temperature")),
        (
            "its routing's last layer has shape",
            lambda layer: setattr(layer.attention, "fc2", paddle.nn.Conv2D(3, 5, 1)),
        ),
    ],
)
def test_layer_that_is_not_what_its_name_says(words: str, change: Any) -> None:
    layer = DynamicConv2D(8, 6, 3, K=4)
    change(layer)
    with pytest.raises(LayerUnreadable, match=words):
        read_dynamic_conv(layer)
