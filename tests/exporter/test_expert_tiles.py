"""Experts mixed in a transform domain: against the definition, part by part, and on every backend."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import paddle
import pytest

import dyx
from dyx.exporter.apply import default_dtype
from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.folded.experts import AggregateTiles
from dyx.exporter.folded.tiles import TransformedMap
from dyx.exporter.rule import MACHINES, Cost, Offer, Refusal, Site, Target
from dyx.exporter.rules.tiles import experts_cost, experts_in_tiles
from dyx.nn.dyconv import DYConv2D
from dyx.nn.geometry import Geometry

BIAS = Cost(0, 24)


def walk(taps: int = 3, padding: int = 1) -> Geometry:
    return Geometry((taps, taps), (1, 1), (padding, padding), (1, 1), 1)


ATTENTION = {
    "equal": np.full((3, 2), 0.5),
    "one-hot": np.eye(2)[[1, 0, 1]],
    "unlike": np.array([[0.3, 0.7], [1.2, -0.4], [0.9, 0.1]]),
}


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("taps", "padding", "inputs", "size", "parts", "left"),
    [
        (3, 1, 4, (7, 7), 16, True),
        (3, 1, 4, (7, 7), 1, True),
        (3, 1, 4, (10, 13), 8, False),
        (3, 0, 6, (9, 9), 4, True),
        (5, 2, 8, (17, 17), 9, False),
        (2, 1, 4, (3, 4), 2, True),
    ],
)
def test_experts_mixed_in_parts_are_the_definition(
    attention: str, dtype: str, taps: int, padding: int, inputs: int, size: tuple[int, int], parts: int, left: bool
) -> None:
    random = np.random.default_rng(0)
    weight, bias = random.standard_normal((2, 4, 6, taps, taps)), random.standard_normal((2, 4))
    offset, x, mixed = random.standard_normal(4), random.standard_normal((3, 6, *size)), ATTENTION[attention]
    geometry = walk(taps, padding)
    with default_dtype(dtype):
        layer = AggregateTiles(
            None, weight, bias, offset, TransformedMap(geometry, inputs, size, SharedConstants()), parts
        )
        got = layer(paddle.to_tensor(x.astype(dtype)), paddle.to_tensor(mixed.astype(dtype))).numpy()
        smaller = layer(paddle.to_tensor(x[:1, :, 1:].astype(dtype)), paddle.to_tensor(mixed[:1].astype(dtype)))
    assert layer.kernels_left == left
    wanted = definition(x, weight, bias, offset, mixed, geometry)
    tolerance = 1e-9 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(got, wanted, rtol=0, atol=np.abs(wanted).max() * tolerance)
    cut = definition(x[:1, :, 1:], weight, bias, offset, mixed[:1], geometry)
    np.testing.assert_allclose(smaller.numpy(), cut, rtol=0, atol=np.abs(cut).max() * tolerance)


def definition(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, offset: np.ndarray, mixed: np.ndarray, geometry: Geometry
) -> np.ndarray:
    """`conv(x_b, Σ_k a_bk W_k) + Σ_k a_bk b_k + t`, sample by sample in float64."""
    made = []
    for image, a in zip(x, mixed, strict=True):
        kernel = paddle.to_tensor(np.tensordot(a, weight, 1))
        y = geometry.convolve(paddle.to_tensor(image[None]), kernel).numpy()[0]
        made.append(y + (a @ bias + offset)[:, None, None])
    return np.stack(made)


def site(size: int, channels: int, experts: int = 4, **facts: Any) -> Site:
    geometry = Geometry((3, 3), facts.get("stride", (1, 1)), (1, 1), (1, 1), 1)
    layer = SimpleNamespace(
        geometry=geometry,
        experts=experts,
        channels_in=channels,
        channels_out=channels,
        weight=np.broadcast_to(0.0, (experts, channels, channels, 3, 3)),
    )
    return Site("layer", "dyconv", "DYConv2D", layer, (channels, size, size), (channels, size, size))


def offer(one: Site, **target: Any) -> Any:
    return experts_in_tiles(
        one, Target(**{"tune_batch": 8, **target}), lambda tiles, parts: (tiles, parts), BIAS, ("norm",)
    )


@pytest.mark.parametrize(
    ("size", "channels", "form", "widest"),
    [
        (56, 64, "experts mixed per sample in 1 part, 196 × 36 products for 3136 outputs", 196 * 36 * 64),
        (14, 256, "experts mixed per sample in 8 parts, 49 × 16 products for 196 outputs", 9 * 256**2),
        (7, 512, "experts mixed per sample in 16 parts, 16 × 16 products for 49 outputs", 9 * 512**2),
    ],
)
def test_large_kernels_are_mixed_in_parts(size: int, channels: int, form: str, widest: int) -> None:
    found = offer(site(size, channels))
    assert isinstance(found, Offer)
    assert (found.form, found.widest, found.takes) == (form, widest, ("norm",))
    tiles, parts = found.build(SharedConstants())
    assert f"in {parts} part" in form and f"{tiles.count} × {len(tiles.read)} products" in form


def test_cost_counts_what_the_layer_does() -> None:
    """4 × 4 tiles of 4 inputs on 7 × 7, 16 products, 2 × 2 outputs each; two experts."""
    channels, tiles = 32, 16
    whole, parted = (experts_cost(site(7, channels, experts=2), 4, parts) for parts in (1, 8))
    transforms = 16 * 16 * tiles * channels + 4 * 16 * tiles * channels
    assert whole.macs == parted.macs == transforms + 16 * (tiles + 2) * channels**2
    moved = (5 + 3) * 49 * channels + 2 * (16 + 16 + 16 + 4) * tiles * channels
    assert whole.bytes == 4 * (moved + 2 * 16 * channels**2)
    assert parted.bytes == 4 * (moved + 2 * 16 * tiles * (channels + channels))
    assert (whole.cached_bytes, parted.cached_bytes) == (0, 4 * 2 * 16 * channels**2)
    assert whole.weight_bytes == parted.weight_bytes == 4 * 2 * 16 * channels**2
    found = offer(site(7, 512))
    assert found.cost == experts_cost(site(7, 512), 4, 16) + BIAS


def test_what_stays_in_a_cache_costs_less_but_on_paddle() -> None:
    for backend, machines in MACHINES.items():
        for machine in machines.values():
            moved, cached = (machine.seconds(Cost(0, *each), 1) for each in ((800, 0), (0, 0, 0, 0, 0, 800)))
            assert moved / cached == pytest.approx(1 if backend == "paddle" else 4)


@pytest.mark.parametrize(
    ("one", "target", "reason"),
    [
        (site(7, 512, stride=(2, 2)), {}, "its stride is [2, 2] and its dilation [1, 1]; tiles need 1"),
        (site(7, 64), {"tolerance": 1e-7}, "tiles of 4 inputs round by"),
        (site(7, 512, experts=32), {}, "its factors take 512 MiB, over 256 MiB"),
        (site(7, 512), {"tune_batch": 512}, "one kernel per sample takes 8192 MiB at batch 512, over 1024 MiB"),
    ],
    ids=["stride", "tolerance", "factors", "memory"],
)
def test_what_cannot_be_mixed_in_tiles_is_refused(one: Site, target: dict[str, Any], reason: str) -> None:
    found = offer(one, **target)
    assert isinstance(found, Refusal)
    assert found.reason.startswith(reason)


def test_tiles_whose_factors_are_too_large_leave_smaller_ones() -> None:
    """Of 16 experts tiles of 4 inputs take 256 MiB, all others more."""
    assert offer(site(56, 512, experts=16)).form.endswith("784 × 16 products for 3136 outputs")


class Parted(paddle.nn.Layer):
    """Experts on maps of 14 × 14 and 7 × 7, large enough to be mixed in parts, with kernels on the right and left."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = paddle.nn.Conv2D(3, 256, 3, 2, 1)
        self.large = paddle.nn.Sequential(*self.block(), *self.block(), *self.block())
        self.pool = paddle.nn.MaxPool2D(2)
        self.small = paddle.nn.Sequential(*self.block())
        self.head = paddle.nn.Linear(256, 10)

    def block(self) -> list[paddle.nn.Layer]:
        heated = DYConv2D(256, 256, 3, padding=1, num_experts=2)
        return [heated, paddle.nn.BatchNorm2D(256), paddle.nn.ReLU()]

    def forward(self, image: Any) -> Any:
        x = self.small(self.pool(self.large(paddle.nn.functional.relu(self.stem(image / 16)))))
        return self.head(x.mean([2, 3]))


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("parted") / "bundle"
    return dyx.export(
        f"{__file__}:Parted", shape=(3, 28, 28), out=out, fold=("dyconv/aggregate-winograd",), tune_batch=8
    )


def test_every_backend_gives_the_answers_of_float64(parted: Any) -> None:
    forms = [site["form"] for site in parted.manifest["plan"]["sites"]]
    in_parts = "experts mixed per sample in 8 parts"
    assert forms == [f"{in_parts}, 49 × 16 products for 196 outputs"] * 3 + [
        f"{in_parts}, 16 × 16 products for 49 outputs"
    ]
    report = dyx.check(parted, batches=(1, 3, 8))
    assert not report.faults
    assert [verdict.sentence() for verdict in report.parity.verdicts if not verdict.passed] == []
    assert {verdict.backend for verdict in report.parity.verdicts} == {"onnxruntime", "openvino", "paddle"}


def test_maps_stay_in_rows_between_two_such_layers(parted: Any, tmp_path: Path) -> None:
    """onnxruntime takes the transposes behind three layers past bias and ReLU, to those before the next."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(parted.file("model.onnx")), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    turned = [list(node.attribute[0].ints) for node in nodes if node.op_type == "Transpose"]
    assert turned.count([0, 3, 1, 2]) == 1, "behind the last layer"
