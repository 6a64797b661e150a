"""`dyx.fold`: an ordinary Paddle Layer, and the dynamic one left as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest

import dyx
from dyx.errors import FoldDiffers, InvalidOption, ModelUnusable, UnknownName
from dyx.inputs import varied_images
from dyx.nn.dyconv import DYConv2D
from dyx.parity import TOLERANCE
from dyx.zoo import build
from dyx.zoo.weights import draw_weights


def network() -> Any:
    net = build("alexnet-dy")
    draw_weights(net, (3, 128, 128), 0)
    return net


@pytest.mark.parametrize(
    ("batch", "form", "layers", "norms"),
    [
        (None, "Winograd", 4, 1),  # the three dynamic convolutions and the static one of stride 1
        (1, "MixOutputs", 3, 2),  # those after static convolutions stay
    ],
)
def test_network_is_folded_with_its_batch_norms_and_without_dropout(
    batch: int | None, form: str, layers: int, norms: int
) -> None:
    net = network()
    static = dyx.fold(net, shape=(3, 128, 128), batch=batch)
    words = [type(layer).__name__ for layer in static.sublayers()]
    assert words.count(form) == layers
    assert {"Winograd", "MixOutputs"} & set(words) == {form}
    assert words.count("BatchNorm2D") == norms
    assert words.count("Conv2D") == 5 - layers
    assert "Dropout" not in words
    assert "DYConv2D" not in words
    images = varied_images((3, 128, 128), 5, np.random.default_rng(1))
    batches = [images[i : i + 1] for i in range(5)] + ([images] if batch is None else [])
    # Only constants are rounded in float64; how much arithmetic in float32 rounds depends on how many threads add up.
    for dtype, tolerance in (("float64", 2e-6), ("float32", TOLERANCE)):
        net.to(dtype=dtype), static.to(dtype=dtype)
        for one in batches:
            wanted = net(paddle.to_tensor(one.astype(dtype))).numpy()
            got = static(paddle.to_tensor(one.astype(dtype))).numpy()
            assert np.abs(got - wanted).max() < tolerance * np.abs(wanted).max()


def test_dynamic_network_stays_as_it_was() -> None:
    net = network()
    net.features[8].routing.temperature = 30
    before = {key: tensor.numpy() for key, tensor in net.state_dict().items()}
    dyx.fold(net, shape=(3, 128, 128), temperature=2)
    assert net.features[8].routing.temperature == 30
    assert type(net.features[8]) is DYConv2D
    for key, tensor in net.state_dict().items():
        assert tensor.dtype == paddle.float32
        np.testing.assert_array_equal(tensor.numpy(), before[key])


@pytest.mark.parametrize("batch", [None, 1])
def test_single_layer(batch: int | None) -> None:
    layer = DYConv2D(8, 6, 3, stride=2, padding=1, groups=2, num_experts=3)
    x = paddle.randn([1, 8, 11, 11])
    for rule in ("auto", "dyconv/mix-outputs", "dyconv/mix-inputs", "dyconv/aggregate-kernel"):
        static = dyx.fold(layer, rule=rule, batch=batch)
        assert float((static(x) - layer(x)).abs().max()) < 1e-5


def test_temperature_is_folded() -> None:
    layer = DYConv2D(8, 6, 3, padding=1, num_experts=2)
    x = 5 * paddle.randn([3, 8, 9, 9])
    layer.routing.temperature = 4.0
    wanted = layer(x)
    layer.routing.temperature = 30.0
    assert float((dyx.fold(layer, temperature=4.0)(x) - wanted).abs().max()) < 1e-5
    assert float((dyx.fold(layer, temperature=0.2)(x) - wanted).abs().max()) > 1e-4


@pytest.mark.parametrize("rule", ["dyconv/winograd", "dyconv/mix-outputs"])
def test_layers_under_two_names_are_replaced_under_both(rule: str) -> None:
    """The forward goes by one name; the trace knows the other, which was given first."""

    class Twice(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = DYConv2D(4, 6, 3, padding=1, num_experts=2), paddle.nn.BatchNorm2D(6)
            self.plain, self.after = paddle.nn.Conv2D(6, 6, 3), paddle.nn.BatchNorm2D(6)
            for norm in (self.norm, self.after):
                norm._mean.set_value(np.arange(6, dtype="float32"))
            self.chain = paddle.nn.Sequential(self.conv, self.norm, self.plain, self.after)

        def forward(self, x: Any) -> Any:
            return self.chain(x)

    net = Twice()
    net.eval()
    static = dyx.fold(net, rule=rule, shape=(4, 9, 9))
    kinds = [type(layer).__name__ for layer in static.sublayers()]
    assert "DYConv2D" not in kinds
    x = paddle.randn([3, 4, 9, 9])
    assert float((static(x) - net(x)).abs().max()) < 1e-5 * float(net(x).abs().max())


def test_layer_that_computes_something_else_than_its_name_says() -> None:
    class DYConv2D_(DYConv2D):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * 1.001

    DYConv2D_.__name__ = "DYConv2D"
    with pytest.raises(FoldDiffers, match=r"differs from the layer it replaces by 0\.00\d+ of max"):
        dyx.fold(DYConv2D_(8, 6, 3, padding=1, num_experts=2))


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (InvalidOption, "layer is 'str'", lambda: dyx.fold("alexnet-dy")),
        (InvalidOption, "temperature is 0", lambda: dyx.fold(DYConv2D(8, 6, 3), temperature=0)),
        (InvalidOption, "--batch is 0", lambda: dyx.fold(DYConv2D(8, 6, 3), batch=0)),
        (UnknownName, "no fold rule named 'fast'", lambda: dyx.fold(DYConv2D(8, 6, 3), rule="fast")),
        (ModelUnusable, "its input shape is not known", lambda: dyx.fold(build("alexnet-dy"))),
    ],
)
def test_calls_that_cannot_be_served(error: Any, words: str, call: Any) -> None:
    with pytest.raises(error, match=words):
        call()
