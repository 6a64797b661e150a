"""Every fold of a dynamic convolution against its definition, written out here sample by sample in numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import paddle
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from dyx.errors import FoldRefused
from dyx.exporter.algebra import Affine
from dyx.exporter.apply import default_dtype
from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.plan import make_plan
from dyx.exporter.rule import FLOAT_BYTES, Neighbour, Offer, Refusal, Site, Target
from dyx.exporter.rules import RULES
from dyx.nn.attention import Routing
from dyx.nn.dyconv import DyConvParameters
from dyx.nn.geometry import Geometry

APART = ("dyconv/mean-attention", "dyconv/aggregate-scan")
"""One is not exact, the other folds depthwise layers alone."""
RULE_IDS = [rule.id for rule in RULES if rule.kind == "dyconv" and rule.id not in APART]
GEOMETRIES = {
    "3x3": {"k": (3, 3), "padding": (1, 1)},
    "3x3 strided": {"k": (3, 3), "stride": (2, 2), "padding": (1, 1)},
    "3x3 dilated": {"k": (3, 3), "padding": (2, 2), "dilation": (2, 2)},
    "no padding": {"k": (3, 3)},
    "uneven": {"k": (1, 5), "stride": (2, 1), "padding": (0, 2)},
    "1x1": {"k": (1, 1)},
    "1x1 strided": {"k": (1, 1), "stride": (2, 2)},
    "1x1 to many": {"k": (1, 1), "c_out": 16},
    "5x5": {"k": (5, 5), "padding": (2, 2)},
    "grouped": {"k": (3, 3), "padding": (1, 1), "groups": 2},
    "grouped strided": {"k": (3, 3), "stride": (2, 2), "padding": (1, 1), "groups": 4},
    "depthwise": {"k": (3, 3), "padding": (1, 1), "groups": 8, "c_out": 8},
}
NOT_TILED = {
    "3x3 strided": "its stride is [2, 2] and its dilation [1, 1]; tiles need 1",
    "3x3 dilated": "its stride is [1, 1] and its dilation [2, 2]; tiles need 1",
    "uneven": "its stride is [2, 1] and its dilation [1, 1]; tiles need 1",
    "1x1": "its kernel is [1, 1]; tiles are for squares of 2 to 5",
    "1x1 strided": "its stride is [2, 2] and its dilation [1, 1]; tiles need 1",
    "1x1 to many": "its kernel is [1, 1]; tiles are for squares of 2 to 5",
    "grouped": "it has 2 groups; products between channels would be few",
    "grouped strided": "its stride is [2, 2] and its dilation [1, 1]; tiles need 1",
    "depthwise": "it has 8 groups; products between channels would be few",
}
TILED = ("dyconv/winograd", "dyconv/aggregate-winograd")
"""They have no fold for some of them, for these reasons; every other rule folds them all."""
FOLDS = [
    *((rule, name) for rule in RULE_IDS for name in GEOMETRIES if rule not in TILED or name not in NOT_TILED),
    ("dyconv/aggregate-scan", "depthwise"),
]


def make_layer(
    k: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    c_out: int = 12,
    experts: int = 3,
    bias: bool = True,
    temperature: float = 1.0,
) -> DyConvParameters:
    random = np.random.default_rng(7)
    c_in = 8
    routing = Routing(
        random.standard_normal((5, c_in)),
        random.standard_normal(5),
        3 * random.standard_normal((experts, 5)),
        random.standard_normal(experts),
        temperature,
    )
    weight = random.standard_normal((experts, c_out, c_in // groups, *k))
    offsets = random.standard_normal((experts, c_out)) if bias else None
    return DyConvParameters(weight, offsets, Geometry(k, stride, padding, dilation, groups), routing)


def attention_of(routing: Routing, image: np.ndarray) -> np.ndarray:
    pooled = image.mean(axis=(1, 2))
    scores = routing.fc2_weight @ np.maximum(routing.fc1_weight @ pooled + routing.fc1_bias, 0) + routing.fc2_bias
    raised = np.exp((scores - scores.max()) / routing.temperature)
    return raised / raised.sum()


def convolve(image: np.ndarray, weight: np.ndarray, layer: DyConvParameters) -> np.ndarray:
    """One image `(C_in, H, W)` with one kernel `(C_out, C_in/g, kh, kw)`: windows, taps, sums."""
    walk = layer.geometry
    (up, left), (kh, kw), (dh, dw) = walk.padding, walk.kernel, walk.dilation
    padded = np.pad(image, ((0, 0), (up, up), (left, left)))
    windows = sliding_window_view(padded, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), axis=(1, 2))
    windows = windows[:, :: walk.stride[0], :: walk.stride[1], ::dh, ::dw]
    per_group = len(image) // walk.groups
    outputs = weight.shape[0] // walk.groups
    parts = [
        np.einsum(
            "chwij,ocij->ohw",
            windows[g * per_group : (g + 1) * per_group],
            weight[g * outputs : (g + 1) * outputs],
        )
        for g in range(walk.groups)
    ]
    return np.concatenate(parts)


def definition(layer: DyConvParameters, images: np.ndarray, affine: Affine | None = None) -> np.ndarray:
    """`conv(x_b, Σ a_bk W_k) + Σ a_bk b_k`, then batch norm."""
    made = []
    for image in images:
        a = attention_of(layer.routing, image)
        y = convolve(image, np.tensordot(a, layer.weight, 1), layer)
        if layer.bias is not None:
            y = y + (a @ layer.bias)[:, None, None]
        made.append(y if affine is None else y * affine.scale[:, None, None] + affine.shift[:, None, None])
    return np.stack(made)


def varied(batch: int, size: tuple[int, int] = (9, 7)) -> np.ndarray:
    random = np.random.default_rng(batch)
    gain, offset = random.uniform(0.2, 3, (batch, 1, 1, 1)), random.uniform(-2, 2, (batch, 8, 1, 1))
    return gain * random.standard_normal((batch, 8, *size)) + offset


def site_of(layer: DyConvParameters, images: np.ndarray, affine: Affine | None = None) -> Site:
    shape = definition(layer, images[:1]).shape[1:]
    after = (Neighbour("norm", "batch-norm", None, affine),) if affine else ()
    return Site("layer", "dyconv", "DYConv2D", layer, images.shape[1:], shape, None, after)


def folded(
    layer: DyConvParameters,
    images: np.ndarray,
    rule: str,
    affine: Affine | None = None,
    channels_last: bool = False,
    **target: Any,
) -> Any:
    plan = make_plan([site_of(layer, images, affine)], Target(**target), (rule,))
    with default_dtype("float64"):
        return plan.decisions[0].offer.build(SharedConstants(channels_last=channels_last))


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def some_affine(channels: int) -> Affine:
    random = np.random.default_rng(1)
    return Affine(random.uniform(-2, 2, channels), random.standard_normal(channels))


@pytest.mark.parametrize(("rule", "geometry"), FOLDS)
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("with_norm", [True, False], ids=["norm", "no norm"])
def test_fold_equals_definition(rule: str, geometry: str, with_bias: bool, with_norm: bool) -> None:
    layer = make_layer(**GEOMETRIES[geometry], bias=with_bias, temperature=1.7)
    affine = some_affine(layer.channels_out) if with_norm else None
    static = folded(layer, varied(3), rule, affine)
    for batch in (1, 2, 5):
        images = varied(batch)
        wanted = definition(layer, images, affine)
        assert relative(static(paddle.to_tensor(images)).numpy(), wanted) < 1e-9
    single = static.to(dtype="float32")
    assert relative(single(paddle.to_tensor(images.astype("float32"))).numpy(), wanted) < 1e-5


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("with_norm", [True, False], ids=["norm", "no norm"])
def test_channels_last_change_no_answer(geometry: str, with_norm: bool) -> None:
    layer = make_layer(**GEOMETRIES[geometry], temperature=1.7)
    affine = some_affine(layer.channels_out) if with_norm else None
    static = folded(layer, varied(3), "dyconv/aggregate-kernel", affine, channels_last=True)
    for batch in (1, 5):
        images = varied(batch)
        assert relative(static(paddle.to_tensor(images)).numpy(), definition(layer, images, affine)) < 1e-9


@pytest.mark.parametrize(("c_out", "ones"), [(16, True), (15, False)])
def test_a_bias_is_an_input_of_ones_where_few_channels_become_many(c_out: int, ones: bool) -> None:
    """Then nothing is added to the output, which is the larger of both maps."""
    layer = make_layer((1, 1), c_out=c_out)
    static = folded(layer, varied(1), "dyconv/aggregate-kernel", some_affine(c_out))
    assert (static.matrix.ones, static.bias is None) == (ones, ones)
    rows = folded(layer, varied(1), "dyconv/aggregate-kernel", some_affine(c_out), channels_last=True)
    assert rows.matrix.by_rows and rows.bias is not None, "there it would be copied into each row"
    bare = folded(replace(layer, bias=None), varied(1), "dyconv/aggregate-kernel")
    assert (bare.matrix.ones, bare.bias) == (False, None)


@pytest.mark.parametrize("rule", TILED)
@pytest.mark.parametrize("geometry", NOT_TILED)
def test_winograd_refuses_what_tiles_are_not_made_for(geometry: str, rule: str) -> None:
    with pytest.raises(FoldRefused) as caught:
        folded(make_layer(**GEOMETRIES[geometry]), varied(1), rule)
    assert caught.value.refusals == {rule: NOT_TILED[geometry]}


@pytest.mark.parametrize("rule", RULE_IDS)
@pytest.mark.parametrize("experts", [1, 2, 4])
def test_experts_and_routing_extremes(rule: str, experts: int) -> None:
    from dataclasses import replace

    layer = make_layer((3, 3), padding=(1, 1), experts=experts)
    images = varied(4)
    for scale, shift in ((0.0, 0.0), (0.0, 1e4), (1e3, 0.0)):  # equal, one-hot for all, one-hot by sample
        bias = shift * np.eye(experts)[-1]
        routing = replace(layer.routing, fc2_weight=scale * layer.routing.fc2_weight, fc2_bias=bias)
        extreme = replace(layer, routing=routing)
        got = folded(extreme, images, rule)(paddle.to_tensor(images)).numpy()
        assert relative(got, definition(extreme, images)) < 1e-9


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_computed_kernel_at_batch_one(geometry: str) -> None:
    layer = make_layer(**GEOMETRIES[geometry])
    affine = some_affine(layer.channels_out)
    images = varied(1)
    static = folded(layer, images, "dyconv/aggregate-kernel", affine, batch=1, formats=("onnx",))
    assert type(static).__name__ == "ComputedKernel"
    assert relative(static(paddle.to_tensor(images)).numpy(), definition(layer, images, affine)) < 1e-9


def test_same_padding_word() -> None:
    from dataclasses import replace

    layer = make_layer((3, 3), padding=(1, 1))
    images = varied(2)
    wanted = definition(layer, images)
    site = replace(site_of(layer, images), layer=replace(layer, geometry=replace(layer.geometry, padding="SAME")))
    with default_dtype("float64"):
        answers = {rule.id: rule.offer(site, Target()) for rule in RULES if rule.id in RULE_IDS}
        for rule in TILED:
            assert answers.pop(rule) == Refusal("its padding is 'SAME', not numbers")
        for offer in answers.values():
            assert isinstance(offer, Offer)
            assert relative(offer.build(SharedConstants())(paddle.to_tensor(images)).numpy(), wanted) < 1e-9


def test_costs_count_what_the_rules_do() -> None:
    layer = make_layer((3, 3), padding=(1, 1), experts=2)
    images = varied(1)
    static_conv = 12 * 8 * 9 * 63
    site, target = site_of(layer, images), Target(tune_batch=64)
    offers = {rule.id: rule.offer(site, target) for rule in RULES if rule.id in RULE_IDS}
    macs = {name: offer.cost.macs for name, offer in offers.items() if isinstance(offer, Offer)}
    assert macs == {
        "dyconv/mix-outputs": 2 * (static_conv + 12 * 63),
        "dyconv/mix-inputs": 2 * (static_conv + 8 * 63),
        "dyconv/aggregate-kernel": static_conv + 2 * 12 * 8 * 9,
        # 3×2 tiles of 6 inputs, 36 products and 4×4 outputs.
        "dyconv/aggregate-winograd": 36 * (2 * 8 * 12 + 6 * (36 * 8 + 8 * 12 + 16 * 12)),
        # 9×7 outputs of one tile with 14 products on each axis; one of the two experts is scaled.
        "dyconv/winograd": 196 * 2 * 8 * 12 + 8 * (14 * 7 * 9 + 196 * 7 + 196) + 12 * (196 * 7 + 14 * 7 * 9),
    }
    assert offers["dyconv/aggregate-kernel"].widest == 8 * 9 * 63
    small = {rule.id: rule.offer(replace(site, output_shape=(12, 2, 2)), target) for rule in RULES if rule.id in offers}
    assert small["dyconv/aggregate-kernel"].widest == 12 * 8 * 9


@pytest.mark.parametrize(
    ("walk", "floats"),
    [
        ({"k": (1, 1)}, 8 * 63 + 12 * 63),
        ({"k": (3, 3), "padding": (1, 1)}, 5 * 8 * 63 + 2 * 9 * 8 * 63 + 3 * 12 * 63),
        ({"k": (1, 1), "stride": (2, 2)}, 5 * 8 * 63 + 2 * 8 * 20 + 3 * 12 * 20),
    ],
    ids=["as it lies", "rows", "fewer rows"],
)
def test_only_what_is_gathered_pays_for_rows(walk: dict[str, Any], floats: int) -> None:
    """Priced as if they were gathered, pointwise layers of dy4x-mobilenetv3-small were folded by slower rules."""
    layer = make_layer(**walk, bias=False)
    (rule,) = (rule for rule in RULES if rule.id == "dyconv/aggregate-kernel")
    offer = rule.offer(site_of(layer, varied(1)), Target(tune_batch=8))
    assert isinstance(offer, Offer)
    assert offer.cost.bytes == FLOAT_BYTES * (floats + 2 * layer.weight[0].size)


def test_kernels_that_do_not_fit_in_memory_are_refused() -> None:
    layer, images = make_layer((3, 3), padding=(1, 1)), varied(1)
    with pytest.raises(FoldRefused, match=r"one kernel per sample takes \d+ MiB at batch 1000000, over 1024") as caught:
        make_plan([site_of(layer, images)], Target(tune_batch=10**6), ("dyconv/aggregate-kernel",))
    assert "a smaller --tune-batch" in caught.value.hint


def test_every_refusal_is_shown_for_a_kernel_of_another_dimension() -> None:
    layer = make_layer((3, 3), padding=(1, 1))
    walk = Geometry((3, 3, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1)
    volume = DyConvParameters(layer.weight[..., None], layer.bias, walk, layer.routing)
    site = Site("deep.conv", "dyconv", "DYConv3D", volume, (8, 9, 7, 3), (12, 9, 7, 3))
    with pytest.raises(FoldRefused) as caught:
        make_plan([site], Target())
    assert set(caught.value.refusals) == {*RULE_IDS, *APART}
    assert "no rule folds deep.conv: dyconv/mix-outputs: its kernel has 3 spatial axes" in str(caught.value)
