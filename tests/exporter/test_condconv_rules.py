"""Every fold of CondConv against its definition; its weights do not sum to one, and come beside the input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import paddle
import pytest

from dyx.errors import FoldRefused
from dyx.exporter.algebra import Affine
from dyx.exporter.apply import default_dtype
from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.plan import make_plan
from dyx.exporter.rule import Neighbour, Site, Target
from dyx.exporter.rules import RULES
from dyx.nn.condconv import CondConv2D, CondRouting, read_condconv

APART = ("condconv/mean-attention", "condconv/aggregate-scan")
"""One is not exact, the other folds depthwise layers alone."""
RULE_IDS = [rule.id for rule in RULES if rule.kind == "condconv" and rule.id not in APART]
GEOMETRIES: dict[str, dict[str, Any]] = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "3x3 strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "1x1": {"kernel_size": 1},
    "1x1 to many": {"kernel_size": 1, "out_channels": 16},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 4},
    "depthwise": {"kernel_size": 5, "padding": 2, "groups": 8, "out_channels": 8},
    "padded after the end": {"kernel_size": 3, "stride": 2, "padding": "SAME"},
}
NOT_TILED = {
    "3x3 strided": "its stride is [2, 2] and its dilation [1, 1]; tiles need 1",
    "dilated": "its stride is [1, 1] and its dilation [2, 2]; tiles need 1",
    "1x1": "its kernel is [1, 1]; tiles are for squares of 2 to 5",
    "1x1 to many": "its kernel is [1, 1]; tiles are for squares of 2 to 5",
    "grouped": "it has 4 groups; products between channels would be few",
    "depthwise": "it has 8 groups; products between channels would be few",
    "padded after the end": "its stride is [2, 2] and its dilation [1, 1]; tiles need 1",
}
TILED = ("condconv/winograd", "condconv/aggregate-winograd")
"""They have no fold for some of them, for these reasons; every other rule folds them all."""
FOLDS = [
    *((rule, name) for rule in RULE_IDS for name in GEOMETRIES if rule not in TILED or name not in NOT_TILED),
    ("condconv/aggregate-scan", "depthwise"),
]


def layer_of(out_channels: int = 12, bias: bool = True, **geometry: Any) -> Any:
    paddle.seed(3)
    layer = CondConv2D(8, out_channels, bias=bias, num_experts=3, **geometry)
    layer.eval()
    return layer.to(dtype="float64")


def inputs(batch: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(batch)
    x = random.uniform(0.2, 3, (batch, 1, 1, 1)) * random.standard_normal((batch, 8, 9, 7))
    return x, 1 / (1 + np.exp(-random.standard_normal((batch, 3))))


def definition(layer: Any, x: np.ndarray, weights: np.ndarray, affine: Affine | None) -> np.ndarray:
    """Sample by sample, with one ordinary convolution each."""
    made = []
    for image, row in zip(x, weights, strict=True):
        kernel = np.tensordot(row, layer.weight.numpy(), 1)
        bias = None if layer.bias is None else paddle.to_tensor(row @ layer.bias.numpy())
        walk = (layer.stride, layer.padding, layer.dilation, layer.groups)
        one = paddle.to_tensor(image[None])
        y = paddle.nn.functional.conv2d(one, paddle.to_tensor(kernel), bias, *walk).numpy()[0]
        made.append(y if affine is None else y * affine.scale[:, None, None] + affine.shift[:, None, None])
    return np.stack(made)


def site_of(layer: Any, affine: Affine | None) -> Site:
    x, weights = inputs(1)
    shape = definition(layer, x, weights, None).shape[1:]
    after = (Neighbour("norm", "batch-norm", None, affine),) if affine else ()
    return Site("layer", "condconv", "CondConv2D", read_condconv(layer), x.shape[1:], shape, None, after)


def folded(site: Site, rule: str, channels_last: bool = False) -> Any:
    (decision,) = make_plan([site], Target(tune_batch=8), (rule,)).decisions
    assert decision.offer.takes == site.norm
    with default_dtype("float64"):
        return decision.offer.build(SharedConstants(channels_last=channels_last))


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def some_affine(channels: int) -> Affine:
    random = np.random.default_rng(1)
    return Affine(random.uniform(-2, 2, channels), random.standard_normal(channels))


@pytest.mark.parametrize(("rule", "geometry"), FOLDS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("norm", [True, False], ids=["norm", "no norm"])
def test_fold_equals_definition(rule: str, geometry: str, bias: bool, norm: bool) -> None:
    layer = layer_of(bias=bias, **GEOMETRIES[geometry])
    affine = some_affine(layer.weight.shape[1]) if norm else None
    static = folded(site_of(layer, affine), rule)
    for batch in (1, 2, 5):
        x, weights = inputs(batch)
        wanted = definition(layer, x, weights, affine)
        assert relative(static(paddle.to_tensor(x), paddle.to_tensor(weights)).numpy(), wanted) < 1e-9
    single = static.to(dtype="float32")
    got = single(paddle.to_tensor(x.astype("float32")), paddle.to_tensor(weights.astype("float32")))
    assert relative(got.numpy(), wanted) < 1e-5


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_channels_last_change_no_answer(geometry: str) -> None:
    layer = layer_of(bias=True, **GEOMETRIES[geometry])
    static = folded(site_of(layer, None), "condconv/aggregate-kernel", channels_last=True)
    for batch in (1, 5):
        x, weights = inputs(batch)
        got = static(paddle.to_tensor(x), paddle.to_tensor(weights)).numpy()
        assert relative(got, definition(layer, x, weights, None)) < 1e-9


@pytest.mark.parametrize("rule", TILED)
@pytest.mark.parametrize("geometry", NOT_TILED)
def test_winograd_refuses_what_tiles_are_not_made_for(geometry: str, rule: str) -> None:
    with pytest.raises(FoldRefused) as caught:
        folded(site_of(layer_of(**GEOMETRIES[geometry]), None), rule)
    assert caught.value.refusals == {rule: NOT_TILED[geometry]}


@pytest.mark.parametrize("rule", RULE_IDS)
def test_weights_of_zero_and_one(rule: str) -> None:
    """The batch norm's shift stays whatever the weights sum to: it is no expert's."""
    layer = layer_of(kernel_size=3, padding=1)
    affine = some_affine(12)
    static = folded(site_of(layer, affine), rule)
    x, _ = inputs(3)
    weights = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    got = static(paddle.to_tensor(x), paddle.to_tensor(weights)).numpy()
    assert relative(got, definition(layer, x, weights, affine)) < 1e-9
    np.testing.assert_allclose(got[0], np.broadcast_to(affine.shift[:, None, None], got[0].shape), rtol=1e-12)


def test_mean_attention_is_a_static_convolution() -> None:
    layer, affine = layer_of(kernel_size=3, padding=1), some_affine(12)
    mean = np.array([0.2, 0.9, 0.5])
    site = replace(site_of(layer, affine), mean_attention=(mean,))
    static = folded(site, "condconv/mean-attention")
    x, weights = inputs(4)
    wanted = definition(layer, x, np.tile(mean, (4, 1)), affine)
    assert relative(static(paddle.to_tensor(x), paddle.to_tensor(weights)).numpy(), wanted) < 1e-9
    assert [tuple(tensor.shape) for tensor in static.parameters()] == [(12, 8, 3, 3), (12,)]
    with pytest.raises(FoldRefused, match="it needs calibration images"):
        folded(site_of(layer, affine), "condconv/mean-attention")


def test_router_of_a_block_is_computed_once() -> None:
    """Three convolutions share the weights; the static network has one router, the very layer of the dynamic one."""
    import dyx

    class Block(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.routing = CondRouting(3, 2)
            self.convs = paddle.nn.LayerList([CondConv2D(3, 3, 1, num_experts=2) for _ in range(3)])

        def forward(self, x: Any) -> Any:
            weights = self.routing(x)
            for conv in self.convs:
                x = conv(x, weights)
            return x.mean([2, 3])

    block = Block()
    static = dyx.fold(block, shape=(3, 8, 8))
    x = paddle.randn([3, 3, 8, 8])
    assert float((static(x) - block(x)).abs().max()) < 1e-5
    kinds = [type(layer).__name__ for layer in static.sublayers()]
    assert kinds.count("CondRouting") == 1
    assert "FoldedRouting" not in kinds
    assert "CondConv2D" not in kinds
