"""A kernel per sample in tiles: against the convolution, for every tile, and on every backend."""

from __future__ import annotations

from itertools import product
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest

import dyx
from dyx.exporter.apply import default_dtype
from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.folded.rows import applied, kernel_shape, lying_for
from dyx.exporter.folded.tiles import Tiles
from dyx.exporter.rule import Cost, Offer, Refusal, Site, Target
from dyx.exporter.rules.tiles import in_tiles, tiles_cost
from dyx.exporter.winograd import FACTORS
from dyx.nn.dyconv import DYConv2D
from dyx.nn.dynamic_conv import DynamicConv2D
from dyx.nn.geometry import Geometry
from dyx.nn.kernelwarehouse import WarehouseManager
from dyx.nn.odconv import ODConv2D

WALKS = [
    Geometry((taps, taps), (1, 1), padding, (1, 1), 1)
    for taps, padding in product((2, 3, 4, 5), ((0, 0), (1, 1), (2, 0)))
]
NOTHING = Cost(0, 0)


def convolved(x: np.ndarray, weight: np.ndarray, walk: Geometry) -> np.ndarray:
    """Every sample with its own kernel."""
    return np.concatenate(
        [walk.convolve(paddle.to_tensor(x[[row]]), paddle.to_tensor(weight[row])).numpy() for row in range(len(x))]
    )


@pytest.mark.parametrize(
    ("walk", "inputs"), [(walk, inputs) for walk in WALKS for inputs in FACTORS if inputs > walk.kernel[0]], ids=str
)
@pytest.mark.parametrize("size", [(5, 5), (7, 12)], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_kernels_in_tiles_are_the_convolution(walk: Geometry, inputs: int, size: tuple[int, int], batch: int) -> None:
    random = np.random.default_rng(0)
    x, weight = random.standard_normal((batch, 6, *size)), random.standard_normal((batch, 4, 6, *walk.kernel))
    scale = random.standard_normal((batch, 1, 6 * prod(walk.kernel)))
    with default_dtype("float64"):
        tiles = Tiles(walk, inputs, size, SharedConstants())
        kernels = paddle.to_tensor(lying_for(tiles, weight)).reshape(kernel_shape(tiles, weight))
        got = applied(tiles, paddle.to_tensor(x), kernels).numpy()
        got_scaled = applied(tiles, paddle.to_tensor(x), kernels, paddle.to_tensor(scale)).numpy()
    by_tap = scale.reshape(batch, 1, *walk.kernel, 6).transpose(0, 1, 4, 2, 3)
    for answer, kernel in ((got, weight), (got_scaled, weight * by_tap)):
        wanted = convolved(x, kernel, walk)
        assert answer.shape == wanted.shape
        assert np.abs(answer - wanted).max() < 1e-9 * np.abs(wanted).max()


def site(size: int = 56, channels: int = 64, taps: int = 3, **walk: Any) -> Site:
    facts = {"stride": (1, 1), "padding": (taps // 2,) * 2, "dilation": (1, 1), "groups": 1, **walk}
    geometry = Geometry((taps, taps), *facts.values())
    layer = SimpleNamespace(geometry=geometry, channels_in=channels, channels_out=channels)
    return Site("layer", "dyconv", "DynamicConv2D", layer, (channels, size, size), (channels, size, size))


def offer(one: Site, **target: Any) -> Any:
    return in_tiles(one, Target(**{"tune_batch": 8, **target}), NOTHING, lambda shared, tiles: tiles, ("norm",))


@pytest.mark.parametrize(
    ("size", "channels", "form"),
    [
        (56, 64, "kernel per sample, 196 × 36 products for 3136 outputs"),
        (28, 128, "kernel per sample, 49 × 36 products for 784 outputs"),
        (7, 512, "kernel per sample, 16 × 16 products for 49 outputs"),
    ],
)
def test_tiles_are_smaller_where_kernels_are_larger_than_the_map(size: int, channels: int, form: str) -> None:
    found = offer(site(size, channels))
    assert isinstance(found, Offer)
    assert found.form == form and found.takes == ("norm",)


def test_cost_counts_what_the_layer_does() -> None:
    """4 × 4 tiles of 6 inputs on 14 × 14, 36 products, 4 × 4 outputs each."""
    channels, tiles = 32, 16
    cost = tiles_cost(site(14, channels), 6)
    transforms = 36 * 36 * tiles * channels + 36 * 9 * channels**2 + 16 * 36 * tiles * channels
    assert cost.macs == transforms + 36 * tiles * channels**2
    assert cost.bytes == 4 * (
        (5 + 3) * 14 * 14 * channels
        + (2 * 36 + 2 * 36 + 2 * 36 + 2 * 16) * tiles * channels
        + (9 + 2 * 36) * channels**2
    )
    assert cost.weight_bytes == 0


@pytest.mark.parametrize(
    ("one", "target", "reason"),
    [
        (site(stride=(2, 2)), {}, "its stride is [2, 2] and its dilation [1, 1]; tiles need 1"),
        (site(groups=2), {}, "it has 2 groups"),
        (site(taps=7), {}, "its kernel is [7, 7]; tiles are for squares of 2 to 5"),
        (site(), {"tolerance": 1e-7}, "tiles of 4 inputs round by"),
        (site(7, 512), {"tune_batch": 512}, "one kernel per sample takes 8192 MiB at batch 512, over 1024 MiB"),
    ],
    ids=["stride", "groups", "taps", "tolerance", "memory"],
)
def test_what_cannot_be_cut_is_refused(one: Site, target: dict[str, Any], reason: str) -> None:
    found = offer(one, **target)
    assert isinstance(found, Refusal)
    assert found.reason.startswith(reason)


def test_a_tile_that_rounds_too_much_is_not_offered() -> None:
    """Tiles of 4 inputs round by 3.8e-7, all others by more than 1e-6, a quarter of this tolerance."""
    assert offer(site(), tolerance=4e-6).form == "kernel per sample, 784 × 16 products for 3136 outputs"


class Kernels(paddle.nn.Layer):
    """A kernel per sample of every kind, on maps that tiles do not divide; rows and batch norms between them."""

    def __init__(self) -> None:
        super().__init__()
        manager = self.warehouse_manager = WarehouseManager(cell_outplane_ratio=0.5)
        self.stem = paddle.nn.Conv2D(3, 8, 3, 2, 1)
        self.mixed = DynamicConv2D(8, 12, 3, padding=1)
        self.norm = paddle.nn.BatchNorm2D(12)
        self.heated = DYConv2D(12, 8, 3, padding=1, num_experts=2)
        self.scaled = ODConv2D(8, 16, 3, padding=1, kernel_num=2)
        self.cells = manager.reserve(16, 16, 3, padding=1)
        self.head = paddle.nn.Linear(16, 10)
        manager.allocate(self)

    def forward(self, image: Any) -> Any:
        relu = paddle.nn.functional.relu
        # Larger inputs bring gates' scores to hundreds, smaller ones the warehouse's near 0: rounding then counts most.
        x = relu(self.norm(self.mixed(relu(self.stem(image / 16)))))
        x = relu(self.cells(relu(self.scaled(relu(self.heated(x))))))
        return self.head(x.mean([2, 3]))


RULES = ("dyconv/aggregate-winograd", "odconv/aggregate-winograd", "kw/aggregate-winograd")


def test_every_backend_gives_the_answers_of_float64(tmp_path: Path) -> None:
    bundle = dyx.export(f"{__file__}:Kernels", shape=(3, 26, 34), out=tmp_path / "bundle", fold=RULES, tune_batch=8)
    assert [site["rule"] for site in bundle.manifest["plan"]["sites"]] == [RULES[0], *RULES]
    report = dyx.check(bundle, batches=(1, 3, 8))
    assert not report.faults
    assert [verdict.sentence() for verdict in report.parity.verdicts if not verdict.passed] == []
    assert {verdict.backend for verdict in report.parity.verdicts} == {"onnxruntime", "openvino", "paddle"}


def test_tables_and_transforms_of_like_layers_are_held_once() -> None:
    shared, walk = SharedConstants(), WALKS[4]
    one, other, smaller = (Tiles(walk, 6, size, shared) for size in ((8, 8), (8, 8), (6, 6)))
    assert one.cut is other.cut and one.read is other.read is smaller.read
    assert one.cut is not smaller.cut
