"""Every fold of a channel gate against its definition, alone and with the ReLU and max pooling that follow it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

import dyx
from dyx.errors import FoldRefused, LayerUnreadable
from dyx.exporter.apply import default_dtype
from dyx.exporter.calibration import mean_attentions
from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.folded.gates import Gated, logistic, means
from dyx.exporter.plan import make_plan
from dyx.exporter.rule import Cost, Neighbour, Offer, Refusal, Site, Target
from dyx.exporter.rules import RULES
from dyx.nn.eca import ECA, read_eca
from dyx.nn.gate import GateParameters
from dyx.nn.na import NANet, NaParameters, read_nanet
from dyx.nn.se import SqueezeExcite, read_se

CHANNELS = 6
POOLS = {
    "none": (),
    "3/2": (nn.MaxPool2D(3, 2),),
    "padded": (nn.MaxPool2D(3, 2, padding=1),),
    "ceiling": (nn.MaxPool2D(2, 2, ceil_mode=True),),
    "ReLU, 3/2": (nn.ReLU(), nn.MaxPool2D(3, 2)),
    "ReLU, padded ceiling": (nn.ReLU(), nn.MaxPool2D(3, 2, padding=1, ceil_mode=True)),
    "uneven": (nn.ReLU(), nn.MaxPool2D((3, 2), (1, 3), padding=(1, 0))),
}


def row_conv(**walk: Any) -> Any:
    paddle.seed(3)
    return nn.Sequential(("conv", nn.Conv1D(1, 1, 3, bias_attr=False, **walk)))


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


def offers(site: Site) -> dict[str, Offer | Refusal]:
    return {rule.id: rule.offer(site, Target()) for rule in RULES if rule.kind == "gate"}


def test_costs_are_of_the_same_layers() -> None:
    """Gate, ReLU and pooling: every pass over the map, and over the pooled one, counts once for what it moves."""
    _, parameters, _ = make("eca")
    pixels, pooled = CHANNELS * 9 * 8, CHANNELS * 4 * 3
    whole, small = (
        offers(site_of(parameters, POOLS["ReLU, 3/2"]))[f"gate/{name}"] for name in ("in-place", "after-pool")
    )
    assert isinstance(whole, Offer)
    assert isinstance(small, Offer)
    # Means, product (2), ReLU (2), pooling; means, pooling, then product (2) and ReLU (2) of the pooled map.
    assert whole.cost == Cost(2 * pixels, 4 * (6 * pixels + pooled))
    assert small.cost == Cost(pixels + pooled, 4 * (2 * pixels + 5 * pooled))
    nanet = make("nanet")[1]
    weighed = offers(site_of(nanet, ()))["gate/in-place"]
    assert isinstance(weighed, Offer)
    assert weighed.cost.bytes == 4 * 5 * pixels, "positions are weighed before they are averaged"


@pytest.mark.parametrize(("stride", "chosen"), [(1, "gate/in-place"), (2, "gate/after-pool")])
def test_product_waits_only_where_the_map_becomes_smaller(stride: int, chosen: str) -> None:
    _, parameters, _ = make("eca")
    site = site_of(parameters, (nn.ReLU(), nn.MaxPool2D(3, stride, padding=1)))
    assert make_plan([site], Target()).decisions[0].rule == chosen


@pytest.mark.parametrize(
    ("words", "after"),
    [
        ("no max pooling follows", ()),
        ("no max pooling follows", (nn.ReLU(),)),
        ("gives positions too", (nn.MaxPool2D(2, 2, return_mask=True),)),
        ("windows that hold nothing but padding", (nn.ReLU(), nn.MaxPool2D(2, 2, padding=1, ceil_mode=True))),
    ],
)
def test_product_cannot_wait(words: str, after: tuple[Any, ...]) -> None:
    _, parameters, _ = make("eca")
    with pytest.raises(FoldRefused, match=words):
        folded(site_of(parameters, after), "gate/after-pool")
    assert isinstance(offers(site_of(parameters, after))["gate/in-place"], Offer)


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("there are static forms of EcaParameters, SeParameters, NaParameters only", {"layer": GateParameters()}),
        ("its input has 1 spatial axes", {"input_shape": (CHANNELS, 9)}),
        ("standardised over channels, and there is one only", {"input_shape": (1, 9, 8), "layer": NaParameters(1, 1)}),
    ],
)
def test_gates_without_a_static_form(words: str, change: dict[str, Any]) -> None:
    _, parameters, _ = make("eca")
    with pytest.raises(FoldRefused, match=words):
        make_plan([replace(site_of(parameters, ()), **change)], Target())


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


def test_batch_norm_without_weight_or_bias_carries_factors_too() -> None:
    _, parameters, _ = make("eca")
    mean = np.random.default_rng(1).uniform(0, 1, CHANNELS)
    norm = nn.BatchNorm2D(CHANNELS, weight_attr=False, bias_attr=False).to(dtype="float64")
    norm._mean.set_value(np.arange(CHANNELS, dtype="float64"))
    norm.eval()
    site = replace(site_of(parameters, (), Neighbour("before", "batch-norm", norm)), mean_attention=(mean,))
    static, _ = folded(site, "gate/mean-attention")
    static.eval()
    x = paddle.to_tensor(varied(2))
    assert relative(static(x).numpy(), norm(x).numpy() * mean[:, None, None]) < 1e-9


@pytest.mark.parametrize("name", ["eca", "se", "nanet"])
def test_mean_factors_over_images(name: str) -> None:
    """As calibration asks for them, from a hook of the layer itself; an input of zeros has factors like any other."""
    layer, _, factors = make(name)
    x = varied(4)
    x[0, :2] = 0
    found = mean_attentions(nn.Sequential(layer), x)
    np.testing.assert_allclose(found["0"][0], factors(x).mean(axis=0), rtol=1e-9)


def test_network_of_gates_prints_nothing(tmp_path: Path) -> None:
    """Paddle's own mean over channels falls back under oneDNN and writes so to stdout, where results are expected."""
    (tmp_path / "net.py").write_text(NETWORK)
    bundle = dyx.export(f"{tmp_path / 'net.py'}:Net", out=tmp_path / "bundle", shape=(3, 16, 16), tune_batch=4)
    script = (
        f"import dyx, numpy; dyx.open({str(bundle.path)!r}, 'paddle', 'cpu').run(numpy.ones((2, 3, 16, 16), 'float32'))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == ""
    assert dyx.check(bundle, batches=(1, 3, 8)).passed


NETWORK = """
from paddle import nn
from dyx.nn.eca import ECA
from dyx.nn.na import NANet
from dyx.nn.se import SqueezeExcite

class Net(nn.Sequential):
    def __init__(self):
        gates = nn.Conv2D(3, 8, 3, padding=1), ECA(8), nn.ReLU(), nn.MaxPool2D(3, 2, padding=1), SqueezeExcite(8, 4)
        super().__init__(*gates, nn.Conv2D(8, 260, 3), NANet(), ECA(260, 5), nn.AdaptiveAvgPool2D(1), nn.Flatten())
"""


@pytest.mark.parametrize(
    ("words", "read", "layer"),
    [
        ("it has no attribute 'conv'", read_eca, nn.ReLU()),
        (r"its conv has a weight \[1, 1, 4\]", read_eca, nn.Sequential(("conv", nn.Conv1D(1, 1, 4, bias_attr=False)))),
        (r"its conv has a weight \[2, 1, 3\]", read_eca, nn.Sequential(("conv", nn.Conv1D(1, 2, 3, bias_attr=False)))),
        ("its conv has a bias", read_eca, nn.Sequential(("conv", nn.Conv1D(1, 1, 3, padding=1)))),
        ("its conv is a Conv2D", read_eca, nn.Sequential(("conv", nn.Conv2D(1, 1, 3)))),
        ("does not give a score per channel", read_eca, row_conv(padding=0)),
        ("does not give a score per channel", read_eca, row_conv(padding=1, stride=2)),
        ("does not give a score per channel", read_eca, row_conv(padding=2, dilation=2)),
        ("does not give a score per channel", read_eca, row_conv(padding=1, padding_mode="circular")),
        ("it has no attribute 'fc2'", read_se, nn.Sequential(("fc1", nn.Conv2D(6, 3, 1)))),
        ("its fc2 has shape", read_se, nn.Sequential(("fc1", nn.Conv2D(6, 3, 1)), ("fc2", nn.Conv2D(4, 6, 1)))),
        ("it has no attribute 'weight2'", read_nanet, nn.ReLU()),
    ],
)
def test_layer_that_is_not_what_its_name_says(words: str, read: Any, layer: Any) -> None:
    with pytest.raises(LayerUnreadable, match=words):
        read(layer)


class Same(nn.Layer):
    """A layer in front of an identity, since Paddle saves no network without parameters."""

    def __init__(self, layer: Any, channels: int) -> None:
        super().__init__()
        self.layer, self.same = layer, nn.Linear(channels, channels)
        self.same.weight.set_value(np.eye(channels, dtype=np.float32))

    def forward(self, image: Any) -> Any:
        """`(B, C)`, the means of `(B, C, H, W)`."""
        return self.same(self.layer(image).mean([2, 3]))


def on_onnxruntime(layer: Any, x: np.ndarray, folder: Path) -> np.ndarray:
    """What the exported file answers."""
    import onnxruntime

    from dyx.exporter.converter import Converter
    from dyx.exporter.to_onnx import to_onnx
    from dyx.exporter.to_paddle import to_paddle
    from dyx.tensors import BATCH, TensorSpec

    network = Same(layer, x.shape[1])
    network.eval()
    image, logits = TensorSpec("image", "float32", (BATCH, *x.shape[1:])), TensorSpec("logits", "float32", (BATCH, 3))
    to_paddle(network, image, folder)
    with Converter() as converter:
        to_onnx(converter, folder, image, replace(logits, shape=(BATCH, x.shape[1])))
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    answer: np.ndarray = session.run(None, {"image": x})[0]
    return answer


class Far(nn.Layer):
    """Scores are the means themselves."""

    def forward(self, x: Any) -> Any:
        """Factors `(B, C, 1, 1)`."""
        return logistic(x.mean([2, 3], keepdim=True))


class Pooled(nn.Layer):
    """Means as every gate takes them."""

    def forward(self, x: Any) -> Any:
        """`(B, C, 1, 1)`."""
        return means(x)


def test_nearly_closed_gates_keep_their_factors_in_float32(tmp_path: Path) -> None:
    """onnxruntime's own sigmoid is 0 below -18; a layer whose every gate is that far down is not silent."""
    scores = np.array([[-15, -20, -60], [-80, 3, 40]], np.float32)
    x = np.broadcast_to(scores[:, :, None, None], (2, 3, 2, 2)).copy()
    wanted = scores * sigmoid(scores.astype(np.float64))
    got = on_onnxruntime(Gated(Far()), x, tmp_path)
    # The identity behind it mixes rows in float32: each channel is told against its own row's largest.
    np.testing.assert_allclose(got[0], wanted[0], rtol=2e-5, atol=1e-6 * np.abs(wanted[0]).max())
    np.testing.assert_allclose(got[1], wanted[1], rtol=2e-5, atol=1e-6 * np.abs(wanted[1]).max())


def test_means_of_large_maps_lose_little_in_float32(tmp_path: Path) -> None:
    """Added up one by one, 1,024 positions lose five times as much."""
    x = (np.random.default_rng(0).standard_normal((16, 16, 32, 32)) * 30 + 5).astype(np.float32)
    wanted = x.astype(np.float64).mean((2, 3))
    error = np.abs(on_onnxruntime(Pooled(), x, tmp_path) - wanted).max() / np.sqrt((wanted**2).mean())
    assert error < 8e-7  # a single pooling: 1.7e-6
