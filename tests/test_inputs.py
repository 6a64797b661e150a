"""The pool of inputs that serves every proof."""

from __future__ import annotations

import numpy as np

from dyx.inputs import input_pool, pixel_pool, varied_images

SHAPE = (3, 8, 8)


def test_pool_is_mixed_seeded_and_varied() -> None:
    images, kinds = input_pool(SHAPE, 0)
    assert images.dtype == np.float32
    assert images.shape == (64, *SHAPE)
    assert set(kinds) == {"normal", "uniform", "textured", "constant", "large", "saturating", "zeros"}
    assert len(set(kinds[:7])) > 2, "a batch holds several kinds"
    np.testing.assert_array_equal(images, input_pool(SHAPE, 0)[0])
    assert not np.array_equal(images, input_pool(SHAPE, 1)[0])
    assert np.abs(images[kinds == "large"]).max() > 50 * np.abs(images[kinds == "uniform"]).max()


def test_pool_may_be_thin_and_without_extremes() -> None:
    images, kinds = input_pool(SHAPE, 0, share=8, extremes=False)
    assert set(kinds) == {"normal", "uniform", "textured", "constant", "zeros"}
    assert len(images) == len(kinds) == 8
    assert np.abs(images).max() < 10


def test_pool_of_pixels_is_mixed_seeded_and_varied() -> None:
    images, kinds = pixel_pool((3, 20, 20), 0)
    assert (images.dtype, images.shape) == (np.uint8, (64, 3, 20, 20))
    assert set(kinds) == {"noise", "contrast", "textured", "gradient", "constant"}
    assert len(set(kinds[:7])) > 2, "a batch holds several kinds"
    np.testing.assert_array_equal(images, pixel_pool((3, 20, 20), 0)[0])
    assert not np.array_equal(images, pixel_pool((3, 20, 20), 1)[0])
    of = {kind: images[kinds == kind].astype(np.float64) for kind in set(kinds)}
    flat = of["constant"]
    assert (flat == flat[:, :, :1, :1]).all() and len(np.unique(flat[:, :, 0, 0], axis=0)) == 10
    assert {0, 255} <= {row.mean() for row in flat}, "black and white are among them"
    assert set(np.unique(of["contrast"])) == {0, 255}
    assert len(np.unique(of["noise"])) == 256
    steps = {kind: np.abs(np.diff(rows, axis=3)).mean() for kind, rows in of.items()}
    assert steps["gradient"] < steps["textured"] < steps["noise"] < steps["contrast"]
    assert np.abs(np.diff(of["gradient"], axis=3)).max() < 30, "no step wraps around"
    assert of["gradient"].mean(axis=(1, 2, 3)).std() > 20


def test_pool_of_pixels_may_be_thin() -> None:
    images, kinds = pixel_pool(SHAPE, 0, share=8)
    assert len(images) == 9 and len(set(kinds)) == 5
    assert {0, 255} <= {row.mean() for row in images[kinds == "constant"]}


def test_varied_images_differ_in_gain_offset_and_texture() -> None:
    images = varied_images((3, 40, 40), 32, np.random.default_rng(0)).astype(np.float64)
    gain = images.std(axis=(1, 2, 3))
    roughness = np.abs(np.diff(images, axis=3)).mean(axis=(1, 2, 3)) / gain
    assert gain.max() / gain.min() > 4
    assert roughness.max() / roughness.min() > 2
    assert images.mean(axis=(2, 3)).std() > 0.2
