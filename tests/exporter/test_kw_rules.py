"""Every fold of KernelWarehouse against its definition, written out here sample by sample in numpy."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import dyx
from dyx.errors import FoldRefused
from dyx.exporter.algebra import Affine
from dyx.exporter.apply import default_dtype
from dyx.exporter.folded import kernelwarehouse as folded_kw
from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.plan import make_plan
from dyx.exporter.rule import Neighbour, Offer, Site, Target
from dyx.exporter.rules import RULES
from dyx.nn.kernelwarehouse import WarehouseManager
from dyx.nn.kw_parameters import KwParameters, read_kw

RULE_IDS = [rule.id for rule in RULES if rule.kind == "kw"]
SCANNED = "kw/aggregate-scan"
EXACT = [rule for rule in RULE_IDS if rule not in ("kw/mean-attention", SCANNED)]
IN_TILES = "kw/aggregate-winograd"
NO_TILES = (IN_TILES, "linear in cells")
ONE_LAYER = ["kw/mix-inputs", "kw/experts-first"]
QUARTERS = {"cell_inplane_ratio": 0.5, "cell_outplane_ratio": 0.5}
BASIS = {**QUARTERS, "cell_num_ratio": 0.5, "nonlocal_basis_ratio": 0.25}


class Network(paddle.nn.Layer):
    """Layers of one manager, one after the other, with float64 weights whose attention is far from uniform."""

    def __init__(self, *specs: dict[str, Any], **options: Any) -> None:
        super().__init__()
        self.warehouse_manager = WarehouseManager(**options)
        self.layers = paddle.nn.LayerList([self.warehouse_manager.reserve(**spec) for spec in specs])
        self.warehouse_manager.allocate(self)
        self.to(dtype="float64")
        self.eval()
        random = np.random.default_rng(0)
        for key, tensor in self.state_dict().items():
            positive = key.endswith("_variance") or "norm1.weight" in key
            values = random.uniform(0.5, 1.5, tensor.shape) if positive else random.normal(0, 0.5, tensor.shape)
            tensor.set_value(values)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


def spec(in_planes: int = 8, out_planes: int = 16, kernel_size: Any = 3, **more: Any) -> dict[str, Any]:
    return {"in_planes": in_planes, "out_planes": out_planes, "kernel_size": kernel_size, **more}


def linear(in_planes: int = 24, out_planes: int = 12, **more: Any) -> dict[str, Any]:
    return {"in_planes": in_planes, "out_planes": out_planes, "layer_type": "linear", **more}


MAP = (9, 7)
LAYERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "3x3": (spec(padding=1), {}),
    "3x3 in cells": (spec(padding=1), QUARTERS),
    "3x3 strided": (spec(padding=1, stride=2), QUARTERS),
    "3x3 dilated, no bias": (spec(padding=2, dilation=2, bias=False), QUARTERS),
    "no padding": (spec(), {"cell_inplane_ratio": 0.25}),
    "uneven": (spec(kernel_size=(1, 5), stride=(2, 1), padding=(0, 2)), {"cell_outplane_ratio": 0.25}),
    "1x1": (spec(kernel_size=1), QUARTERS),
    "1x1, no bias": (spec(kernel_size=1, bias=False), {}),
    "1x1 strided": (spec(kernel_size=1, stride=2), QUARTERS),
    "1x1 padded": (spec(kernel_size=1, padding=1), {}),
    "few channels": (spec(in_planes=3, kernel_size=4, stride=4), {"cell_outplane_ratio": 0.5}),
    "few channels, 1x1": (spec(in_planes=3, kernel_size=1), {}),
    "four cells per mixture": (spec(padding=1), {"cell_num_ratio": 4}),
    "half a cell per mixture": (spec(padding=1), {**QUARTERS, "cell_num_ratio": 0.5}),
    "layer norm": (spec(padding=1), {**QUARTERS, "norm": "layer"}),
    "linear": (linear(), {"cell_inplane_ratio": 0.25}),
    "linear in cells": (linear(), QUARTERS),
    "linear over rows": (linear(), QUARTERS),
    "linear over a grid, layer norm": (linear(bias=False), {"norm": "layer", "cell_outplane_ratio": 0.25}),
}
AGGREGATED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "whole cells": (spec(padding=1), {"spatial_partition": False}),
    "whole cells, several": (spec(padding=1, stride=2), {"spatial_partition": False, **QUARTERS}),
    "three blocks out": (spec(8, 24, padding=1), {"cell_outplane_ratio": 1 / 3}),
    "grouped": (spec(padding=1, groups=2), {}),
    "grouped, blocks within groups": (spec(padding=1, groups=2), {"cell_outplane_ratio": 0.25}),
    "grouped, blocks across groups": (spec(out_planes=24, groups=4), {"cell_outplane_ratio": 1 / 3}),
    "grouped 1x1": (spec(kernel_size=1, groups=4), QUARTERS),
    "grouped strided": (spec(padding=1, stride=2, groups=4), {"cell_inplane_ratio": 0.5}),
    "depthwise": (spec(8, 8, padding=1, groups=8), {}),
    "depthwise in cells": (spec(8, 8, padding=1, groups=8, bias=False), {"cell_outplane_ratio": 0.25}),
    "depthwise strided, dilated": (spec(8, 8, padding=2, stride=2, dilation=2, groups=8), {"cell_outplane_ratio": 0.5}),
    "depthwise 5x5": (spec(8, 8, 5, padding=2, groups=8), {"norm": "layer"}),
    "two outputs per channel": (spec(8, 16, padding=1, groups=8), {"cell_outplane_ratio": 0.5}),
}
TILED = (
    *("3x3", "3x3 in cells", "no padding", "four cells per mixture", "half a cell per mixture", "layer norm"),
    *("whole cells", "three blocks out"),
)
"""What `kw/aggregate-winograd` folds; the other exact rules fold all of `LAYERS`."""
LEADS = {"linear over rows": (5,), "linear over a grid, layer norm": (2, 3)}


def one(name: str) -> Any:
    """The layer of a name, alone with its warehouse."""
    wanted, options = (LAYERS | AGGREGATED)[name]
    return Network(wanted, **options).layers[0]


def varied(name: str, layer: Any, batch: int, seed: int = 0) -> np.ndarray:
    """Inputs that differ in gain and offset."""
    channels = read_kw(layer).channels_in
    shape = (*LEADS.get(name, ()), channels) if read_kw(layer).linear else (channels, *MAP)
    random = np.random.default_rng(10 * seed + batch)
    axes = (1,) * len(shape)
    gain, offset = random.uniform(0.2, 3, (batch, *axes)), random.uniform(-2, 2, (batch, *axes))
    return gain * random.standard_normal((batch, *shape)) + offset


def attention_of(conv: Any, pooled: np.ndarray) -> np.ndarray:
    """α `(m, n)` of one sample's channel means."""
    made = conv.attention
    hidden = pooled @ made.fc1.weight.numpy() + (0 if made.fc1.bias is None else made.fc1.bias.numpy())
    batch_norm = hasattr(made.norm1, "_mean")
    mean, variance = (made.norm1._mean.numpy(), made.norm1._variance.numpy()) if batch_norm else (None, None)
    centred = hidden - (hidden.mean() if mean is None else mean)
    spread = np.sqrt((hidden.var() if variance is None else variance) + np.float64(np.float32(1e-5)))
    hidden = np.maximum(centred / spread * made.norm1.weight.numpy() + made.norm1.bias.numpy(), 0)
    scores = hidden @ made.fc2.weight.numpy()
    mixtures = conv.num_mixtures
    if conv.num_basis is None:
        scores = (scores + made.fc2.bias.numpy()).reshape(mixtures, -1)
    else:
        local, start = conv.num_local_cells, conv.start_cell_idx
        scores = scores.reshape(mixtures, -1)
        others = scores[:, local:-1] @ made.fc3.weight.numpy()
        parts = [others[:, :start], scores[:, :local], others[:, start:], scores[:, -1:]]
        scores = np.concatenate(parts, 1) + made.basis_bias.numpy().reshape(mixtures, -1)
    return scores[:, :-1] / (np.abs(scores).sum(1, keepdims=True) + 1e-3)


def assembled(conv: Any, alpha: np.ndarray) -> np.ndarray:
    """W `(C_out, C_in / groups, *kernel)`, block by block."""
    cells = conv.cells.numpy()
    _, out, in_, *cell = cells.shape
    kernel = np.full(conv.kernel_shape, np.nan)
    mixture = 0
    for place in np.ndindex(*(size // part for size, part in zip(conv.kernel_size, cell, strict=True))):
        taps = tuple(slice(p * k, p * k + k) for p, k in zip(place, cell, strict=True))
        for o in range(len(kernel) // out):
            for i in range(kernel.shape[1] // in_):
                block = (slice(o * out, o * out + out), slice(i * in_, i * in_ + in_), *taps)
                kernel[block] = np.tensordot(alpha[mixture], cells, 1)
                mixture += 1
    return kernel


def convolve(image: np.ndarray, weight: np.ndarray, conv: Any) -> np.ndarray:
    """One image `(C_in, H, W)` with one kernel `(C_out, C_in/g, kh, kw)`: windows, taps, sums."""
    (up, left), (kh, kw), (dh, dw) = conv.padding, conv.kernel_size, conv.dilation
    padded = np.pad(image, ((0, 0), (up, up), (left, left)))
    windows = sliding_window_view(padded, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), axis=(1, 2))
    windows = windows[:, :: conv.stride[0], :: conv.stride[1], ::dh, ::dw]
    per_group, outputs = len(image) // conv.groups, len(weight) // conv.groups
    parts = [
        np.einsum(
            "chwij,ocij->ohw", windows[g * per_group : (g + 1) * per_group], weight[g * outputs : (g + 1) * outputs]
        )
        for g in range(conv.groups)
    ]
    return np.concatenate(parts)


def definition(layer: Any, images: np.ndarray, alpha: np.ndarray | None = None) -> np.ndarray:
    """`conv(x_b, W_b) + bias`, with an attention of its own for every sample, or this one for all."""
    made = []
    for image in images:
        if hasattr(layer, "conv"):
            conv, rows = layer.conv, image.reshape(-1, image.shape[-1])
            weight = assembled(conv, attention_of(conv, rows.mean(0)) if alpha is None else alpha)[:, :, 0]
            y = (rows @ weight.T).reshape(*image.shape[:-1], -1)
            made.append(y if conv.bias is None else y + conv.bias.numpy())
        else:
            weight = assembled(layer, attention_of(layer, image.mean((1, 2))) if alpha is None else alpha)
            y = convolve(image, weight, layer)
            made.append(y if layer.bias is None else y + layer.bias.numpy()[:, None, None])
    return np.stack(made)


def site_of(layer: Any, images: np.ndarray, affine: Affine | None = None, **facts: Any) -> Site:
    shape = definition(layer, images[:1]).shape[1:]
    after = (Neighbour("norm", "batch-norm", None, affine),) if affine else ()
    kind = type(layer).__name__
    return Site("layer", "kw", kind, read_kw(layer), images.shape[1:], shape, None, after, **facts)


def offers(site: Site, target: Target | None = None) -> dict[str, Any]:
    return {rule.id: rule.offer(site, target or Target(tune_batch=8)) for rule in RULES if rule.kind == "kw"}


def built(site: Site, rule: str, shared: SharedConstants | None = None) -> Any:
    offer = offers(site)[rule]
    assert isinstance(offer, Offer), offer
    with default_dtype("float64"):
        return offer.build(shared or SharedConstants())


def relative(got: Any, wanted: np.ndarray) -> float:
    assert got.shape == list(wanted.shape)
    return float(np.abs(got.numpy() - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        *((rule, name) for rule in EXACT for name in LAYERS if rule != IN_TILES),
        *((EXACT[0], name) for name in AGGREGATED),
        *((IN_TILES, name) for name in TILED),
        *((SCANNED, name) for name in AGGREGATED if name.startswith("depthwise")),
    ],
)
def test_fold_equals_definition(rule: str, name: str) -> None:
    layer = one(name)
    static = built(site_of(layer, varied(name, layer, 1)), rule)
    for batch in (1, 2, 5):
        images = varied(name, layer, batch)
        wanted = definition(layer, images)
        assert relative(static(paddle.to_tensor(images)), wanted) < 1e-9
    single = static.to(dtype="float32")
    assert relative(single(paddle.to_tensor(images.astype("float32"))), wanted) < 1e-5


@pytest.mark.parametrize("name", LAYERS | AGGREGATED)
def test_channels_last_change_no_answer(name: str) -> None:
    layer = one(name)
    static = built(site_of(layer, varied(name, layer, 1)), EXACT[0], SharedConstants(channels_last=True))
    for batch in (1, 5):
        images = varied(name, layer, batch)
        assert relative(static(paddle.to_tensor(images)), definition(layer, images)) < 1e-9


@pytest.mark.parametrize(("name", "whole"), [("1x1", True), ("3x3 strided", False), ("1x1, no bias", False)])
def test_with_channels_last_blocks_of_outputs_meet_where_they_are_smaller(name: str, whole: bool) -> None:
    """In kernels of 8 inputs for 72 positions, and in the map of 18 positions for kernels of 72; one is whole as is."""
    layer = one(name)
    site = site_of(layer, varied(name, layer, 1))
    assert built(site, EXACT[0], SharedConstants(channels_last=True)).whole == whole
    assert not built(site, EXACT[0]).whole


@pytest.fixture
def every_cell_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """All cells of several inputs get one of zeros, so that small layers show it."""
    for name, least in {"_LARGE": 1, "_PAGE": 1, "_WIDE": 2}.items():
        monkeypatch.setattr(folded_kw, name, least)


@pytest.mark.usefixtures("every_cell_is_large")
@pytest.mark.parametrize(
    ("rule", "name"),
    [
        *((EXACT[0], name) for name in LAYERS | AGGREGATED if not name.startswith("few channels")),
        *((IN_TILES, name) for name in TILED),
    ],
)
def test_inputs_of_zeros_change_nothing(rule: str, name: str) -> None:
    layer = one(name)
    static = built(site_of(layer, varied(name, layer, 1)), rule)
    cells = read_kw(layer).cells
    assert static.kernels.mixed.cells.size == cells.size + (cells.size // cells.shape[2] if cells.shape[2] > 1 else 0)
    for batch in (1, 3):
        images = varied(name, layer, batch)
        assert relative(static(paddle.to_tensor(images)), definition(layer, images)) < 1e-9


@pytest.mark.parametrize(
    ("channels", "size", "zeros"), [(256, (6, 8), 256 * 27), (260, (6, 8), 0), (128, (6, 8), 0)], ids=str
)
def test_large_cells_of_whole_pages_get_an_input_of_zeros(channels: int, size: tuple[int, int], zeros: int) -> None:
    layer = Network(spec(channels, channels, padding=1, bias=False), cell_num_ratio=3).layers[0]
    images = np.random.default_rng(0).standard_normal((2, channels, *size))
    static = built(site_of(layer, images), EXACT[0])
    assert static.kernels.mixed.cells.size - layer.cells.size == zeros
    assert relative(static(paddle.to_tensor(images)), definition(layer, images)) < 1e-9


@pytest.fixture(params=[0, 1], ids=["as they are", "an output of zeros"])
def every_cell_lies_left(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All cells lie as left factors where dense layers ask first, with outputs of zeros or without."""
    least = 1 if request.param else 10**9
    for name, value in {"_OUTPUTS_PER_POSITION": 0, "_WIDE": 2, "_LARGE": least, "_PAGE": 1}.items():
        monkeypatch.setattr(folded_kw, name, value)


LEFT = [name for name in (*LAYERS, "three blocks out") if "linear" not in name and "few channels" not in name]


@pytest.mark.usefixtures("every_cell_lies_left")
@pytest.mark.parametrize("name", LEFT)
def test_kernels_from_the_left_equal_the_definition(name: str) -> None:
    layer = one(name)
    static = built(site_of(layer, varied(name, layer, 1)), EXACT[0])
    assert isinstance(static, folded_kw.LeftKernelPerSample)
    for batch in (1, 2, 5):
        images = varied(name, layer, batch)
        wanted = definition(layer, images)
        assert relative(static(paddle.to_tensor(images)), wanted) < 1e-9
    other = np.random.default_rng(3).standard_normal((2, images.shape[1], 12, 10))
    assert relative(static(paddle.to_tensor(other)), definition(layer, other)) < 1e-9
    single = static.to(dtype="float32")
    assert relative(single(paddle.to_tensor(images.astype("float32"))), wanted) < 1e-5


@pytest.mark.usefixtures("every_cell_lies_left")
@pytest.mark.parametrize("follower", [IN_TILES, "groups"])
def test_layers_that_want_right_factors_follow_the_first_that_wanted_left_ones(follower: str) -> None:
    grouped = {"groups": 2, "in_planes": 16} if follower == "groups" else {}
    network = Network(spec(padding=1), spec(padding=1, **grouped), **QUARTERS)
    shared, rules = SharedConstants(), (EXACT[0], EXACT[0] if grouped else IN_TILES)
    folds = []
    for layer, rule in zip(network.layers, rules, strict=True):
        images = varied("", layer, 3)
        folds.append(built(site_of(layer, images), rule, shared))
        assert relative(folds[-1](paddle.to_tensor(images)), definition(layer, images)) < 1e-9
    assert isinstance(folds[1], folded_kw.KernelPerSample)
    assert folds[0].mixed.cells is folds[1].kernels.mixed.cells


@pytest.mark.parametrize(
    ("sizes", "left"), [([(4, 4), (5, 5)], True), ([(5, 5), (4, 4)], False), ([(4, 5), (4, 4)], False)], ids=str
)
def test_the_first_layer_decides_how_shared_cells_lie(sizes: list[tuple[int, int]], left: bool) -> None:
    """128 outputs are 8 for each of 16 positions."""
    network, shared = Network(spec(128, 128, padding=1), spec(128, 128, 1)), SharedConstants()
    for layer, size in zip(network.layers, sizes, strict=True):
        images = np.random.default_rng(0).standard_normal((2, 128, *size))
        static = built(site_of(layer, images), EXACT[0], shared)
        assert isinstance(static, folded_kw.LeftKernelPerSample) == left
        assert relative(static(paddle.to_tensor(images)), definition(layer, images)) < 1e-9


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        (spec(16, 128, 1), True),
        (spec(8, 128, 1), False),
        (spec(32, 128, 1, groups=2), False),
        (linear(128, 128), False),
    ],
    ids=["dense", "narrow", "grouped", "linear"],
)
def test_only_dense_and_wide_layers_ask_for_left_factors(wanted: dict[str, Any], left: bool) -> None:
    assert folded_kw.lie_left(read_kw(Network(wanted).layers[0]), 1, SharedConstants()) == left


def test_cells_of_several_taps_stay_right_factors() -> None:
    layer = Network(spec(16, 128), spatial_partition=False).layers[0]
    assert not folded_kw.lie_left(read_kw(layer), 1, SharedConstants())


@pytest.mark.parametrize("options", [QUARTERS, BASIS, {"norm": "layer"}], ids=["cells", "basis", "layer norm"])
def test_layers_that_share_cells(options: dict[str, Any]) -> None:
    network = Network(spec(padding=1), spec(16, 16, padding=1, stride=2), spec(16, 8, 1), **options)
    for layer in network.layers:
        for batch in (1, 2, 5):
            images = varied("", layer, batch)
            static = built(site_of(layer, images), "kw/aggregate-kernel")
            assert relative(static(paddle.to_tensor(images)), definition(layer, images)) < 1e-9


@pytest.mark.parametrize(
    ("rule", "name"),
    [*((rule, name) for rule in EXACT for name in ("3x3 in cells", "linear in cells") if (rule, name) != NO_TILES)],
)
@pytest.mark.parametrize(("scale", "shift"), [(0, 0), (0, 1), (1e6, 0)], ids=["nothing", "equal", "large"])
def test_extreme_attention(rule: str, name: str, scale: float, shift: float) -> None:
    layer = one(name)
    fc2 = (layer.conv if hasattr(layer, "conv") else layer).attention.fc2
    fc2.weight.set_value(fc2.weight * scale)
    fc2.bias.set_value(paddle.full_like(fc2.bias, shift))
    images = varied(name, layer, 4)
    static = built(site_of(layer, images), rule)
    assert relative(static(paddle.to_tensor(images)), definition(layer, images)) < 1e-9


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        *((rule, name) for rule in EXACT for name in ("3x3 strided", "1x1", "few channels") if rule != IN_TILES),
        *((rule, "no padding") for rule in EXACT),
    ],
)
def test_maps_of_another_size_than_the_traced_one(rule: str, name: str) -> None:
    layer = one(name)
    static = built(site_of(layer, varied(name, layer, 1)), rule)
    images = np.random.default_rng(3).standard_normal((2, read_kw(layer).channels_in, 12, 10))
    assert relative(static(paddle.to_tensor(images)), definition(layer, images)) < 1e-9


@pytest.mark.parametrize("name", ["3x3 strided", "grouped", "depthwise in cells", "linear over rows"])
@pytest.mark.parametrize("with_norm", [True, False], ids=["norm", "no norm"])
def test_mean_attention_is_a_static_layer_with_the_norm_inside(name: str, with_norm: bool) -> None:
    layer = one(name)
    images = varied(name, layer, 5)
    read = read_kw(layer)
    alpha = np.random.default_rng(5).standard_normal((read.grid.mixtures, read.experts))
    affine = None
    wanted = definition(layer, images, alpha)
    if with_norm and not read.linear:
        random = np.random.default_rng(1)
        affine = Affine(random.uniform(-2, 2, read.channels_out), random.standard_normal(read.channels_out))
        wanted = wanted * affine.scale[:, None, None] + affine.shift[:, None, None]
    site = site_of(layer, images, affine, mean_attention=(alpha,))
    offer = offers(site)["kw/mean-attention"]
    assert offer.lossy
    assert offer.takes == (("norm",) if affine else ())
    assert relative(built(site, "kw/mean-attention")(paddle.to_tensor(images)), wanted) < 1e-9


def test_exact_folds_leave_the_norm_that_follows() -> None:
    layer = one("3x3")
    affine = Affine(np.full(16, 2.0), np.ones(16))
    assert all(offers(site_of(layer, varied("3x3", layer, 1), affine))[rule].takes == () for rule in EXACT)


def test_costs_count_what_the_rules_do() -> None:
    """m 36, n 36, cells of 8×4, 3×3, stride 2 on 9×7: 63 positions become 20."""
    layer = one("3x3 strided")
    found = offers(site_of(layer, varied("3x3 strided", layer, 1)))
    assert {rule: found[rule].cost.macs for rule in EXACT if rule != IN_TILES} == {
        "kw/aggregate-kernel": 36 * 36 * 32 + 16 * 8 * 9 * 20,
        "kw/mix-inputs": 2 * 20 * 36 * 4 * (18 + 8),
        "kw/experts-first": 2 * 63 * 36 * 8 * (4 + 18),
    }
    assert found["kw/aggregate-kernel"].widest == 8 * 9 * 20
    depthwise = one("depthwise")
    aggregate = offers(site_of(depthwise, varied("", depthwise, 1)))["kw/aggregate-kernel"]
    bands = 9 * 3 * (9 * 9 + 9 * 7 + 7 * 7)
    assert (aggregate.cost.macs, aggregate.widest) == (9 * 9 * 8 + 8 * bands, 0)


@pytest.mark.parametrize(
    ("name", "floats", "macs"),
    [
        ("1x1", 8 * 63 + 16 * 63, 0),
        ("grouped 1x1", 8 * 63 + 16 * 63, 0),
        ("linear over rows", 24 * 5 + 12 * 5, 0),
        ("3x3", 5 * 8 * 63 + 2 * 9 * 8 * 63 + 3 * 16 * 63, 0),
        ("1x1 strided", 5 * 8 * 63 + 2 * 8 * 20 + 3 * 16 * 20, 0),
        ("few channels", 3 * 63 + 2 * 48 * 2 + 16 * 2, 48 * 48 * 2),
    ],
)
def test_only_what_is_unfolded_pays_for_it(name: str, floats: int, macs: int) -> None:
    """Maps are read as they lie, their positions are gathered, or a convolution unfolds a few channels."""
    layer = one(name)
    site = site_of(layer, varied(name, layer, 1))
    parameters = site.layer
    kernel, mixing = prod(parameters.kernel_shape), parameters.grid.mixtures * parameters.cells.size
    positions = prod(site.output_shape) // parameters.channels_out
    cost = offers(site)["kw/aggregate-kernel"].cost
    assert cost.bytes == 4 * (floats + 2 * kernel)
    assert cost.macs == mixing + kernel * positions + macs


def test_costs_share_the_cells_among_a_batch() -> None:
    layer = one("3x3 in cells")
    site = site_of(layer, varied("3x3 in cells", layer, 1))
    for rule in EXACT:
        cost = offers(site)[rule].cost
        assert cost.weight_bytes == 4 * 36 * 32
        assert cost.bytes_at(4) == cost.bytes + cost.weight_bytes / 4


@pytest.mark.parametrize(
    ("wanted", "options", "rule"),
    [
        (linear(640, 20), {"cell_inplane_ratio": 0.05, "cell_num_ratio": 0.5}, "kw/mix-inputs"),
        (linear(20, 640), {"cell_outplane_ratio": 0.05}, "kw/experts-first"),
        (spec(padding=1), QUARTERS, "kw/aggregate-kernel"),
    ],
    ids=["many blocks in", "many blocks out", "a map"],
)
def test_the_cheapest_form_is_chosen(wanted: dict[str, Any], options: dict[str, Any], rule: str) -> None:
    layer = Network(wanted, **options).layers[0]
    plan = make_plan([site_of(layer, varied("", layer, 1))], Target(tune_batch=8))
    assert plan.decisions[0].rule == rule


def reason(layer: Any, rule: str, target: Target | None = None, **changes: Any) -> str:
    site = site_of(layer, varied("", layer, 1))
    refused = offers(replace(site, layer=replace(site.layer, **changes)), target)[rule]
    assert not isinstance(refused, Offer)
    return str(refused.reason)


@pytest.mark.parametrize("rule", RULE_IDS)
def test_temperatures_other_than_0_are_refused(rule: str) -> None:
    assert "its temperature is 0.25" in reason(one("3x3"), rule, temperature=0.25)


@pytest.mark.parametrize("rule", ONE_LAYER)
def test_forms_with_cells_of_their_own_are_refused_where_those_are_shared_or_not_of_one_tap(rule: str) -> None:
    shared = Network(spec(padding=1), spec(padding=1)).layers[0]
    assert "its cells are shared" in reason(shared, rule)
    assert reason(one("grouped"), rule) == "its convolution has 2 groups; this rule folds 1"
    assert reason(one("whole cells"), rule) == "its cells are 3×3; this rule folds cells of 1×1"


def test_kernels_that_do_not_fit_in_memory_are_refused() -> None:
    words = reason(one("3x3"), "kw/aggregate-kernel", Target(tune_batch=10**6))
    assert words == "one kernel per sample takes 4394 MiB at batch 1000000, over 1024 MiB"


def test_mean_attention_is_refused_without_images() -> None:
    assert "calibration images" in reason(one("3x3"), "kw/mean-attention")


def test_every_refusal_is_shown_for_a_kernel_of_another_dimension() -> None:
    layer: KwParameters = read_kw(Network(spec(kernel_size=3, layer_type="conv1d")).layers[0])
    site = Site("deep.conv", "kw", "KWConv1D", layer, (8, 9), (16, 7))
    with pytest.raises(FoldRefused) as caught:
        make_plan([site], Target())
    assert set(caught.value.refusals) == set(RULE_IDS)
    assert "its kernel has 1 spatial axes" in str(caught.value)


class Blocks(paddle.nn.Layer):
    """Layers of many blocks, each alone with its cells; batch norms, ReLU and rows between them."""

    def __init__(self) -> None:
        super().__init__()
        manager = self.warehouse_manager = WarehouseManager(cell_inplane_ratio=0.5, cell_outplane_ratio=0.25)
        self.stem = manager.reserve(3, 16, 3, 2, 1, warehouse_name="stem")
        self.norm = paddle.nn.BatchNorm2D(16)
        self.body = manager.reserve(16, 32, 3, 1, 1, bias=False, warehouse_name="body")
        self.next_norm = paddle.nn.BatchNorm2D(32)
        self.strided = manager.reserve(32, 24, 1, 2, warehouse_name="strided")
        self.rows = manager.reserve(24, 20, warehouse_name="rows", layer_type="linear")
        self.head = manager.reserve(20, 40, warehouse_name="head", layer_type="linear")
        manager.allocate(self)

    def forward(self, image: Any) -> Any:
        x = paddle.nn.functional.relu(self.norm(self.stem(image)))
        x = self.strided(paddle.nn.functional.relu(self.next_norm(self.body(x))))
        x = self.rows(x.flatten(2).transpose([0, 2, 1]))
        return self.head(paddle.nn.functional.relu(x).mean(1))


@pytest.mark.parametrize("rule", [rule for rule in EXACT if rule != IN_TILES])
def test_every_backend_gives_the_answers_of_float64(rule: str, tmp_path: Path) -> None:
    bundle = dyx.export(f"{__file__}:Blocks", shape=(3, 18, 22), out=tmp_path / "bundle", fold=(rule,), tune_batch=8)
    assert {site["rule"] for site in bundle.manifest["plan"]["sites"]} == {rule}
    report = dyx.check(bundle, batches=(1, 3))
    assert not report.faults
    assert [verdict.sentence() for verdict in report.parity.verdicts if not verdict.passed] == []


@pytest.mark.usefixtures("every_cell_is_large")
def test_every_backend_gives_them_with_inputs_of_zeros(tmp_path: Path) -> None:
    test_every_backend_gives_the_answers_of_float64(EXACT[0], tmp_path)


class LastStage(paddle.nn.Layer):
    """What the last stage of a ResNet does, on maps of 4 × 4 that become 2 × 2: its cells lie as left factors."""

    def __init__(self) -> None:
        super().__init__()
        manager = self.warehouse_manager = WarehouseManager(cell_num_ratio=0.5)
        name = {"warehouse_name": "stage", "bias": False}
        self.stem = paddle.nn.Conv2D(3, 512, 1)
        self.first = manager.reserve(512, 256, 3, 2, 1, **name)
        self.second = manager.reserve(256, 512, 1, **name)
        self.third = manager.reserve(512, 256, 1, **name)
        self.down = manager.reserve(512, 512, 1, 2, **name)
        self.norm = paddle.nn.BatchNorm2D(512)
        manager.allocate(self)

    def forward(self, image: Any) -> Any:
        relu, stem = paddle.nn.functional.relu, self.stem(image)
        x = relu(self.norm(self.second(relu(self.first(stem))) + self.down(stem)))
        return self.third(x).mean([2, 3])


def test_every_backend_takes_kernels_from_the_left(tmp_path: Path) -> None:
    fold = ("kw/aggregate-kernel",)
    bundle = dyx.export(f"{__file__}:LastStage", shape=(3, 4, 4), out=tmp_path / "bundle", fold=fold, tune_batch=8)
    static = dyx.fold(LastStage(), shape=(3, 4, 4), batch=8)
    layers = [getattr(static, name) for name in ("first", "second", "third", "down")]
    assert {type(layer) for layer in layers} == {folded_kw.LeftKernelPerSample}
    assert len({id(layer.mixed.cells) for layer in layers}) == 1
    report = dyx.check(bundle, batches=(1, 3))
    assert not report.faults
    assert [verdict.sentence() for verdict in report.parity.verdicts if not verdict.passed] == []


def shared_network() -> Network:
    """Two convolutions of one warehouse, a 1×1 one and a depthwise one of others, and a linear layer."""
    own = {"padding": 1, "warehouse_name": "depthwise", "groups": 16}
    head = linear(12, 24, warehouse_name="head")
    return Network(spec(padding=1), spec(16, 16, padding=1), spec(16, 16, **own), head, **QUARTERS)


def test_cells_that_layers_share_are_one_parameter() -> None:
    network = shared_network()
    static = dyx.fold(network, shape=(8, 6, 12))
    first, second, depthwise, _ = static.layers
    assert first.kernels.mixed.cells is second.kernels.mixed.cells
    assert first.kernels.mixed.cells is not depthwise.kernels.mixed.cells
    assert str(first.kernels.mixed.cells.dtype) == "paddle.float32"
    images = np.random.default_rng(0).standard_normal((3, 8, 6, 12))
    wanted = network(paddle.to_tensor(images)).numpy()
    assert relative(static(paddle.to_tensor(images.astype("float32"))), wanted) < 1e-5


def test_files_hold_shared_cells_once_and_any_batch_runs(tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    from dyx.exporter.converter import Converter
    from dyx.exporter.to_onnx import to_onnx
    from dyx.exporter.to_paddle import to_paddle
    from dyx.tensors import TensorSpec

    network = shared_network()
    image = TensorSpec("image", "float32", ("batch", 8, 6, 12))
    logits = TensorSpec("logits", "float32", ("batch", 16, 6, 24))
    to_paddle(dyx.fold(network, shape=(8, 6, 12)), image, tmp_path)
    with Converter() as converter:
        to_onnx(converter, tmp_path, image, logits)
    held = [tuple(each.dims) for each in onnx.load(tmp_path / "model.onnx").graph.initializer]
    assert held.count((1, 108, 32)) == 1  # m is 36 and 72 for the two
    numbers = sum(tensor.size for tensor in network.state_dict().values())
    added = 4 * (2 * 42 * 9 + 16 * 3 * 3) + 20_000  # tables of positions, one-hot kernels, and names
    assert (tmp_path / "model.pdiparams").stat().st_size < 4 * numbers + added
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = np.random.default_rng(batch).standard_normal((batch, 8, 6, 12))
        wanted = network(paddle.to_tensor(images)).numpy()
        (got,) = session.run(None, {"image": images.astype("float32")})
        assert np.abs(got - wanted).max() < 1e-5 * np.abs(wanted).max()
