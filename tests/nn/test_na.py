"""Normalised attention: the articles' layer, which is a constant gate, and its authors' layer, which is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from dyx.nn.na import NA, NANet

BOTH = pytest.mark.parametrize("golden", ["trimmed", "whole"], indirect=True)


def sigmoid(score: Any) -> Any:
    return 1 / (1 + np.exp(-score))


@BOTH
def test_articles_layer_is_a_constant_gate_plus_noise(golden: Any) -> None:
    """Float32 noise alone moved the articles' own output by 3.3e-2; float64 has none to speak of."""
    wanted, single, double = golden("seed_na"), NA(), NA()
    double.to(dtype="float64")
    for layer in (single, double):
        wanted.load(layer)
    x = wanted.array("in/x")
    wanted.assert_agrees(single(paddle.to_tensor(x)).numpy(), wanted.array("aux/y_closed_form"), 5e-2)
    closed = x.astype("float64") * sigmoid(wanted.array("sd/beta").astype("float64"))
    wanted.assert_agrees(double(paddle.to_tensor(x.astype("float64"))).numpy(), closed, 1e-8)


def test_articles_layer_has_its_noise() -> None:
    """It is the layer as it is trained, and in float32 that is not the closed form."""
    random = np.random.default_rng(0)
    x, na = random.standard_normal((2, 48, 13, 13)), NA()
    assert na.gate(paddle.to_tensor(x.astype("float32"))).numpy().std() > 1e-4
    na.to(dtype="float64")
    assert na.gate(paddle.to_tensor(x)).numpy().std() < 1e-8


@BOTH
def test_authors_outputs(golden: Any) -> None:
    wanted, single, double = golden("na_original"), NANet(), NANet()
    double.to(dtype="float64")
    for layer in (single, double):
        wanted.load(layer)
    x = wanted.array("in/x")
    wanted.assert_agrees(single(paddle.to_tensor(x)).numpy(), wanted.array("out/y"), 2e-5)
    wanted.assert_agrees(double(paddle.to_tensor(x.astype("float64"))).numpy(), wanted.array("out64/y"), 1e-12)


def test_initial_gates() -> None:
    """The articles start at sigmoid(0), the authors at sigmoid(1)."""
    x = paddle.ones([2, 4, 3, 3]) + paddle.arange(4.0).reshape([1, 4, 1, 1])
    np.testing.assert_allclose(NANet().gate(x).numpy(), np.full((2, 4, 1, 1), sigmoid(1)), rtol=1e-6)
    na = NA()
    na.to(dtype="float64")
    np.testing.assert_allclose(na.gate(x.astype("float64")).numpy(), np.full((2, 4, 1, 1), 0.5), rtol=1e-8)


def test_parameters_are_two_scalars() -> None:
    assert {name: tuple(tensor.shape) for name, tensor in NA().state_dict().items()} == {"gamma": (1,), "beta": (1,)}
    assert {name: tuple(tensor.shape) for name, tensor in NANet().state_dict().items()} == {
        "weight2": (1,),
        "bias2": (1,),
    }


@pytest.mark.parametrize("kind", [NA, NANet])
def test_a_traced_layer_takes_any_batch(kind: type, tmp_path: Path) -> None:
    layer = kind()
    layer.eval()
    scale = layer.gamma if kind is NA else layer.weight2
    scale.set_value(np.array([0.0 if kind is NA else 1.7], dtype="float32"))  # NA's noise is no matter of this test
    paddle.jit.save(layer, str(tmp_path / "na"), [paddle.static.InputSpec([None, 6, 4, 5], "float32")])
    traced = paddle.jit.load(str(tmp_path / "na"))
    for batch in (1, 3):
        x = paddle.randn([batch, 6, 4, 5])
        np.testing.assert_allclose(traced(x).numpy(), layer(x).numpy(), atol=1e-5)
