"""Conditionally parameterised convolution: a block of the reference code, and the definition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn import functional

from dyx.nn.condconv import CondConv2D, CondRouting

EXPERTS = 4


class Block(nn.Layer):
    """An inverted residual whose convolutions share one routing, and a grouped 3×3 convolution on its output."""

    def __init__(self) -> None:
        super().__init__()
        kind = {"bias": False, "num_experts": EXPERTS}
        self.routing_fn = CondRouting(16, EXPERTS)
        self.conv_pw, self.bn1 = CondConv2D(16, 48, 1, **kind), nn.BatchNorm2D(48)
        self.conv_dw, self.bn2 = CondConv2D(48, 48, 3, stride=2, padding=1, groups=48, **kind), nn.BatchNorm2D(48)
        self.conv_pwl, self.bn3 = CondConv2D(48, 24, 1, **kind), nn.BatchNorm2D(24)
        self.conv_full = CondConv2D(24, 24, 3, padding=1, groups=2, **kind)
        self.eval()

    def forward(self, x: Any) -> dict[str, Any]:
        routing = self.routing_fn(x)
        pw = functional.relu(self.bn1(self.conv_pw(x, routing)))
        dw = functional.relu(self.bn2(self.conv_dw(pw, routing)))
        pwl = self.bn3(self.conv_pwl(dw, routing))
        return {"routing": routing, "pw": pw, "dw": dw, "pwl": pwl, "full": self.conv_full(pwl, routing)}


def reference_block(golden: Any) -> tuple[Any, Block, Block]:
    """The golden, with timm's flat kernels in their shapes, and the block in float32 and float64."""
    single, double = Block(), Block()
    double.to(dtype="float64")
    wanted = golden("cond_block_sym")
    arrays = {key.replace("routing_fn.", "routing_fn.fc."): array for key, array in wanted.arrays.items()}
    for name, tensor in single.state_dict().items():
        if name.startswith("conv_"):
            arrays[f"sd/{name}"] = arrays[f"sd/{name}"].reshape(tensor.shape)
    wanted = replace(wanted, arrays=arrays)
    wanted.load(single)
    wanted.load(double)
    return wanted, single, double


@pytest.mark.parametrize("golden", ["trimmed", "whole"], indirect=True)
def test_a_block_is_the_references(golden: Any) -> None:
    wanted, single, double = reference_block(golden)
    x = wanted.array("in/x")
    outputs = single(paddle.to_tensor(x))
    keys = wanted.keys("out/")
    assert {"out/routing", "out/dw", "out/pwl", "out/full"} <= set(keys)
    for key in keys:
        wanted.assert_agrees(outputs[key.removeprefix("out/")].numpy(), wanted.array(key), 2e-5)
    exact = double(paddle.to_tensor(x.astype("float64")))["full"]
    wanted.assert_agrees(exact.numpy(), wanted.array("out64/full"), 1e-12)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("kernel", "geometry"), [(1, {}), (3, {"stride": 2, "padding": 2, "dilation": 2})])
def test_definition(kernel: int, geometry: dict[str, int], groups: int) -> None:
    """`Σ_e r_be (W_e * x_b + b_e)`, expert by expert, with weights that do not sum to one."""
    layer = CondConv2D(4, 6, kernel, groups=groups, num_experts=3, **geometry)
    layer.to(dtype="float64")
    random = np.random.default_rng(0)
    x = paddle.to_tensor(random.standard_normal((5, 4, 7, 8)))
    routing = paddle.to_tensor(random.random((5, 3)))
    wanted = sum(
        routing[:, e].reshape([-1, 1, 1, 1])
        * functional.conv2d(x, layer.weight[e], layer.bias[e], groups=groups, **geometry)
        for e in range(3)
    )
    np.testing.assert_allclose(layer(x, routing).numpy(), wanted.numpy(), atol=1e-12)


def test_experts_start_as_convolutions_of_their_own() -> None:
    layer = CondConv2D(8, 64, 3, groups=2, num_experts=3)
    bound = 1 / np.sqrt(4 * 9)
    for parameter in (layer.weight, layer.bias):
        for expert in parameter.numpy():
            assert 0.9 * bound < np.abs(expert).max() <= bound
            assert abs(expert.mean()) < 0.2 * bound


def test_parameters() -> None:
    assert {name: tuple(tensor.shape) for name, tensor in CondRouting(16, 8).state_dict().items()} == {
        "fc.weight": (16, 8),
        "fc.bias": (8,),
    }
    assert list(CondConv2D(4, 6, 1, bias=False).state_dict()) == ["weight"]
