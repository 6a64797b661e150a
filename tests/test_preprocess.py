"""From a picture to a tensor, as the networks were trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dyx.errors import ImageUnreadable, InvalidOption
from dyx.preprocess import Preprocess, open_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)


def test_resize_is_pillow_bilinear_to_the_exact_size() -> None:
    got = Preprocess((6, 8))(PIXELS)
    resized = np.asarray(Image.fromarray(PIXELS).resize((8, 6), Image.Resampling.BILINEAR), dtype=np.float64)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got, ((resized / 255 - 0.5) / 0.5).transpose(2, 0, 1), atol=1e-6)


def test_mean_std_and_order_go_by_the_networks_channels() -> None:
    rgb = Preprocess((10, 14), (0.1, 0.2, 0.3), (1, 2, 4))(PIXELS)
    bgr = Preprocess((10, 14), (0.3, 0.2, 0.1), (4, 2, 1), "BGR")(PIXELS)
    np.testing.assert_allclose(bgr, rgb[::-1], atol=1e-6)
    np.testing.assert_allclose(rgb[1], (PIXELS[:, :, 1] / 255 - 0.2) / 2, atol=1e-6)


def test_pixels_are_what_is_normalised() -> None:
    for order in ("RGB", "BGR"):
        preprocess = Preprocess((6, 5), (0.1, 0.2, 0.3), (1, 2, 4), order, short_side=8)
        pixels = preprocess.pixels(PIXELS)
        assert (pixels.dtype, pixels.shape, pixels.flags.c_contiguous) == (np.uint8, (3, 6, 5), True)
        wanted = (pixels / 255 - np.reshape(preprocess.mean, (3, 1, 1))) / np.reshape(preprocess.std, (3, 1, 1))
        np.testing.assert_allclose(preprocess(PIXELS), wanted, atol=1e-6)
    rgb, bgr = (Preprocess((10, 14), order=order).pixels(PIXELS) for order in ("RGB", "BGR"))
    np.testing.assert_array_equal(rgb, PIXELS.transpose(2, 0, 1))
    np.testing.assert_array_equal(bgr, rgb[::-1])


def test_what_is_given_goes_by_the_dtype() -> None:
    preprocess = Preprocess((10, 14))
    np.testing.assert_array_equal(preprocess.giving("uint8")(PIXELS), preprocess.pixels(PIXELS))
    np.testing.assert_array_equal(preprocess.giving("float32")(PIXELS), preprocess(PIXELS))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1"])
def test_files_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / "x.png")
    assert Preprocess((4, 4))(tmp_path / "x.png").shape == (3, 4, 4)
    assert open_picture(str(tmp_path / "x.png")).mode == "RGB"


def test_files_that_are_no_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("text")
    Image.fromarray(PIXELS).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:100])
    for name in ("x.png", "cut.png", "absent.png", ""):
        with pytest.raises(ImageUnreadable, match="cannot read image"):
            open_picture(tmp_path / name)


def test_picture_that_would_unpack_to_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (15, 10)).save(tmp_path / "bomb.png")
    with pytest.raises(ImageUnreadable, match="exceeds limit"):
        open_picture(tmp_path / "bomb.png")


@pytest.mark.parametrize("pixels", [PIXELS.astype(np.float32), PIXELS[:, :, :2], PIXELS[0, 0]])
def test_arrays_that_are_no_picture(pixels: np.ndarray) -> None:
    with pytest.raises(ImageUnreadable, match="pixels are uint8"):
        open_picture(pixels)


def test_json_of_people(tmp_path: Path) -> None:
    path = tmp_path / "prep.json"
    path.write_text('{"size": 32, "order": "bgr"}')
    assert Preprocess.read(path) == Preprocess((32, 32), order="BGR")
    path.write_text(json.dumps(Preprocess((3, 4), (0.1, 0.2, 0.3)).to_json()))
    assert Preprocess.read(path) == Preprocess((3, 4), (0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "can be read"),
        ("{}", "'size'"),
        ('{"size": 32, "crop": 1}', "unknown keys"),
        ('{"size": 0}', "size is at least 1"),
        ('{"size": [1, 2, 3]}', "size"),
        ('{"size": 32, "std": [0, 1, 1]}', "std above 0"),
        ('{"size": 32, "mean": [1]}', "three numbers"),
        ('{"size": 32, "order": "GBR"}', "RGB or BGR"),
    ],
)
def test_json_that_says_nothing_usable(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "prep.json").write_text(text)
    with pytest.raises(InvalidOption, match=words):
        Preprocess.read(tmp_path / "prep.json")


def test_short_side_is_resized_and_the_centre_cropped() -> None:
    got = Preprocess((6, 5), (0, 0, 0), (1, 1, 1), short_side=8)(PIXELS)
    wide = np.asarray(Image.fromarray(PIXELS).resize((11, 8), Image.Resampling.BILINEAR), dtype=np.float64)
    np.testing.assert_allclose(got, wide[1:7, 3:8].transpose(2, 0, 1) / 255, atol=1e-6)
    tall = Preprocess((6, 5), (0, 0, 0), (1, 1, 1), short_side=8)(PIXELS.transpose(1, 0, 2).copy())
    assert tall.shape == (3, 6, 5)


def test_short_side_is_kept_in_json_and_covers_the_crop() -> None:
    preprocess = Preprocess((224, 224), short_side=256)
    assert Preprocess.from_json(preprocess.to_json()) == preprocess
    with pytest.raises(InvalidOption, match="short_side is at least as large as size"):
        Preprocess.from_json({"size": 224, "short_side": 200})
