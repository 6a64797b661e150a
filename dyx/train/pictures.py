"""Training pictures, in an order and with random changes that depend on the seed, the epoch and the picture alone.

So a run can stop anywhere and go on with exactly what it would have seen, whatever the number of worker processes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dyx.datasets import ImageSet
from dyx.nn.framework import paddle
from dyx.preprocess import Preprocess
from dyx.train.recipes import Augmentation

if TYPE_CHECKING:
    from PIL.Image import Image

ORDER, PICTURE, STEP, WEIGHTS = range(4)
"""What a seed is for: numbers drawn for one purpose do not depend on those of another."""


def seed_of(*parts: int) -> int:
    """A seed of 32 bits that depends on every part: the run's seed, the purpose, an epoch, a step or picture."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """Paddle's transforms draw from the two global generators: seed both, and leave them as they were."""
    before, numpy_before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)


def augmenter(augmentation: Augmentation, size: tuple[int, int]) -> Callable[[Image], Image]:
    """From a picture to a changed one of `size` (height, width), by Paddle's own transforms."""
    transforms = paddle.vision.transforms
    steps: list[Any] = []
    if augmentation.resize is not None:
        steps.append(transforms.Resize(round(min(size) * augmentation.resize)))
    if augmentation.jitter:
        steps.append(transforms.ColorJitter(*[augmentation.jitter] * 3))
    if augmentation.crop is not None:
        steps.append(transforms.RandomResizedCrop(size, augmentation.crop))
    if augmentation.flip:
        steps.append(transforms.RandomHorizontalFlip())
    if augmentation.rotation:
        steps.append(transforms.RandomRotation(augmentation.rotation))
    composed: Callable[[Image], Image] = transforms.Compose(steps)
    return composed


class TrainingPictures:
    """One epoch's training pictures as Paddle's loader asks for them.

    Args:
        images: Pictures and classes.
        preprocess: From a picture to the input.
        augmentation: What a picture goes through before.
        seed: Of the run.
        epoch: Counted from 0.
    """

    def __init__(
        self, images: ImageSet, preprocess: Preprocess, augmentation: Augmentation, seed: int, epoch: int
    ) -> None:
        self._images, self._seed, self._epoch = images, seed, epoch
        # A picture that was cut to size is not cut again; one that was not is, as in validation.
        self._preprocess = preprocess if augmentation.crop is None else replace(preprocess, short_side=None)
        self._augment = augmenter(augmentation, preprocess.size)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int64]:
        """Input float32 `(3, H, W)` and class of one picture. Raises ImageUnreadable."""
        with _drawn_from(seed_of(self._seed, PICTURE, self._epoch, index)):
            picture = self._augment(self._images.picture(index))
        return self._preprocess(picture), np.int64(self._images.classes[index])


def epoch_batches(pictures: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Which pictures make up each step of an epoch: all of them, in a new order.

    A last batch of one picture is left out: batch norm has no variance to take from it.
    """
    order = np.random.default_rng(seed_of(seed, ORDER, epoch)).permutation(pictures)
    batches = [order[start : start + batch].tolist() for start in range(0, pictures, batch)]
    return batches[:-1] if len(batches) > 1 and len(batches[-1]) == 1 else batches


def load(dataset: TrainingPictures, batches: Sequence[list[int]], workers: int) -> Any:
    """Paddle's loader over the given batches: tensors `(B, 3, H, W)` and `(B,)`."""
    return paddle.io.DataLoader(dataset, batch_sampler=batches, num_workers=workers)
