"""Mean attention: lossy, on request alone, its error measured on images that it was not made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from PIL import Image

import dyx
from dyx.census import take_census
from dyx.errors import InvalidOption, OptionNeeded
from dyx.exporter.calibration import mean_attentions, read_calibration
from dyx.inputs import varied_images
from dyx.preprocess import Preprocess
from dyx.zoo import build
from dyx.zoo.weights import draw_weights

SHAPE = (3, 128, 128)
MEAN = "dyconv/mean-attention"


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 20, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "images.npz"
    np.savez(path, image=varied_images(SHAPE, 24, np.random.default_rng(3)))
    return path


@pytest.fixture(scope="module")
def lossy(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dyx.Bundle:
    out = tmp_path_factory.mktemp("lossy") / "bundle"
    return dyx.export("alexnet-dy", out=out, fold=(MEAN, "conv/direct"), calibrate=images, tune_batch=8)


def test_lossy_bundle_is_a_plain_static_network(lossy: dyx.Bundle) -> None:
    census = next(found for found in take_census(lossy) if found.format == "onnx")
    assert census.operators["Conv"] == 5
    assert "Softmax" not in census.operators
    assert census.macs is not None
    assert 96e6 < census.macs < 98e6, "that of plain AlexNet"
    sites = lossy.manifest["plan"]["sites"]
    assert [(site["path"], site["rule"], site["lossy"]) for site in sites] == [
        *((f"features.{place}", "conv/direct", False) for place in (0, 4)),
        *((f"features.{place}", MEAN, True) for place in (8, 11, 14)),
    ]
    assert dyx.check(lossy).passed, "its files are held to the static network in float64"


def test_error_is_measured_on_images_that_were_held_out(lossy: dyx.Bundle, images: Path) -> None:
    found = lossy.manifest["approximation"]
    assert (found["source"], found["used"], found["held_out"]) == ("images.npz", 12, 12)
    held_out = read_calibration(images, Preprocess((128, 128)), SHAPE, 0).held_out
    network = build("alexnet-dy")
    draw_weights(network, SHAPE, 0)
    wanted = network(paddle.to_tensor(held_out)).numpy()
    with dyx.open(lossy, backend="onnxruntime") as runner:
        got = runner.run(held_out)
    error = np.abs(got - wanted).max()
    assert found["max_abs_error"] == pytest.approx(error, rel=1e-3)
    assert found["relative_error"] == pytest.approx(error / np.abs(wanted).max(), rel=1e-3)
    assert found["top1_agreement"] == (got.argmax(1) == wanted.argmax(1)).mean()
    assert found["relative_error"] > 1e-3, "seeded attention varies, so its mean must cost something"
    assert any(note.startswith("lossy: on 12 held-out images of images.npz") for note in lossy.manifest["notes"])


def test_trained_attention_varies_little(checkpoint: Path, digits: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "digits.npz", digits.pictures)
    settings = {"weights": checkpoint, "fold": (MEAN,), "calibrate": tmp_path / "digits.npz", "formats": ("onnx",)}
    found = dyx.export("alexnet-dy", out=tmp_path / "bundle", tune_batch=8, **settings).manifest["approximation"]
    assert found["held_out"] == 180
    assert found["top1_agreement"] == 1.0
    assert 0.1 < found["max_abs_error"] < 1.5


def test_auto_never_takes_a_lossy_rule(images: Path) -> None:
    with pytest.raises(InvalidOption, match=r"--calibrate is .*images\.npz'.*other rules are exact without"):
        dyx.plan("alexnet-dy", calibrate=images)
    planned = dyx.plan("alexnet-dy")
    assert not planned.plan.is_lossy
    dynamic = [decision for decision in planned.plan.decisions if decision.site.kind == "dyconv"]
    assert len(dynamic) == 3
    for decision in dynamic:
        assert decision.passed_over[MEAN] == "it needs calibration images (--calibrate)"


def test_lossy_rule_needs_images() -> None:
    with pytest.raises(OptionNeeded, match="--calibrate"):
        dyx.plan("alexnet-dy", fold=(MEAN,))


def test_mean_of_what_each_layer_mixes_with() -> None:
    network = build("alexnet-dy")
    draw_weights(network, SHAPE, 0)
    images = varied_images(SHAPE, 21, np.random.default_rng(1))
    seen: list[np.ndarray] = []
    hook = network.features[11].routing.register_forward_post_hook(lambda *call: seen.append(call[2].numpy()))
    means = mean_attentions(network, images)
    hook.remove()
    assert list(means) == ["features.8", "features.11", "features.14"]
    (mean,) = means["features.11"]
    rows = np.concatenate(seen)  # every row twice: once for the mean, once for the layer itself
    assert len(rows) == 42
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-5)
    assert mean.shape == (2,)


def test_pictures_of_a_folder_and_of_an_array_are_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    (folder / "class").mkdir(parents=True)
    for index, picture in enumerate(pictures(5)):
        Image.fromarray(picture).save(folder / "class" / f"{index}.png")
    (folder / "readme.txt").write_text("no picture")
    (folder / "class" / "._0.png").write_text("no picture, but what macOS leaves beside one")
    np.savez(tmp_path / "pictures.npz", pictures(5))
    read = [
        read_calibration(path, Preprocess((16, 16)), (3, 16, 16), 0) for path in (folder, tmp_path / "pictures.npz")
    ]
    np.testing.assert_array_equal(read[0].used, read[1].used)
    np.testing.assert_array_equal(read[0].held_out, read[1].held_out)
    assert (len(read[0].used), len(read[0].held_out)) == (3, 2)
    both = np.concatenate([read[0].used, read[0].held_out])
    assert len(np.unique(both.reshape(5, -1), axis=0)) == 5, "no picture is in both halves"


@pytest.mark.parametrize(
    ("words", "content"),
    [
        ("with 1 image'", {"image": pictures(1)}),
        ("with 0 image arrays", {"labels": np.arange(4)}),
        ("with 2 image arrays", {"a": pictures(2), "b": pictures(2)}),
        (r"float32 \[4, 3, 8, 9\]", {"image": np.zeros((4, 3, 8, 9), np.float32)}),
        (r"int64 \[4, 3, 16, 16\]", {"image": np.zeros((4, 3, 16, 16), np.int64)}),
        (r"float32 \[4, 3, 16, 16\].*finite", {"image": np.full((4, 3, 16, 16), np.nan, np.float32)}),
    ],
)
def test_arrays_that_cannot_calibrate(words: str, content: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", **content)
    with pytest.raises(InvalidOption, match=words):
        read_calibration(tmp_path / "images.npz", Preprocess((16, 16)), (3, 16, 16), 0)


def test_files_that_cannot_calibrate(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path / "notes.txt", tmp_path / "absent", tmp_path):
        with pytest.raises(InvalidOption, match="at least 2 pictures"):
            read_calibration(path, Preprocess((16, 16)), (3, 16, 16), 0)
