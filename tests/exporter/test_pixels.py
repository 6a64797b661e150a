"""Networks that take pixels: the normalisation inside, exact wherever it went."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import paddle
import pytest
from paddle import nn

import dyx
from dyx.bundle import Bundle
from dyx.errors import FoldDiffers, InvalidOption, InvalidTensor, ModelUnusable
from dyx.exporter.apply import default_dtype
from dyx.exporter.pixels import fold_normalisation, taking_pixels
from dyx.exporter.planned import plan
from dyx.preprocess import Preprocess
from dyx.runtime import BACKENDS
from dyx.zoo.source import load_source
from dyx.zoo.weights import draw_weights

NETWORKS = Path(__file__).parents[1] / "data" / "first_layers.py"
SHAPE = (3, 14, 14)
UNEVEN = Preprocess(SHAPE[1:], (0.485, 0.456, 0.306), (0.229, 0.424, 0.125))
PIXELS = np.random.default_rng(0).integers(0, 256, (6, *SHAPE), dtype=np.uint8)
PIXELS[0], PIXELS[1] = 0, 255


def normalised(pixels: np.ndarray, preprocess: Preprocess = UNEVEN) -> np.ndarray:
    """The definition, in float64."""
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    return np.asarray((pixels / 255 - mean) / std)


def answers(network: Any, image: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        return np.asarray(network(paddle.to_tensor(image)).numpy())


def distance(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.fixture
def net() -> Callable[..., Any]:
    """`net(first, kind)`: a float64 classifier behind a layer that gives 8 channels."""

    def made(first: Callable[[], Any], kind: Callable[..., Any] = nn.Sequential) -> Any:
        paddle.seed(3)
        with default_dtype("float64"):
            layers = (first(), nn.ReLU(), nn.AdaptiveAvgPool2D(2), nn.Flatten(), nn.Linear(32, 5))
            found = kind(*layers)
        found.eval()
        return found

    return made


def folded(network: Any) -> tuple[Any, str]:
    taking = taking_pixels(network, UNEVEN, "float64")
    before = answers(taking, PIXELS)
    found = fold_normalisation(taking, network, PIXELS.astype(np.float64), "net")
    np.testing.assert_array_equal(answers(taking, PIXELS), before, "the network given stays as it is")
    return found


def test_network_that_takes_pixels_computes_what_it_did_of_normalised_ones(net: Any) -> None:
    network = net(lambda: nn.Conv2D(3, 8, 3, padding=1))
    taking, wanted = taking_pixels(network, UNEVEN, "float64"), answers(network, normalised(PIXELS))
    assert distance(answers(taking, PIXELS), wanted) < 1e-12
    assert distance(answers(taking, PIXELS.astype(np.float64)), wanted) < 1e-12
    assert distance(answers(copy.deepcopy(taking), PIXELS), wanted) < 1e-12
    assert distance(answers(network, normalised(PIXELS)), wanted) == 0, "the network given stays as it is"
    single = taking_pixels(copy.deepcopy(network).to(dtype="float32"), UNEVEN, "float32")
    assert answers(single, PIXELS).dtype == np.float32
    assert 1e-12 < distance(answers(single, PIXELS), wanted) < 1e-5


def test_hooks_of_the_network_itself_see_normalised_values(net: Any) -> None:
    network, seen = net(lambda: nn.Conv2D(3, 8, 3, padding=1)), []
    network.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0].numpy()))
    answers(taking_pixels(network, UNEVEN, "float64"), PIXELS)
    np.testing.assert_allclose(seen[0], normalised(PIXELS), rtol=1e-12)


@pytest.mark.parametrize("bias", [None, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize(
    ("padding", "pads"),
    [(0, False), ("VALID", False), ([0, 0], False), (2, True), ("SAME", True), ([0, 1], True), ([0, 0, 0, 3], True)],
    ids=str,
)
@pytest.mark.parametrize("walk", [{}, {"stride": 2, "dilation": 2}, {"stride": 3}], ids=str)
def test_the_normalisation_is_inside_an_ordinary_convolution(
    net: Any, bias: Any, padding: Any, pads: bool, walk: Any
) -> None:
    network = net(lambda: nn.Conv2D(3, 8, 3, padding=padding, bias_attr=bias, **walk))
    before = network[0].weight.numpy().copy()
    found, note = folded(network)
    assert note == "takes pixels: the normalisation is inside 0"
    assert distance(answers(found, PIXELS), answers(network, normalised(PIXELS))) < 1e-10
    scale = 1 / (255 * np.array(UNEVEN.std).reshape(3, 1, 1))
    np.testing.assert_allclose(found[0].weight.numpy(), before * scale, rtol=1e-14)
    np.testing.assert_array_equal(network[0].weight.numpy(), before)
    assert (found[0].bias is None) == (pads and bias is False)
    # Without padding nothing is left in front but the cast: the convolution is given the pixels as they are.
    seen: list[np.ndarray] = []
    found[0].register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0].numpy()))
    answers(found, PIXELS)
    mean = 255 * np.array(UNEVEN.mean).reshape(3, 1, 1)
    np.testing.assert_array_equal(seen[0], PIXELS - mean if pads else PIXELS)


class TwoReaders(nn.Sequential):
    def forward(self, image: Any) -> Any:
        return super().forward(image) + image.mean([1, 2, 3], keepdim=True).flatten(1)


class CalledTwice(nn.Sequential):
    """Its first layer reads the input, and then some of what it made of that."""

    def forward(self, image: Any) -> Any:
        return super().forward(image) + self[0](self[0](image)[:, :3]).mean([1, 2, 3], keepdim=True).flatten(1)


class Scaled(nn.Layer):
    def forward(self, x: Any, factor: Any) -> Any:
        return x.tile([1, 3, 1, 1])[:, :8] * factor


class TwoInputs(nn.Sequential):
    def forward(self, image: Any) -> Any:
        first, *others = self
        return nn.Sequential(*others)(first(image, paddle.full([1], 2.0, image.dtype)))


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (lambda: nn.Conv2D(3, 8, 3, padding=1, padding_mode="reflect"), nn.Sequential),
        (lambda: nn.Sequential(nn.Conv2D(3, 6, 3, groups=3), nn.Conv2D(6, 8, 1)), nn.Sequential),
        (lambda: nn.Sequential(nn.ReLU(), nn.Conv2D(3, 8, 3)), nn.Sequential),
        (lambda: nn.utils.weight_norm(nn.Conv2D(3, 8, 3)), nn.Sequential),
        (lambda: nn.Conv2D(3, 8, 3, padding=1), TwoReaders),
        (lambda: nn.Conv2D(3, 8, 3, padding=1), CalledTwice),
        (Scaled, TwoInputs),
    ],
    ids=["reflect", "groups", "relu", "weight-norm", "two-readers", "called-twice", "two-inputs"],
)
def test_what_is_no_ordinary_convolution_gets_the_normalisation_in_front(net: Any, first: Any, kind: Any) -> None:
    network = net(first, kind)
    found, note = folded(network)
    assert "normalised in front" in note
    assert distance(answers(found, PIXELS), answers(network, normalised(PIXELS))) < 1e-12


class WeightElsewhere(nn.Sequential):
    def forward(self, image: Any) -> Any:
        return super().forward(image) * self[0].weight.mean()


def test_a_convolution_that_cannot_be_changed_unseen_is_found_out(net: Any) -> None:
    with pytest.raises(FoldDiffers, match="the normalisation at 0 differs from the layer it replaces"):
        folded(net(lambda: nn.Conv2D(3, 8, 3, padding=1), WeightElsewhere))


def test_network_without_logits_is_refused_in_words(net: Any) -> None:
    network = nn.Sequential(nn.Conv2D(3, 8, 3)).to(dtype="float64")
    with pytest.raises(ModelUnusable, match=r"returns shape .*, not \(6, classes\)"):
        folded(network)


# ── exports


def dynamic_logits(name: str, pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """What the dynamic network answers in float64 to what a host would have normalised."""
    source = load_source(f"{NETWORKS}:{name}", SHAPE)
    draw_weights(source.network, SHAPE, 0)
    dyx.nn.adapters.set_temperature(source.network, None)
    return answers(source.network.to(dtype="float64"), normalised(pixels, preprocess))


def exported(out: Path, name: str, **settings: Any) -> Bundle:
    given = {"shape": SHAPE, "preprocess": UNEVEN, "tune_batch": 8, "out": out, **settings}
    return dyx.export(f"{NETWORKS}:{name}", input="uint8", **given)


def check_backends(bundle: Bundle, name: str, batches: tuple[int, ...] = (1, 6, 2)) -> None:
    wanted = dynamic_logits(name, PIXELS, UNEVEN)
    for backend in BACKENDS.names:
        with dyx.open(bundle, backend=backend) as runner:
            for batch in batches:
                assert distance(runner.run(PIXELS[:batch]), wanted[:batch]) < 1e-5, (backend, batch)


def operators(bundle: Bundle, stem: str = "model") -> list[str]:
    return [node.op_type for node in onnx.load(bundle.path / f"{stem}.onnx").graph.node]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("Padded", ["Cast", "Sub", "Conv"]),
        ("Unpadded", ["Cast", "Conv"]),
        ("Dynamic", ["Cast", "Sub", "Mul"]),
        ("Shared", ["Cast", "Sub", "Mul", "Conv"]),
    ],
)
def test_every_backend_answers_pixels_with_a_free_batch(tmp_path: Path, name: str, first: list[str]) -> None:
    bundle = exported(tmp_path / "x", name)
    assert bundle.manifest["inputs"] == [{"name": "image", "dtype": "uint8", "shape": ["batch", *SHAPE]}]
    assert operators(bundle)[: len(first)] == first
    assert sum(note.startswith("takes pixels") for note in bundle.manifest["notes"]) == 1
    assert bundle.samples().image.dtype == np.uint8
    assert max(verdict["relative_error"] for verdict in bundle.manifest["parity"]["verdicts"]) < 2e-5
    check_backends(bundle, name)
    report = dyx.check(bundle)
    assert report.passed and {verdict.backend for verdict in report.parity.verdicts} == set(BACKENDS.names)


@pytest.mark.parametrize("opset", [19, 21])
def test_every_opset(tmp_path: Path, opset: int) -> None:
    bundle = exported(tmp_path / "x", "Padded", opset=opset, formats=("onnx",))
    model = onnx.load(tmp_path / "x" / "model.onnx")
    assert [entry.version for entry in model.opset_import] == [opset]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert dyx.check(bundle).passed


def test_a_first_convolution_that_a_rule_rewrites_with_its_batch_norm(tmp_path: Path) -> None:
    bundle = exported(tmp_path / "x", "Padded", fold=("conv/winograd", "dyconv/winograd"))
    rules = {site["path"]: site for site in bundle.manifest["plan"]["sites"]}
    assert rules["first.0"]["rule"] == "conv/winograd" and "first.1" in rules["first.0"]["takes"]
    check_backends(bundle, "Padded")


def test_a_frozen_batch(tmp_path: Path) -> None:
    bundle = exported(tmp_path / "x", "Unpadded", batch=3)
    assert bundle.input.shape == (3, *SHAPE)
    check_backends(bundle, "Unpadded", (3,))


def test_two_graphs(two_graphs_class: str, tmp_path: Path) -> None:
    from dyx.bundle import read_bundle

    dyx.export(two_graphs_class, shape=(3, 7, 7), tune_batch=64, out=tmp_path / "x", input="uint8")
    bundle = read_bundle(tmp_path / "x")
    assert [graph.stem for graph in bundle.graphs] == ["small", "model"]
    for stem in ("small", "model"):
        assert operators(bundle, stem)[:2] == ["Cast", "Conv"], "its first convolution is 1 × 1 and pads nothing"
    assert dyx.check(bundle).passed


def test_lossy_rules_look_at_pictures(tmp_path: Path) -> None:
    np.savez(tmp_path / "pictures.npz", np.random.default_rng(1).integers(0, 256, (8, 20, 20, 3), dtype=np.uint8))
    settings = {"fold": ("dyconv/mean-attention",), "calibrate": tmp_path / "pictures.npz"}
    ours = exported(tmp_path / "x", "Padded", **settings)
    theirs = dyx.export(
        f"{NETWORKS}:Padded", shape=SHAPE, preprocess=UNEVEN, tune_batch=8, out=tmp_path / "y", **settings
    )
    found, wanted = (bundle.manifest["approximation"] for bundle in (ours, theirs))
    assert found["relative_error"] == pytest.approx(wanted["relative_error"], rel=1e-3)
    with dyx.open(ours) as runner, dyx.open(theirs) as other:
        assert distance(runner.run(PIXELS), other.run(normalised(PIXELS).astype(np.float32))) < 1e-5
    np.savez(tmp_path / "floats.npz", normalised(PIXELS))
    with pytest.raises(InvalidOption, match=r"which is not uint8 pictures$"):
        exported(tmp_path / "z", "Padded", **settings | {"calibrate": tmp_path / "floats.npz"})


def test_floats_are_refused(tmp_path: Path) -> None:
    bundle = exported(tmp_path / "x", "Unpadded", formats=("onnx",))
    with dyx.open(bundle) as runner, pytest.raises(InvalidTensor, match=r"float32 .*wanted uint8 \[batch, 3, 14, 14\]"):
        runner.run(PIXELS.astype(np.float32))


def test_layers_of_a_network_that_takes_pixels_are_compared_where_they_mean_the_same(tmp_path: Path) -> None:
    layers = exported(tmp_path / "x", "Padded", formats=("onnx",)).manifest["parity"]["layers"]
    assert {"first.0", "logits"} <= set(layers)
    assert 0 < max(layers.values()) < 2e-5


def test_dtypes_that_no_graph_takes_are_refused() -> None:
    with pytest.raises(InvalidOption, match="--input is 'int8', which is not float32 or uint8"):
        plan("alexnet-bn", input="int8")
