"""The article's NA is a constant: in float64 it is within 1e-9 of it, and the constant goes into what stands before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

import dyx
from dyx.census import take_census
from dyx.errors import FoldRefused, LayerUnreadable
from dyx.inputs import input_pool
from dyx.nn.dyconv import DYConv2D
from dyx.nn.na import NA, read_na


def layer(gamma: float = 1.7, beta: float = 0.3) -> NA:
    made = NA()
    made.gamma.set_value(np.array([gamma], "float32"))
    made.beta.set_value(np.array([beta], "float32"))
    return made


class Net(nn.Layer):
    """What stands before the layer, the layer, and logits."""

    def __init__(self, before: Any) -> None:
        super().__init__()
        self.before, self.na = before, layer()

    def forward(self, x: Any) -> Any:
        return self.na(self.before(x)).mean([2, 3])


def test_float64_is_within_1e_9_of_the_constant_on_every_kind_of_input() -> None:
    images, kinds = input_pool((3, 24, 24), 0)
    exact = layer().to(dtype="float64")
    x = images.astype(np.float64)
    y = exact(paddle.to_tensor(x)).numpy()
    wanted = x / (1 + np.exp(-np.float64(np.float32(0.3))))
    for kind in np.unique(kinds):
        rows = kinds == kind
        assert np.abs(y - wanted)[rows].max() <= 1e-9 * max(np.abs(wanted[rows]).max(), 1e-30), kind


@pytest.mark.parametrize("before", ["conv", "conv without bias", "batch norm", "relu"])
def test_constant_goes_into_what_stands_before(before: str) -> None:
    norm = nn.BatchNorm2D(3)
    norm._mean.set_value(np.array([0.5, -1, 2], "float32"))
    norm.bias.set_value(np.array([0.5, 1, 2], "float32"))
    made = {
        "conv": nn.Conv2D(3, 4, 3),
        "conv without bias": nn.Conv2D(3, 4, 3, bias_attr=False),
        "batch norm": norm,
        "relu": nn.ReLU(),
    }[before]
    net = Net(made)
    net.eval()
    static = dyx.fold(net, shape=(3, 12, 12))
    kinds = [type(found).__name__ for found in static.sublayers()]
    assert "NA" not in kinds
    assert ("Scale" in kinds) == (before == "relu"), "a multiplication is left only where nothing can carry it"
    x = paddle.to_tensor(np.random.default_rng(0).standard_normal((3, 3, 12, 12)))
    wanted = (net.before.to(dtype="float64")(x) / (1 + np.exp(-np.float64(np.float32(0.3))))).mean([2, 3]).numpy()
    got = static.to(dtype="float64")(x).numpy()
    assert np.abs(got - wanted).max() < 1e-6 * np.abs(wanted).max()


def test_convolution_that_others_read_too_stays() -> None:
    class Shared(Net):
        def forward(self, x: Any) -> Any:
            y = self.before(x)
            return self.na(y).mean([2, 3]) + y.max([2, 3])

    net = Shared(nn.Conv2D(3, 4, 3))
    net.eval()
    static = dyx.fold(net, shape=(3, 12, 12))
    assert "Scale" in [type(found).__name__ for found in static.sublayers()]


def test_one_channel_is_refused() -> None:
    with pytest.raises(FoldRefused, match="standardised over channels, and there is one only"):
        dyx.fold(layer(), shape=(1, 5, 5))


def test_batch_norm_that_a_dynamic_convolution_takes_is_left_to_it() -> None:
    class Both(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.na = DYConv2D(8, 4, 3, num_experts=2), nn.BatchNorm2D(4), layer()

        def forward(self, x: Any) -> Any:
            return self.na(self.norm(self.conv(x))).mean([2, 3])

    net = Both()
    net.norm._mean.set_value(np.array([0.5, -1, 2, 1], "float32"))
    net.eval()
    static = dyx.fold(net, shape=(8, 12, 12))
    kinds = [type(found).__name__ for found in static.sublayers()]
    assert "BatchNorm2D" not in kinds
    assert kinds.count("Scale") == 1
    x = paddle.to_tensor(np.random.default_rng(0).standard_normal((3, 8, 12, 12)))
    factor = 1 / (1 + np.exp(-np.float64(np.float32(0.3))))
    exact = net.to(dtype="float64")
    wanted = (exact.norm(exact.conv(x)) * factor).mean([2, 3]).numpy()
    assert np.abs(static.to(dtype="float64")(x).numpy() - wanted).max() < 1e-6 * np.abs(wanted).max()


def test_exported_network_costs_what_plain_alexnet_costs(tmp_path: Path) -> None:
    made = [dyx.export(name, out=tmp_path / name, tune_batch=2) for name in ("alexnet", "alexnet-na")]
    plain, with_na = ([(found.operators, found.macs, found.parameters) for found in take_census(one)] for one in made)
    assert with_na == plain
    notes = made[1].manifest["notes"]
    assert any(note.startswith("NA is the constant sigmoid(beta)") for note in notes)
    (both,) = [note for note in notes if note.startswith("in float32 the network is itself")]
    noise, worst = made[1].manifest["parity"]["noise"], made[1].manifest["parity"]["verdicts"]
    assert f"{max(noise.values()):.1e} of max |y| away from float64" in both
    assert max(noise.values()) > 1e-4
    assert max(verdict["relative_error"] for verdict in worst) < 1e-5, "the files have none of that noise"


def test_layer_that_is_not_what_its_name_says() -> None:
    with pytest.raises(LayerUnreadable, match="it has no attribute 'gamma'"):
        read_na(nn.ReLU())
    odd = layer()
    odd.beta = odd.create_parameter([3])
    with pytest.raises(LayerUnreadable, match=r"its 'beta' has shape \[3\], not one number"):
        read_na(odd)
