"""Training pictures: order and random changes follow from seed, epoch and picture, and from nothing else."""

from __future__ import annotations

import random
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dyx.datasets import ImageSet, read_data
from dyx.preprocess import Preprocess
from dyx.train.pictures import TrainingPictures, augmenter, epoch_batches, load, seed_of
from dyx.train.recipes import RECIPES, Augmentation, find_recipe

PREPROCESS = Preprocess((32, 32))


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return read_data("digits").train


def pictures(images: ImageSet, epoch: int = 0, seed: int = 42, recipe: str = "gates") -> TrainingPictures:
    return TrainingPictures(images, PREPROCESS, find_recipe(recipe).augmentation, seed, epoch)


def test_an_epoch_shows_every_picture_once_in_an_order_of_its_own() -> None:
    first, second = (epoch_batches(103, 10, 42, epoch) for epoch in (0, 1))
    for batches in (first, second):
        assert sorted(chain.from_iterable(batches)) == list(range(103))
        assert [len(batch) for batch in batches] == [10] * 10 + [3]
    assert first != second
    assert first == epoch_batches(103, 10, 42, 0) != epoch_batches(103, 10, 43, 0)


def test_a_last_batch_of_one_picture_is_left_out() -> None:
    assert [len(batch) for batch in epoch_batches(21, 10, 0, 0)] == [10, 10]
    assert [len(batch) for batch in epoch_batches(1, 10, 0, 0)] == [1]


def test_a_picture_changes_with_epoch_and_seed_only(images: ImageSet) -> None:
    first = pictures(images)[5][0]
    random.random(), np.random.random()
    np.testing.assert_array_equal(first, pictures(images)[5][0])
    for other in (pictures(images, epoch=1), pictures(images, seed=43)):
        assert np.abs(first - other[5][0]).max() > 0.01


def test_global_generators_are_left_as_they_were(images: ImageSet) -> None:
    random.seed(9)
    np.random.seed(9)
    wanted = random.random(), np.random.random()
    random.seed(9)
    np.random.seed(9)
    assert pictures(images)[5][0].shape == (3, 32, 32)
    assert (random.random(), np.random.random()) == wanted


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_gives_the_pictures_asked_for(images: ImageSet, workers: int) -> None:
    dataset, batches = pictures(images), [[3, 1], [4, 100]]
    loaded = list(load(dataset, batches, workers))
    assert len(loaded) == 2
    for (inputs, classes), batch in zip(loaded, batches, strict=True):
        np.testing.assert_array_equal(inputs.numpy(), np.stack([dataset[index][0] for index in batch]))
        np.testing.assert_array_equal(classes.numpy(), images.classes[batch])


def test_without_augmentation_training_sees_what_validation_sees(images: ImageSet) -> None:
    np.testing.assert_array_equal(pictures(images, recipe="digits")[7][0], PREPROCESS(images.picture(7)))


def gradient() -> Image.Image:
    """Red grows to the right, green downwards."""
    ramp = np.linspace(0, 255, 48, dtype=np.uint8)
    red, green = np.meshgrid(ramp, ramp)
    return Image.fromarray(np.stack([red, green, np.full_like(red, 128)], axis=2))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_augmented_pictures_have_the_size_of_the_input(recipe: object, images: ImageSet) -> None:
    preprocess = Preprocess((32, 32), short_side=40)
    for index in range(5):
        dataset = TrainingPictures(images, preprocess, recipe.augmentation, 0, index)  # type: ignore[attr-defined]
        assert dataset[index][0].shape == (3, 32, 32)


def test_flips_happen_half_of_the_time() -> None:
    flip = augmenter(Augmentation(flip=True), (48, 48))
    flipped = 0
    for seed in range(200):
        random.seed(seed)
        flipped += int(np.asarray(flip(gradient()))[0, 0, 0] > 128)
    assert 70 < flipped < 130


def test_crops_take_between_the_given_shares_of_the_area() -> None:
    crop = augmenter(Augmentation(crop=(0.6, 1.0)), (48, 48))
    shares = []
    for seed in range(100):
        random.seed(seed)
        np.random.seed(seed)
        pixels = np.asarray(crop(gradient())).astype(float) / 255
        width, height = pixels[24, -1, 0] - pixels[24, 0, 0], pixels[-1, 24, 1] - pixels[0, 24, 1]
        shares.append(width * height)
    assert 0.5 < min(shares) < 0.7 and 0.85 < max(shares) <= 1.0


def test_short_sides_are_cut_by_the_random_crop_instead(images: ImageSet) -> None:
    """The usual evaluation resizes to 40 and cuts 32 out of it; a picture cut at random must not be cut again."""
    whole = ImageSet((Path("a"),), np.zeros(1, np.int64))
    object.__setattr__(whole, "pictures", np.asarray(gradient())[None])
    dataset = TrainingPictures(whole, Preprocess((32, 32), short_side=40), Augmentation(crop=(1.0, 1.0)), 0, 0)
    red = dataset[0][0][0]
    assert red[16, 0] == pytest.approx(-1, abs=0.1) and red[16, -1] == pytest.approx(1, abs=0.1)


def test_seeds_of_different_purposes_differ() -> None:
    assert len({seed_of(42, purpose, epoch) for purpose in range(4) for epoch in range(50)}) == 200
