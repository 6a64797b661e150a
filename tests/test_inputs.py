"""The pool of inputs that serves every proof."""

from __future__ import annotations

import numpy as np

from dyx.inputs import input_pool, varied_images

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


def test_varied_images_differ_in_gain_offset_and_texture() -> None:
    images = varied_images((3, 40, 40), 32, np.random.default_rng(0)).astype(np.float64)
    gain = images.std(axis=(1, 2, 3))
    roughness = np.abs(np.diff(images, axis=3)).mean(axis=(1, 2, 3)) / gain
    assert gain.max() / gain.min() > 4
    assert roughness.max() / roughness.min() > 2
    assert images.mean(axis=(2, 3)).std() > 0.2
