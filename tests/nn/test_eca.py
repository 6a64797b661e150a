"""Efficient channel attention, against the articles' own code and against its definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from dyx.nn.eca import ECA


@pytest.mark.parametrize("golden", ["trimmed", "whole"], indirect=True)
def test_outputs_are_the_articles(golden: Any) -> None:
    wanted, layer = golden("seed_eca_k3"), ECA(48)
    wanted.load(layer)
    y = layer(paddle.to_tensor(wanted.array("in/x")))
    wanted.assert_agrees(y.numpy(), wanted.array("out/y"), 2e-5)


def test_a_gate_depends_on_its_neighbours_alone() -> None:
    """Against the definition, in float64: each of five channels around a channel has a factor of its own."""
    random = np.random.default_rng(0)
    x, weight = random.standard_normal((3, 8, 4, 5)), random.standard_normal(5)
    layer = ECA(8, 5)
    layer.to(dtype="float64")
    layer.conv.weight.set_value(weight.reshape(1, 1, 5))
    means = np.pad(x.mean((2, 3)), ((0, 0), (2, 2)))
    scores = np.stack([means[:, c : c + 5] @ weight for c in range(8)], axis=1)
    gate = layer.gate(paddle.to_tensor(x)).numpy()
    np.testing.assert_allclose(gate[:, :, 0, 0], 1 / (1 + np.exp(-scores)), rtol=1e-12)
    np.testing.assert_allclose(layer(paddle.to_tensor(x)).numpy(), x * gate, rtol=1e-12)


def test_its_only_parameter() -> None:
    assert {name: tuple(tensor.shape) for name, tensor in ECA(192, 5).state_dict().items()} == {
        "conv.weight": (1, 1, 5)
    }


def test_a_traced_layer_takes_any_batch(tmp_path: Path) -> None:
    layer = ECA(6)
    layer.eval()
    paddle.jit.save(layer, str(tmp_path / "eca"), [paddle.static.InputSpec([None, 6, 4, 5], "float32")])
    traced = paddle.jit.load(str(tmp_path / "eca"))
    for batch in (1, 3):
        x = paddle.randn([batch, 6, 4, 5])
        np.testing.assert_allclose(traced(x).numpy(), layer(x).numpy(), atol=1e-6)
