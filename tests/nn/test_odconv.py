"""Omni-dimensional dynamic convolution, against the official code."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest

from dyx.nn.odconv import ODConv2D

BOTH = pytest.mark.parametrize("golden", ["trimmed", "whole"], indirect=True)
FILES = pytest.mark.parametrize("name", ["od_layers_K4", "od_layers_K1"])


def official(wanted: Any, index: int, dtype: str = "float32") -> ODConv2D:
    """Layer `index` of a golden, in eval mode."""
    layer = ODConv2D(**wanted.meta["specs"][index])
    layer.to(dtype=dtype)
    wanted.load(layer, f"layers.{index}.")
    layer.eval()
    return layer


def image(wanted: Any, index: int, dtype: str = "float32") -> Any:
    return paddle.to_tensor(wanted.array(f"in/x{index}").astype(dtype))


@FILES
@BOTH
def test_outputs_are_the_official_ones(golden: Any, name: str) -> None:
    wanted = golden(name)
    assert {temperature for temperature, _, _ in wanted.outputs()} == {30, 1}
    for temperature, index, y in wanted.outputs():
        layer = official(wanted, index)
        layer.attention.temperature = temperature
        wanted.assert_agrees(layer(image(wanted, index)).numpy(), y, 2e-5)


@FILES
@BOTH
def test_float64_outputs_are_the_official_ones(golden: Any, name: str) -> None:
    """A fresh layer stands at temperature 1."""
    wanted = golden(name)
    assert wanted.outputs("out64/T")
    for temperature, index, y in wanted.outputs("out64/T"):
        assert temperature == 1
        exact = official(wanted, index, "float64")(image(wanted, index, "float64"))
        wanted.assert_agrees(exact.numpy(), y, 1e-12)


@FILES
@BOTH
def test_attentions_are_the_official_ones(golden: Any, name: str) -> None:
    wanted = golden(name)
    for _, index, _ in wanted.outputs("out64/T"):
        attentions = official(wanted, index).attention(image(wanted, index))
        for what, attention in zip(("channel", "filter", "spatial", "kernel"), attentions, strict=True):
            aux = wanted.array(f"aux/layer{index}.{what}_T1")
            flat = np.asarray(attention).reshape(len(aux) if aux.ndim else 1, -1)
            wanted.assert_agrees(flat, aux.reshape(flat.shape), 2e-5)


@pytest.mark.parametrize(
    ("golden", "name"),
    [("trimmed", "od_layers_K4"), ("whole", "od_layers_K4"), ("whole", "od_layers_K1")],
    indirect=["golden"],
)
def test_training_outputs_and_gradients_are_the_official_ones(golden: Any, name: str) -> None:
    """Of `<y, R>` in train mode; in float64, so that the official float32 is all that is inexact."""
    wanted = golden(name)
    assert wanted.outputs("out/train_T")
    for temperature, index, y in wanted.outputs("out/train_T"):
        layer, x = official(wanted, index, "float64"), image(wanted, index, "float64")
        layer.train()
        layer.attention.temperature, x.stop_gradient = temperature, False
        got = layer(x)
        wanted.assert_agrees(got.numpy(), y, 2e-5)
        (got * paddle.to_tensor(wanted.array(f"in/R{index}").astype("float64"))).sum().backward()
        wanted.assert_agrees(x.grad.numpy(), wanted.array(f"grad/x{index}"), 2e-5)
        trained = {key: parameter for key, parameter in layer.named_parameters() if not parameter.stop_gradient}
        gradients = wanted.state(layer, f"layers.{index}.", "grad/")
        assert set(gradients) == set(trained)
        for key, gradient in gradients.items():
            wanted.assert_agrees(trained[key].grad.numpy(), gradient, 2e-5)


def test_a_head_that_could_only_repeat_another_is_absent() -> None:
    def heads(*sizes: int, **more: int) -> set[str]:
        keys = ODConv2D(*sizes, **more).state_dict()
        return {key.split(".")[1] for key in keys if key.startswith("attention.")} - {"fc", "bn"}

    every = {"channel_fc", "filter_fc", "spatial_fc", "kernel_fc"}
    assert heads(8, 8, 3) == every
    assert heads(8, 16, 3, groups=8) == every
    assert heads(8, 8, 3, groups=8) == every - {"filter_fc"}
    assert heads(8, 8, 1) == every - {"spatial_fc"}
    assert heads(8, 8, 3, kernel_num=1) == every - {"kernel_fc"}


@pytest.mark.parametrize(("channels", "hidden"), [(64, 16), (256, 16), (264, 16), (512, 32)])
def test_hidden_channels(channels: int, hidden: int) -> None:
    attention = ODConv2D(channels, 8, 1).attention
    assert tuple(attention.fc.weight.shape) == (hidden, channels, 1, 1)
    assert attention.fc.bias is None


def test_initial_deviations() -> None:
    """√(2 / fan_out), of every kernel and every head; biases are zero."""
    layer = ODConv2D(512, 128, 3, groups=2, kernel_num=2)
    for expert in layer.weight.numpy():
        np.testing.assert_allclose(expert.std(), np.sqrt(2 / (128 * 9)), rtol=0.02)
    for head, fan_out in (("fc", 32), ("channel_fc", 512), ("filter_fc", 128)):
        conv = getattr(layer.attention, head)
        np.testing.assert_allclose(conv.weight.numpy().std(), np.sqrt(2 / fan_out), rtol=0.05)
    assert not layer.attention.filter_fc.bias.numpy().any()
