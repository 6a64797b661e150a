"""Every fold of a channel gate against its definition, alone and with the ReLU and max pooling that follow it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

import dyx
from dyx.errors import FoldRefused, LayerUnreadable
from dyx.exporter.apply import default_dtype
from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.plan import make_plan
from dyx.exporter.rule import Neighbour, Offer, Site, Target
from dyx.exporter.rules import RULES
from dyx.nn.eca import ECA, read_eca
from dyx.nn.na import NANet, read_nanet
from dyx.nn.se import SqueezeExcite, read_se

CHANNELS = 6
POOLS = {
    "none": (),
    "3/2": (nn.MaxPool2D(3, 2),),
    "padded": (nn.MaxPool2D(3, 2, padding=1),),
    "ceiling": (nn.MaxPool2D(2, 2, ceil_mode=True),),
    "ReLU, 3/2": (nn.ReLU(), nn.MaxPool2D(3, 2)),
}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def eca(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    reach = len(kernel) // 2
    padded = np.pad(x.mean(axis=(2, 3)), ((0, 0), (reach, reach)))
    return sigmoid(sum(tap * padded[:, i : i + x.shape[1]] for i, tap in enumerate(kernel)))


def se(x: np.ndarray, w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: np.ndarray) -> np.ndarray:
    hidden = np.maximum(x.mean(axis=(2, 3)) @ w1.T + b1, 0)
    return np.clip(hidden @ w2.T + b2 + 3, 0, 6) / 6


def nanet(x: np.ndarray, scale: float, shift: float) -> np.ndarray:
    means = x.mean(axis=1).reshape(len(x), -1)
    closeness = np.exp(-np.abs(means - means.mean(axis=1, keepdims=True)))
    closeness /= closeness.sum(axis=1, keepdims=True)
    context = (x.reshape(*x.shape[:2], -1) * closeness[:, None]).sum(axis=2)
    centred = context - context.mean(axis=1, keepdims=True)
    return sigmoid(scale * centred / (context.std(axis=1, ddof=1, keepdims=True) + 1e-5) + shift)


def make(name: str) -> tuple[Any, Any, Any]:
    """A layer in float64, its parameters, and its factors written out in numpy."""
    paddle.seed(5)
    layer = {"eca": ECA(CHANNELS, 5), "se": SqueezeExcite(CHANNELS, 3), "nanet": NANet()}[name]
    random = np.random.default_rng(2)
    for tensor in layer.parameters():
        tensor.set_value(2 * random.standard_normal(tensor.shape).astype("float32"))
    layer = layer.to(dtype="float64")
    if name == "eca":
        read = read_eca(layer)
        return layer, read, lambda x: eca(x, read.kernel)
    if name == "se":
        seen = read_se(layer)
        return layer, seen, lambda x: se(x, seen.fc1_weight, seen.fc1_bias, seen.fc2_weight, seen.fc2_bias)
    scalars = read_nanet(layer)
    return layer, scalars, lambda x: nanet(x, scalars.scale, scalars.shift)


def varied(batch: int) -> np.ndarray:
    random = np.random.default_rng(batch)
    gain, offset = random.uniform(0.2, 3, (batch, 1, 1, 1)), random.uniform(-2, 2, (batch, CHANNELS, 1, 1))
    return gain * random.standard_normal((batch, CHANNELS, 9, 8)) + offset


def site_of(parameters: Any, pools: tuple[Any, ...], before: Neighbour | None = None) -> Site:
    kinds = {nn.ReLU: "relu", nn.MaxPool2D: "max-pool"}
    after = tuple(Neighbour(f"after.{i}", kinds[type(layer)], layer) for i, layer in enumerate(pools))
    return Site("gate", "gate", "Gate", parameters, (CHANNELS, 9, 8), (CHANNELS, 9, 8), before, after)


def folded(site: Site, rule: str) -> tuple[Any, Offer]:
    (decision,) = make_plan([site], Target(tune_batch=8), (rule,)).decisions
    with default_dtype("float64"):
        return decision.offer.build(SharedConstants()), decision.offer


def then(y: np.ndarray, pools: tuple[Any, ...]) -> np.ndarray:
    tensor = paddle.to_tensor(y)
    for layer in pools:
        tensor = layer(tensor)
    made: np.ndarray = tensor.numpy()
    return made


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("name", ["eca", "se", "nanet"])
@pytest.mark.parametrize("pool", POOLS)
def test_fold_equals_definition(name: str, pool: str) -> None:
    layer, parameters, factors = make(name)
    pools = POOLS[pool]
    site = site_of(parameters, pools)
    rules = ["gate/in-place", "gate/after-pool"] if pools else ["gate/in-place"]
    for rule in rules:
        static, offer = folded(site, rule)
        taken = pools if rule == "gate/after-pool" else ()
        assert offer.takes == tuple(f"after.{i}" for i in range(len(taken)))
        for batch in (1, 2, 5):
            x = varied(batch)
            wanted = then(x * factors(x)[:, :, None, None], taken)
            np.testing.assert_allclose(layer(paddle.to_tensor(x)).numpy(), x * factors(x)[:, :, None, None], rtol=1e-9)
            assert relative(static(paddle.to_tensor(x)).numpy(), wanted) < 1e-9
        single = static.to(dtype="float32")
        assert relative(single(paddle.to_tensor(x.astype("float32"))).numpy(), wanted) < 1e-5


@pytest.mark.parametrize("shift", [-9.0, 9.0], ids=["factors of 0", "factors of 1"])
def test_extreme_factors(shift: float) -> None:
    _, parameters, _ = make("se")
    still = replace(parameters, fc2_weight=np.zeros((CHANNELS, 3)), fc2_bias=np.full(CHANNELS, shift))
    x = varied(3)
    wanted = np.zeros_like(x) if shift < 0 else x
    for rule in ("gate/in-place", "gate/after-pool"):
        pools = POOLS["padded"] if rule == "gate/after-pool" else ()
        static, _ = folded(site_of(still, POOLS["padded"]), rule)
        np.testing.assert_array_equal(static(paddle.to_tensor(x)).numpy(), then(wanted, pools))


def test_after_pool_needs_a_pool_and_costs_less() -> None:
    _, parameters, _ = make("eca")
    with pytest.raises(FoldRefused, match="no max pooling follows"):
        folded(site_of(parameters, (nn.ReLU(),)), "gate/after-pool")
    pooled = site_of(parameters, POOLS["ReLU, 3/2"])
    costs = {rule.id: rule.offer(pooled, Target()) for rule in RULES if rule.kind == "gate"}
    small, large = costs["gate/after-pool"], costs["gate/in-place"]
    assert isinstance(small, Offer)
    assert isinstance(large, Offer)
    pixels = CHANNELS * 9 * 8
    assert large.cost.macs == 2 * pixels
    assert small.cost.macs == pixels + pixels // 4
    assert small.cost.bytes < large.cost.bytes


def test_wide_eca_keeps_its_small_kernel() -> None:
    """A banded matrix grows with the square of the channels."""
    paddle.seed(1)
    layer = ECA(600, 3)
    static = dyx.fold(layer, shape=(600, 4, 4))
    assert sum(tensor.size for tensor in static.parameters()) == 3
    x = paddle.randn([2, 600, 4, 4])
    assert float((static(x) - layer(x)).abs().max()) < 1e-6
    assert sum(tensor.size for tensor in dyx.fold(ECA(48, 3), shape=(48, 4, 4)).parameters()) == 48 * 48


@pytest.mark.parametrize("kind", ["conv", "batch-norm", "nothing"])
def test_mean_factors_go_into_what_stands_before(kind: str) -> None:
    _, parameters, _ = make("eca")
    mean = np.random.default_rng(1).uniform(0, 1, CHANNELS)
    before = {"conv": nn.Conv2D(3, CHANNELS, 3), "batch-norm": nn.BatchNorm2D(CHANNELS), "nothing": None}[kind]
    neighbour = Neighbour("before", kind, before.to(dtype="float64")) if before else None
    if before:
        before.eval()
        before.bias.set_value(np.arange(CHANNELS, dtype="float64"))
    site = replace(site_of(parameters, (), neighbour), mean_attention=(mean,))
    static, offer = folded(site, "gate/mean-attention")
    assert offer.lossy
    assert offer.takes == (("before",) if before else ())
    x = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 3 if kind == "conv" else CHANNELS, 9, 8)))
    static.eval()
    wanted = (before(x) if before else x).numpy() * mean[:, None, None]
    assert relative(static(x).numpy(), wanted) < 1e-9
    with pytest.raises(FoldRefused, match="it needs calibration images"):
        folded(site_of(parameters, ()), "gate/mean-attention")


@pytest.mark.parametrize(
    ("words", "read", "layer"),
    [
        ("it has no attribute 'conv'", read_eca, nn.ReLU()),
        (r"its conv has a weight \[1, 1, 4\]", read_eca, nn.Sequential(("conv", nn.Conv1D(1, 1, 4, bias_attr=False)))),
        (r"its conv has a weight \[2, 1, 3\]", read_eca, nn.Sequential(("conv", nn.Conv1D(1, 2, 3, bias_attr=False)))),
        ("its conv has a bias", read_eca, nn.Sequential(("conv", nn.Conv1D(1, 1, 3)))),
        ("it has no attribute 'fc2'", read_se, nn.Sequential(("fc1", nn.Conv2D(6, 3, 1)))),
        ("its fc2 has shape", read_se, nn.Sequential(("fc1", nn.Conv2D(6, 3, 1)), ("fc2", nn.Conv2D(4, 6, 1)))),
        ("it has no attribute 'weight2'", read_nanet, nn.ReLU()),
    ],
)
def test_layer_that_is_not_what_its_name_says(words: str, read: Any, layer: Any) -> None:
    with pytest.raises(LayerUnreadable, match=words):
        read(layer)
