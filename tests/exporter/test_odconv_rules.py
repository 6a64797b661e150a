"""Every fold of ODConv against its definition, attentions and convolution written out sample by sample."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

import dyx
from dyx.bundle import PADDLE_PROGRAM
from dyx.errors import FoldRefused, LayerUnreadable
from dyx.exporter.algebra import Affine
from dyx.exporter.apply import default_dtype
from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.plan import make_plan
from dyx.exporter.rule import Neighbour, Offer, Refusal, Site, Target
from dyx.exporter.rules import RULES
from dyx.exporter.to_paddle import to_paddle
from dyx.nn.odconv import Head, ODConv2D, OdConvParameters, read_odconv
from dyx.paddle_program import read_program
from dyx.tensors import TensorSpec

EXACT = [rule for rule in RULES if rule.kind == "odconv" and not rule.id.endswith("mean-attention")]
GEOMETRIES: dict[str, dict[str, Any]] = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "3x3 strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "1x1": {"kernel_size": 1},
    "1x1 strided": {"kernel_size": 1, "stride": 2},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 4},
    "grouped 1x1": {"kernel_size": 1, "groups": 2},
    "depthwise": {"kernel_size": 3, "padding": 1, "groups": 8, "out_planes": 8},
    "depthwise strided": {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 8, "out_planes": 8},
    "depthwise 5x5": {"kernel_size": 5, "padding": 2, "groups": 8, "out_planes": 8},
}


def layer_of(experts: int, out_planes: int = 12, temperature: float = 1.0, **geometry: Any) -> Any:
    paddle.seed(4)
    random = np.random.default_rng(8)
    layer = ODConv2D(8, out_planes, kernel_num=experts, **geometry)
    for key, tensor in layer.state_dict().items():
        drawn = random.uniform(0.5, 2, tensor.shape) if "_variance" in key else random.standard_normal(tensor.shape)
        tensor.set_value(drawn.astype("float32"))
    layer.attention.temperature = temperature
    layer.eval()
    return layer.to(dtype="float64")


def attentions(layer: OdConvParameters, image: np.ndarray) -> list[np.ndarray]:
    weight, bias, mean, variance, epsilon = layer.norm
    hidden = layer.fc @ image.mean(axis=(1, 2))
    v = np.maximum(weight * (hidden - mean) / np.sqrt(variance + np.float64(np.float32(epsilon))) + bias, 0)

    def scores(head: Head) -> np.ndarray:
        return (head.weight @ v + head.bias) / layer.temperature

    sizes = (layer.channels_in, layer.channels_out, layer.weight[0, 0, 0].size)
    heads = (layer.channel, layer.filters, layer.spatial)
    found = [
        np.ones(n) if head is None else 1 / (1 + np.exp(-scores(head))) for head, n in zip(heads, sizes, strict=True)
    ]
    raised = np.ones(1) if layer.kernel is None else np.exp(scores(layer.kernel) - scores(layer.kernel).max())
    return [*found, raised / raised.sum()]


def definition(layer: OdConvParameters, images: np.ndarray, affine: Affine | None, given: Any = None) -> np.ndarray:
    made = []
    for image in images:
        channel, filters, spatial, kernel = given or attentions(layer, image)
        mixed = np.tensordot(kernel, layer.weight, 1) * spatial.reshape(layer.geometry.kernel)
        x, w = paddle.to_tensor((channel[:, None, None] * image)[None]), paddle.to_tensor(mixed)
        y = filters[:, None, None] * layer.geometry.convolve(x, w).numpy()[0]
        made.append(y if affine is None else y * affine.scale[:, None, None] + affine.shift[:, None, None])
    return np.stack(made)


def varied(batch: int) -> np.ndarray:
    random = np.random.default_rng(batch)
    gain, offset = random.uniform(0.2, 3, (batch, 1, 1, 1)), random.uniform(-2, 2, (batch, 8, 1, 1))
    return gain * random.standard_normal((batch, 8, 9, 7)) + offset


def site_of(parameters: OdConvParameters, affine: Affine | None = None) -> Site:
    shape = definition(parameters, varied(1), None).shape[1:]
    after = (Neighbour("norm", "batch-norm", None, affine),) if affine else ()
    return Site("layer", "odconv", "ODConv2D", parameters, (8, 9, 7), shape, None, after)


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


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("experts", [1, 2, 4])
@pytest.mark.parametrize("norm", [True, False], ids=["norm", "no norm"])
def test_every_fold_equals_definition(geometry: str, experts: int, norm: bool) -> None:
    layer = layer_of(experts, temperature=1.7, **GEOMETRIES[geometry])
    parameters = read_odconv(layer)
    affine = some_affine(parameters.channels_out) if norm else None
    site = site_of(parameters, affine)
    offering = [rule.id for rule in EXACT if isinstance(rule.offer(site, Target(tune_batch=8)), Offer)]
    assert "odconv/aggregate-kernel" in offering
    assert ("odconv/aggregate-winograd" in offering) == (geometry == "3x3")
    assert ("odconv/aggregate-scan" in offering) == geometry.startswith("depthwise")
    for rule in offering:
        static = folded(site, rule)
        for batch in (1, 2, 5):
            images = varied(batch)
            wanted = definition(parameters, images, affine)
            assert relative(static(paddle.to_tensor(images)).numpy(), wanted) < 1e-9, rule
        if affine is None:
            assert relative(layer(paddle.to_tensor(images)).numpy(), wanted) < 1e-9, "the definition is the layer's"
        single = static.to(dtype="float32")
        assert relative(single(paddle.to_tensor(images.astype("float32"))).numpy(), wanted) < 1e-5, rule


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("experts", [1, 4])
def test_channels_last_change_no_answer(geometry: str, experts: int) -> None:
    parameters = read_odconv(layer_of(experts, temperature=1.7, **GEOMETRIES[geometry]))
    affine = some_affine(parameters.channels_out)
    static = folded(site_of(parameters, affine), "odconv/aggregate-kernel", channels_last=True)
    for batch in (1, 5):
        images = varied(batch)
        assert relative(static(paddle.to_tensor(images)).numpy(), definition(parameters, images, affine)) < 1e-9


@pytest.mark.parametrize("rule", ["odconv/aggregate-kernel", "odconv/aggregate-winograd"])
@pytest.mark.parametrize("side", [2, 9], ids=["filters into the kernel", "filters onto the output"])
def test_filter_attention_goes_where_there_is_less(side: int, rule: str) -> None:
    parameters = read_odconv(layer_of(2, kernel_size=3, padding=1))
    site = replace(site_of(parameters), output_shape=(12, 20, 20) if side == 2 else (12, 2, 2))
    static = folded(site, rule)
    assert static.filters_kernel == (side == 2)
    images = varied(3)
    assert relative(static(paddle.to_tensor(images)).numpy(), definition(parameters, images, None)) < 1e-9


@pytest.mark.parametrize(
    ("geometry", "rule"),
    [*((geometry, "odconv/aggregate-kernel") for geometry in GEOMETRIES), ("3x3", "odconv/aggregate-winograd")],
)
@pytest.mark.parametrize("side", [2, 40], ids=["filters onto the output", "filters into the kernel"])
def test_folds_are_traced_without_asking_for_sizes(geometry: str, rule: str, side: int, tmp_path: Path) -> None:
    """Layers of dyx are traced as they stand: a size that Paddle does not know there would stop the export."""
    parameters = read_odconv(layer_of(2, **GEOMETRIES[geometry]))
    site = site_of(parameters)
    site = replace(site, output_shape=(parameters.channels_out, side, side))
    static = folded(site, rule).to(dtype="float32")
    to_paddle(static, TensorSpec("image", "float32", ("batch", 8, 9, 7)), tmp_path)
    operators = {each.name for each in read_program(tmp_path / PADDLE_PROGRAM)}
    assert "matmul" in operators and not any("shape" in name for name in operators - {"reshape"})


@pytest.mark.parametrize("experts", [1, 2])
@pytest.mark.parametrize("rule", ["odconv/aggregate-kernel", "odconv/aggregate-winograd"])
@pytest.mark.parametrize("side", [2, 40], ids=["filters onto the output", "filters into the kernel"])
def test_no_product_broadcasts_both_its_sides(experts: int, rule: str, side: int, tmp_path: Path) -> None:
    """A kernel that is the same for all samples, times factors of a sample: Paddle's oneDNN is slow at that."""
    parameters = read_odconv(layer_of(experts, kernel_size=3, padding=1))
    site = replace(site_of(parameters), output_shape=(12, side, side))
    static = folded(site, rule).to(dtype="float32")
    to_paddle(static, TensorSpec("image", "float32", ("batch", 8, 9, 7)), tmp_path)
    operations = read_program(tmp_path / PADDLE_PROGRAM)
    shapes = {one: shape for each in operations for one, shape in zip(each.outputs, each.shapes, strict=True)}
    products = [each for each in operations if each.name == "multiply"]
    assert products
    for each in products:
        given = [shapes[one] for one in each.inputs]
        assert each.shapes[0] in given, f"{given} to {each.shapes[0]}"


def test_a_depthwise_layer_may_have_filter_attention() -> None:
    """The official code leaves it out there; a layer of one's own may not."""
    parameters = read_odconv(layer_of(2, **GEOMETRIES["depthwise"]))
    random = np.random.default_rng(3)
    head = Head(random.standard_normal((8, len(parameters.fc))), random.standard_normal(8))
    with_filters = replace(parameters, filters=head)
    images = varied(3)
    got = folded(site_of(with_filters), "odconv/aggregate-kernel")(paddle.to_tensor(images)).numpy()
    assert relative(got, definition(with_filters, images, None)) < 1e-9


def test_extreme_attention() -> None:
    """Heads so cold that every attention is 0, 1 or one-hot."""
    for geometry in ("3x3", "1x1", "depthwise"):
        parameters = replace(read_odconv(layer_of(3, **GEOMETRIES[geometry])), temperature=1e-3)
        site, images = site_of(parameters), varied(4)
        wanted = definition(parameters, images, None)
        for rule in EXACT:
            if isinstance(rule.offer(site, Target()), Offer):
                assert relative(folded(site, rule.id)(paddle.to_tensor(images)).numpy(), wanted) < 1e-9


def test_mean_attention_is_a_static_convolution() -> None:
    for geometry in ("grouped", "1x1", "depthwise"):
        parameters = read_odconv(layer_of(3, **GEOMETRIES[geometry]))
        affine = some_affine(parameters.channels_out)
        means = tuple(
            np.mean([attentions(parameters, image)[part] for image in varied(6)], axis=0) for part in range(4)
        )
        site = replace(site_of(parameters, affine), mean_attention=means)
        static = folded(site, "odconv/mean-attention")
        images = varied(2)
        wanted = definition(parameters, images, affine, given=means)
        assert relative(static(paddle.to_tensor(images)).numpy(), wanted) < 1e-9
        with pytest.raises(FoldRefused, match="it needs calibration images"):
            folded(site_of(parameters), "odconv/mean-attention")


def test_rules_refuse_what_they_do_not_fold() -> None:
    reasons = {}
    for experts, geometry in ((1, "1x1"), (4, "1x1"), (4, "3x3")):
        site = site_of(read_odconv(layer_of(experts, **GEOMETRIES[geometry])))
        for rule in EXACT:
            answer = rule.offer(site, Target(tune_batch=8))
            if isinstance(answer, Refusal):
                reasons[experts, geometry, rule.id.partition("/")[2]] = answer.reason
    taps = "its kernel has 9 taps, each with an attention of its own; this rule folds 1×1"
    whole = "it convolves 8 channels in 1 group, not each by itself"
    assert reasons == {
        **{(*layer, "aggregate-scan"): whole for layer in ((1, "1x1"), (4, "1x1"), (4, "3x3"))},
        (1, "1x1", "mix-outputs"): "it has 1 expert; this rule folds several",
        (1, "1x1", "mix-inputs"): "it has 1 expert; this rule folds several",
        (4, "1x1", "static"): "it has 4 experts; this rule folds one",
        **{(k, "1x1", "aggregate-winograd"): "its kernel is [1, 1]; tiles are for squares of 2 to 5" for k in (1, 4)},
        **{(4, "3x3", rule): taps for rule in ("static", "mix-outputs", "mix-inputs")},
    }
    with pytest.raises(FoldRefused, match=r"one kernel per sample takes \d+ MiB at batch 1000000"):
        site = site_of(read_odconv(layer_of(2, kernel_size=3, padding=1)))
        make_plan([site], Target(tune_batch=10**6), ("odconv/aggregate-kernel",))


def test_costs_count_what_the_rules_do() -> None:
    site = site_of(read_odconv(layer_of(2, kernel_size=3, padding=1)))
    offers = {rule.id: rule.offer(site, Target(tune_batch=64)) for rule in EXACT}
    aggregate = offers["odconv/aggregate-kernel"]
    assert isinstance(aggregate, Offer)
    kernel, positions = 12 * 8 * 9, 63
    assert aggregate.cost.macs == kernel * positions + 2 * kernel + kernel
    assert aggregate.widest == 8 * 9 * positions
    small = replace(site, output_shape=(12, 2, 2))
    assert [
        rule.offer(small, Target(tune_batch=64)).widest for rule in EXACT if rule.id == "odconv/aggregate-kernel"
    ] == [kernel]
    depthwise = site_of(read_odconv(layer_of(2, **GEOMETRIES["depthwise"])))
    assert [rule.offer(depthwise, Target()).widest for rule in EXACT if rule.id == "odconv/aggregate-kernel"] == [0]
    pointwise = site_of(read_odconv(layer_of(2, kernel_size=1)))
    macs = {rule.id: rule.offer(pointwise, Target(tune_batch=64)) for rule in EXACT}
    made = {name: offer.cost.macs for name, offer in macs.items() if isinstance(offer, Offer)}
    assert made["odconv/mix-outputs"] == 2 * (12 * 8 * positions + 12 * positions)
    assert made["odconv/mix-inputs"] == 2 * (12 * 8 * positions + 8 * positions)


def test_layer_is_folded_with_its_own_temperature() -> None:
    layer = ODConv2D(8, 6, 3, padding=1, kernel_num=2)
    layer.eval()
    x = 3 * paddle.randn([2, 8, 7, 7])
    layer.attention.temperature = 20.0
    assert float((dyx.fold(layer, temperature=20)(x) - layer(x)).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("it has no attribute 'attention'", lambda layer: delattr(layer, "attention")),
        ("its channel_fc is None", lambda layer: setattr(layer.attention, "channel_fc", None)),
        ("its filter_fc is None, where its weight needs 6", lambda layer: setattr(layer.attention, "filter_fc", None)),
        ("its spatial_fc is None", lambda layer: setattr(layer.attention, "spatial_fc", None)),
        ("its kernel_fc is None", lambda layer: setattr(layer.attention, "kernel_fc", None)),
        (
            r"its kernel_fc has shape \[5, 16\], where \[2, 16\]",
            lambda layer: setattr(layer.attention, "kernel_fc", paddle.nn.Conv2D(16, 5, 1)),
        ),
        ("it has no attribute 'temperature'", lambda layer: delattr(layer.attention, "temperature")),
    ],
)
def test_layer_that_is_not_what_its_name_says(words: str, change: Any) -> None:
    layer = ODConv2D(8, 6, 3, kernel_num=2)
    change(layer)
    with pytest.raises(LayerUnreadable, match=words):
        read_odconv(layer)
