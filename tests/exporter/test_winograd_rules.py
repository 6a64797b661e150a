"""Folds in a transform domain against their definition, written out here sample by sample in numpy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import paddle
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from paddle import nn

from dyx.errors import FoldRefused
from dyx.exporter.algebra import Affine
from dyx.exporter.apply import default_dtype
from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.folded.winograd import Winograd, from_positions, to_positions
from dyx.exporter.plan import make_plan
from dyx.exporter.rule import Neighbour, Offer, Site, Target
from dyx.exporter.rules import winograd
from dyx.exporter.winograd import FACTORS, rounding_error
from dyx.nn.attention import Routing
from dyx.nn.dyconv import DyConvParameters
from dyx.nn.experts import Experts
from dyx.nn.geometry import Geometry

KINDS = ("conv", "dyconv", "condconv")
GEOMETRIES: dict[str, dict[str, Any]] = {
    "3, one tile": {"k": 3, "padding": (1, 1), "size": (7, 7)},
    "3, tiles over the end": {"k": 3, "padding": (1, 1), "size": (16, 11)},
    "3, no padding": {"k": 3, "size": (9, 5)},
    "3, wide padding": {"k": 3, "padding": (2, 0), "size": (4, 13)},
    "2": {"k": 2, "padding": (0, 1), "size": (9, 6)},
    "4": {"k": 4, "padding": (1, 2), "size": (6, 9)},
    "5": {"k": 5, "padding": (2, 2), "size": (5, 18)},
}
FOLLOWERS: dict[str, tuple[Any, ...]] = {
    "alone": (),
    "norm": ("norm",),
    "relu": ("relu",),
    "norm relu": ("norm", "relu"),
    "pool 2/2": (nn.MaxPool2D(2),),
    "norm relu pool 2/2": ("norm", "relu", nn.MaxPool2D(2, 2)),
    "relu pool 3/2": ("relu", nn.MaxPool2D(3, 2)),
    "norm pool 3×2/1×2": ("norm", nn.MaxPool2D((3, 2), (1, 2))),
    "relu pool 2/3": ("relu", nn.MaxPool2D(2, 3)),
}
C_IN, C_OUT = 5, 6
GEOMETRY_5 = Geometry((5, 5), (1, 1), (2, 2), (1, 1), 1)


@pytest.fixture(params=[False, True], ids=["factors for each tile", "tiles gathered"])
def gathered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Of maps with several tiles down only the tilings of one form, whatever they cost."""
    tilings, wanted = winograd._tilings, bool(request.param)
    monkeypatch.setattr(
        winograd,
        "_tilings",
        lambda *args: [one for one in tilings(*args) if one.gathered == (wanted and one.axes[0].tiles > 1)],
    )
    return wanted


def layer_of(
    kind: str,
    k: int = 3,
    padding: tuple[int, int] = (0, 0),
    experts: int = 3,
    bias: bool = True,
    **walk: Any,
) -> Any:
    random = np.random.default_rng(k)
    experts = 1 if kind == "conv" else experts
    weight = random.standard_normal((experts, C_OUT, C_IN // walk.get("groups", 1), k, k))
    biases = random.standard_normal((experts, C_OUT)) if bias else None
    geometry = Geometry(
        (k, k), walk.get("stride", (1, 1)), padding, walk.get("dilation", (1, 1)), walk.get("groups", 1)
    )
    if kind != "dyconv":
        return Experts(weight, biases, geometry)
    arrays = [random.standard_normal(shape) for shape in ((4, C_IN), 4, (experts, 4), experts)]
    return DyConvParameters(weight, biases, geometry, Routing(*arrays, 1.7))


def some_affine() -> Affine:
    random = np.random.default_rng(1)
    return Affine(random.uniform(-2, 2, C_OUT), random.standard_normal(C_OUT))


def site_of(kind: str, layer: Any, size: tuple[int, int], followers: tuple[Any, ...] = ()) -> Site:
    after = []
    for found in followers:
        if found == "norm":
            after.append(Neighbour("norm", "batch-norm", None, some_affine()))
        elif found == "relu":
            after.append(Neighbour("relu", "relu", nn.ReLU()))
        else:
            after.append(Neighbour("pool", "max-pool", found))
    pads = layer.geometry.padding if isinstance(layer.geometry.padding, tuple) else (0, 0)
    made = tuple(n + 2 * pad - k + 1 for n, pad, k in zip(size, pads, layer.geometry.kernel, strict=True))
    shape = (layer.weight.shape[1], *made)
    return Site("layer", kind, "Layer", layer, (layer.channels_in, *size), shape, None, tuple(after))


def offer_of(site: Site, **target: Any) -> Offer:
    (decision,) = make_plan([site], Target(**target), (f"{site.kind}/winograd",)).decisions
    return decision.offer


def refusal_of(site: Site, **target: Any) -> str:
    with pytest.raises(FoldRefused) as caught:
        offer_of(site, **target)
    return str(caught.value.refusals[f"{site.kind}/winograd"])


def built(site: Site, **target: Any) -> Any:
    with default_dtype("float64"):
        return offer_of(site, **target).build(SharedConstants())


def images_of(size: tuple[int, int], batch: int) -> np.ndarray:
    random = np.random.default_rng(batch)
    gain, offset = random.uniform(0.2, 3, (batch, 1, 1, 1)), random.uniform(-2, 2, (batch, C_IN, 1, 1))
    return gain * random.standard_normal((batch, C_IN, *size)) + offset


def attention_of(layer: Any, images: np.ndarray) -> np.ndarray:
    """`(B, K)`: softmax of the routing, sigmoids beside the input, or one."""
    if isinstance(layer, DyConvParameters):
        routing = layer.routing
        hidden = np.maximum(images.mean(axis=(2, 3)) @ routing.fc1_weight.T + routing.fc1_bias, 0)
        scores = (hidden @ routing.fc2_weight.T + routing.fc2_bias) / routing.temperature
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))
    shape = (len(images), layer.experts)
    return 1 / (1 + np.exp(-np.random.default_rng(len(images)).standard_normal(shape)))


def definition(site: Site, images: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """The layer and what follows it, one after the other."""
    layer, made = site.layer, []
    for image, a in zip(images, attention, strict=True):
        padded = np.pad(image, [(0, 0), *((pad, pad) for pad in layer.geometry.padding)])
        windows = sliding_window_view(padded, layer.geometry.kernel, axis=(1, 2))
        y = np.einsum("chwij,ocij->ohw", windows, np.tensordot(a, layer.weight, 1), optimize=True)
        y = y if layer.bias is None else y + (a @ layer.bias)[:, None, None]
        for follower in site.after:
            if follower.affine is not None:
                y = y * follower.affine.scale[:, None, None] + follower.affine.shift[:, None, None]
            elif follower.kind == "relu":
                y = np.maximum(y, 0)
            else:
                kernel = np.broadcast_to(follower.layer.ksize, 2)
                stride = kernel if follower.layer.stride is None else np.broadcast_to(follower.layer.stride, 2)
                y = sliding_window_view(y, tuple(kernel), axis=(1, 2))[:, :: stride[0], :: stride[1]].max((3, 4))
        made.append(y)
    return np.stack(made)


def answer(static: Any, site: Site, images: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Of the static layer; weights come beside the input only where no routing makes them."""
    dtype = str(static.read_h.dtype).rpartition(".")[2]
    beside = [attention] if site.kind == "condconv" else []
    return np.asarray(static(*(paddle.to_tensor(array.astype(dtype)) for array in (images, *beside))).numpy())


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    assert got.shape == wanted.shape
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("followers", FOLLOWERS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_fold_equals_definition(kind: str, geometry: str, followers: str, bias: bool, gathered: bool) -> None:
    walk = dict(GEOMETRIES[geometry])
    size = walk.pop("size")
    conv = layer_of(kind, bias=bias, **walk)
    site = site_of(kind, conv, size, FOLLOWERS[followers])
    assert offer_of(site).takes == tuple(found.path for found in site.after)
    static = built(site)
    assert static.gathered == (gathered and static.tiles_down > 1)
    for batch in (1, 2, 7):
        images = images_of(size, batch)
        attention = np.ones((batch, 1)) if kind == "conv" else attention_of(conv, images)
        wanted = definition(site, images, attention)
        assert relative(answer(static, site, images, attention), wanted) < 1e-9
    got = answer(static.to(dtype="float32"), site, images, attention)
    assert got.dtype == np.float32
    assert relative(got, wanted) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inputs", FACTORS)
@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_every_tile(kind: str, inputs: int, k: int, gathered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Down the map more than one tile, and one across; the rule takes the tile that it is left."""
    monkeypatch.setattr("dyx.exporter.rules.winograd.FACTORS", {inputs: FACTORS[inputs]})
    outputs = inputs - k + 1
    size = (outputs + k, k + max(outputs // 2, 1) - 1)
    conv = layer_of(kind, k)
    site = site_of(kind, conv, size, FOLLOWERS["norm relu"])
    if outputs < 1 or inputs <= k:
        assert refusal_of(site) == "no tile is small enough for its kernel"
        return
    if (inputs, k) == (10, 2):
        error = rounding_error(10, 2)
        assert refusal_of(site) == f"tiles of 10 inputs round by {error:.1e} of max |y| in float32, over 5.0e-06"
    offer = offer_of(site, tolerance=4e-5)
    products = (inputs + len(FACTORS[inputs][1])) ** 2
    assert offer.form.startswith(f"2 × {products} products for {(outputs + 1) * max(outputs // 2, 1)} outputs")
    assert (", mixed in between" in offer.form) == (kind != "conv")
    assert offer.form.endswith(", tiles gathered") == gathered
    images = images_of(size, 3)
    attention = np.ones((3, 1)) if kind == "conv" else attention_of(conv, images)
    wanted = definition(site, images, attention)
    assert relative(answer(built(site, tolerance=4e-5), site, images, attention), wanted) < 1e-9


@pytest.mark.parametrize("experts", [1, 2, 4])
def test_dynamic_convolution_at_equal_and_one_hot_attention(experts: int) -> None:
    conv, images = layer_of("dyconv", padding=(1, 1), experts=experts), images_of((9, 8), 4)
    for scale, shift in ((1.0, 0.0), (0.0, 0.0), (0.0, 1e4), (1e3, 0.0)):  # own, equal, one-hot, one-hot by sample
        routing = replace(
            conv.routing, fc2_weight=scale * conv.routing.fc2_weight, fc2_bias=shift * np.eye(experts)[-1]
        )
        site = site_of("dyconv", replace(conv, routing=routing), (9, 8), FOLLOWERS["norm"])
        attention = attention_of(site.layer, images)
        assert relative(answer(built(site), site, images, attention), definition(site, images, attention)) < 1e-9


@pytest.mark.parametrize("experts", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_condconv_weights_sum_to_whatever_they_do(experts: int, bias: bool) -> None:
    conv = layer_of("condconv", padding=(1, 1), experts=experts, bias=bias)
    site, images = site_of("condconv", conv, (9, 8), FOLLOWERS["norm"]), images_of((9, 8), 5)
    one_hot = np.eye(experts)[np.arange(5) % experts]
    mixed = np.random.default_rng(0).uniform(0, 1, (5, experts))
    static = built(site)
    for weights in (mixed, np.zeros((5, experts)), np.ones((5, experts)), np.full((5, experts), 0.5), one_hot):
        got = answer(static, site, images, weights)
        assert relative(got, definition(site, images, weights)) < 1e-9
    got = answer(static, site, images, np.zeros((5, experts)))
    shift = np.broadcast_to(some_affine().shift[:, None, None], got.shape)
    np.testing.assert_allclose(got, shift, rtol=1e-12, err_msg="the shift of a batch norm is no expert's")


def test_bias_of_a_static_convolution_is_no_mixed_one() -> None:
    static = built(site_of("conv", layer_of("conv", padding=(1, 1)), (7, 7)))
    assert static.bias is None
    assert tuple(static.offset.shape) == (1, 1, C_OUT)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2D(3, 2, padding=1),
        nn.MaxPool2D(3, 2, padding=[0, 1, 0, 0]),
        nn.MaxPool2D(3, 2, padding="SAME"),
        nn.MaxPool2D(3, 2, ceil_mode=True),
        nn.MaxPool2D(2, return_mask=True),
    ],
    ids=["padding", "padding on one side", "padding in words", "ceil_mode", "return_mask"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_pooling_that_is_no_plain_one_is_left_where_it_is(pool: Any, kind: str) -> None:
    site = site_of(kind, layer_of(kind, padding=(1, 1)), (7, 8), ("norm", "relu", pool))
    assert offer_of(site).takes == ("norm", "relu")
    images = images_of((7, 8), 2)
    attention = np.ones((2, 1)) if kind == "conv" else attention_of(site.layer, images)
    wanted = definition(replace(site, after=site.after[:2]), images, attention)
    assert relative(answer(built(site), site, images, attention), wanted) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_map_may_come_and_go_as_positions(kind: str) -> None:
    site = site_of(kind, layer_of(kind, padding=(1, 1)), (10, 7), FOLLOWERS["norm relu pool 2/2"])
    static, images = built(site), images_of((10, 7), 3)
    attention = attention_of(site.layer, images)
    beside = [paddle.to_tensor(attention)] if kind == "condconv" else []
    x = paddle.to_tensor(images)
    wanted = static(x, *beside).numpy()
    assert wanted.shape == (3, C_OUT, 5, 3)
    assert tuple(to_positions(x).shape) == (70, 3, C_IN)
    np.testing.assert_array_equal(from_positions(to_positions(x), (10, 7)).numpy(), images)
    static.gives_positions = True
    given = static(x, *beside)
    assert tuple(given.shape) == (15, 3, C_OUT)
    np.testing.assert_array_equal(from_positions(given, (5, 3)).numpy(), wanted)
    static.reads_positions = True
    np.testing.assert_array_equal(static(to_positions(x), *beside).numpy(), given.numpy())


@pytest.mark.parametrize(
    ("reason", "walk"),
    [
        ("its stride is [2, 2] and its dilation [1, 1]; tiles need 1", {"stride": (2, 2)}),
        ("its stride is [1, 2] and its dilation [1, 1]; tiles need 1", {"stride": (1, 2)}),
        ("its stride is [1, 1] and its dilation [2, 2]; tiles need 1", {"dilation": (2, 2)}),
        ("it has 5 groups; products between channels would be few", {"groups": 5}),
        ("its padding is 'SAME', not numbers", {"padding": "SAME"}),
        ("its kernel is [1, 1]; tiles are for squares of 2 to 5", {"k": 1}),
        ("its kernel is [6, 6]; tiles are for squares of 2 to 5", {"k": 6}),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_tiles_are_not_made_for_is_refused(kind: str, reason: str, walk: dict[str, Any]) -> None:
    assert refusal_of(site_of(kind, layer_of(kind, **walk), (9, 9))) == reason


@pytest.mark.parametrize("kind", KINDS)
def test_kernel_that_is_no_square_is_refused(kind: str) -> None:
    conv = layer_of(kind)
    oblong = replace(conv, weight=conv.weight[..., :2], geometry=replace(conv.geometry, kernel=(3, 2)))
    assert refusal_of(site_of(kind, oblong, (9, 9))) == "its kernel is [3, 2]; tiles are for squares of 2 to 5"


def test_tolerance_that_no_tile_keeps_is_refused() -> None:
    site = site_of("dyconv", layer_of("dyconv", padding=(1, 1)), (7, 7))
    last = list(FACTORS)[-1]
    assert refusal_of(site, tolerance=1e-6) == (
        f"tiles of {last} inputs round by {rounding_error(last, 3):.1e} of max |y| in float32, over 2.5e-07"
    )


def test_tolerance_leaves_the_tiles_that_keep_it() -> None:
    """A quarter of the tolerance is one layer's: with less of it, products are less few."""
    site = site_of("conv", layer_of("conv", padding=(1, 1)), (14, 14))
    kept = {}
    for tolerance in (2e-5, 6e-6, 2e-6):
        words = offer_of(site, tolerance=tolerance).form.split()
        kept[tolerance] = int(words[2])
        able = [inputs for inputs in FACTORS if rounding_error(inputs, 3) <= tolerance / 4]
        assert kept[tolerance] in {(inputs + len(FACTORS[inputs][1])) ** 2 for inputs in able}
    assert kept[2e-6] == 16
    assert kept[6e-6] != kept[2e-5]


def wide(experts: int, channels: int) -> Site:
    """A layer of many channels that takes no memory."""
    weight = np.broadcast_to(0.0, (experts, channels, channels, 3, 3))
    layer = Experts(weight, None, Geometry((3, 3), (1, 1), (1, 1), (1, 1), 1))
    return site_of("conv" if experts == 1 else "condconv", layer, (7, 7))


def test_factors_that_are_too_many_are_refused() -> None:
    assert refusal_of(wide(5, 1024)) == "its factors take 3920 MiB, over 256 MiB"
    assert offer_of(wide(4, 256)).form.startswith("1 × 100 products")


def test_smaller_tiles_where_larger_ones_take_too_much() -> None:
    """A tile of 100 products would take 400 MiB."""
    assert offer_of(wide(1, 1024)).form == "4 × 36 products for 49 outputs, tiles gathered"
    assert offer_of(wide(1, 800)).form == "1 × 100 products for 49 outputs"


@contextmanager
def counted_matmuls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Multiply-accumulates of every matmul in the block."""
    matmul, macs = paddle.matmul, []

    def counting(x: Any, y: Any) -> Any:
        made = matmul(x, y)
        macs.append(prod(made.shape) * x.shape[-1])
        return made

    with monkeypatch.context() as patch:
        patch.setattr(paddle, "matmul", counting)
        yield macs


@pytest.mark.parametrize(("size", "padding"), [((7, 7), (1, 1)), ((16, 11), (0, 0)), ((8, 30), (0, 2))])
@pytest.mark.parametrize("followers", ["norm", "norm relu pool 2/2"])
@pytest.mark.parametrize("kind", KINDS)
def test_cost_counts_what_the_layer_does(
    kind: str, followers: str, size: tuple[int, int], padding: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    conv = layer_of(kind, padding=padding, experts=4, bias=False)
    site = site_of(kind, conv, size, FOLLOWERS[followers])
    cost, static, batch = offer_of(site, tune_batch=8).cost, built(site, tune_batch=8), 3
    images = images_of(size, batch)
    with counted_matmuls(monkeypatch) as macs:
        answer(static, site, images, attention_of(conv, images))
    scaled = {"conv": 0, "dyconv": 3, "condconv": 4}[kind]
    points = len(static.read_h) * len(static.read_w)
    # The routing's means, and biases that are mixed, count for nothing in any rule.
    means = [batch * C_IN * size[0] * size[1], batch * C_IN * size[1]]
    uncounted = [*means, batch * 4 * C_OUT] if kind == "dyconv" else []
    assert all(found in macs for found in uncounted)
    assert batch * cost.macs == sum(macs) - sum(uncounted) + batch * scaled * points * C_IN


@pytest.mark.parametrize("kind", KINDS)
def test_cost_counts_every_factor_once_a_batch(kind: str, gathered: bool) -> None:
    site = site_of(kind, layer_of(kind, padding=(1, 1)), (16, 11))
    for tune_batch in (1, 512):
        static, cost = built(site, tune_batch=tune_batch), offer_of(site, tune_batch=tune_batch).cost
        held = sum(prod(tensor.shape) for name, tensor in static.named_parameters() if name.startswith("factor"))
        assert cost.weight_bytes == 4 * held
        assert cost.bytes_at(2) == cost.bytes + 4 * held / 2


def test_gathering_reads_fewer_factors_and_copies_the_tiles() -> None:
    site = site_of("conv", layer_of("conv"), (16, 11))
    each, gathered = (winograd.Tiling(winograd._axes(site, 6), form) for form in (False, True))
    apart, together = (winograd.winograd_cost(site, one, competing=True) for one in (each, gathered))
    tiles_down = 4
    assert apart.macs == together.macs
    assert apart.weight_bytes == tiles_down * together.weight_bytes
    assert together.bytes - apart.bytes == 4 * 2 * each.points * (C_IN + C_OUT)


def test_a_few_images_gather_tiles_and_many_do_not() -> None:
    layer = Experts(np.random.default_rng(0).standard_normal((1, 128, 64, 5, 5)), None, GEOMETRY_5)
    site = site_of("conv", layer, (15, 15))
    assert offer_of(site, tune_batch=1).form.endswith("tiles gathered")
    assert not offer_of(site, tune_batch=512).form.endswith("tiles gathered")


def test_transforms_of_layers_alike_are_held_once() -> None:
    shared = SharedConstants()
    offers = [offer_of(site_of(kind, layer_of(kind, padding=(1, 1)), (7, 7))) for kind in KINDS]
    static = [offer.build(shared) for offer in offers]
    assert all(isinstance(found, Winograd) for found in static)
    for name in ("read_h", "read_w", "write_h", "write_w"):
        assert len({id(getattr(found, name)) for found in static}) == 1
    assert static[0].read_h is static[0].read_w


def test_transforms_that_differ_are_not_shared() -> None:
    """A pooling wants its map in another order: the shape is the same, the matrix is not."""
    shared, images = SharedConstants(), images_of((8, 8), 2)
    for followers in ("alone", "pool 2/2", "relu pool 3/2", "relu pool 2/3"):
        site = site_of("conv", layer_of("conv", padding=(1, 1)), (8, 8), FOLLOWERS[followers])
        with default_dtype("float64"):
            static = offer_of(site).build(shared)
        assert relative(answer(static, site, images, np.ones((2, 1))), definition(site, images, np.ones((2, 1)))) < 1e-9
