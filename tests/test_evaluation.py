"""Evaluation: counts by hand, the same for every way to run a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dyx.datasets import ImageSet
from dyx.errors import DataUnusable
from dyx.evaluation import Evaluation, cross_entropy, evaluate
from dyx.preprocess import Preprocess
from dyx.runtime.runner import Contract, Runner
from dyx.tensors import BATCH, TensorSpec

LABELS = ("cat", "dog", "owl")


def evaluation() -> Evaluation:
    """Two cats, three dogs, no owl; a cat is taken for a dog, a dog for an owl."""
    truth, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 2])
    return Evaluation("net", "here", LABELS, truth, predicted, 0.5, 1.0, 1.5)


def test_counts() -> None:
    found = evaluation()
    assert (found.correct, found.accuracy, found.images_per_s) == (3, 0.6, 2.0)
    np.testing.assert_array_equal(found.confusion, [[1, 1, 0], [0, 2, 1], [0, 0, 0]])


def test_per_class() -> None:
    cat, dog, owl = evaluation().per_class()
    assert cat == {"label": "cat", "images": 2, "recall": 0.5, "precision": 1.0, "mistaken_for": "dog"}
    assert (dog["recall"], dog["precision"], dog["mistaken_for"]) == (2 / 3, 2 / 3, "owl")
    assert owl == {"label": "owl", "images": 0, "recall": None, "precision": 0.0, "mistaken_for": None}


def test_json_holds_everything() -> None:
    told = evaluation().to_json()
    assert told["accuracy"] == 0.6 and told["confusion"][1] == [0, 2, 1] and told["predicted"] == [0, 1, 1, 1, 2]


def test_cross_entropy_is_its_definition_and_does_not_overflow() -> None:
    logits = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [1000.0, 0.0, -1000.0]], np.float32)
    found = cross_entropy(logits, np.array([2, 0, 1]))
    first = -np.log(np.exp(3) / np.exp([1, 2, 3]).sum())
    np.testing.assert_allclose(found, [first, np.log(3), 1000.0], rtol=1e-12)


class Brightest(Runner):
    """Answers with the brightest channel, so that the right answer is known."""

    backend = "by-hand"

    def __init__(self, batch: int | str = BATCH) -> None:
        image, logits = TensorSpec("image", "float32", (batch, 3, 4, 4)), TensorSpec("logits", "float32", (batch, 3))
        super().__init__(Contract("brightest", image, logits, Preprocess((4, 4)), LABELS))
        self.sizes: list[int] = []

    def _infer(self, image: np.ndarray) -> np.ndarray:
        self.sizes.append(len(image))
        return image.mean((2, 3))

    def close(self) -> None:
        """Nothing to give back."""


def colours(count: int) -> ImageSet:
    """Pictures of one colour each, in turn, of which every fifth has the wrong class."""
    classes = np.arange(count) % 3
    pixels = np.zeros((count, 4, 4, 3), np.uint8)
    pixels[np.arange(count), :, :, classes] = 200
    return ImageSet(pixels, np.where(np.arange(count) % 5 == 4, (classes + 1) % 3, classes).astype(np.int64))


@pytest.mark.parametrize(("batch", "sizes"), [(BATCH, [64, 64, 22]), (32, [32] * 5), (1, [1] * 150)])
def test_every_picture_is_asked_once(batch: Any, sizes: list[int]) -> None:
    runner, shares = Brightest(batch), []
    found = evaluate(runner, colours(150), meter=shares.append)
    assert found.correct == 120 and len(found.predicted) == 150
    assert runner.sizes == sizes
    assert shares[-1] == 1 and shares == sorted(shares)
    assert found.prepare_s > 0 and found.infer_s > 0


def test_loss_is_the_mean_over_pictures() -> None:
    images, runner = colours(70), Brightest()
    logits = runner.run(runner.prepare([images.picture(index) for index in range(70)]))
    wanted = cross_entropy(logits, images.classes).mean()
    assert evaluate(runner, images).loss == pytest.approx(wanted, rel=1e-12)


def test_classes_beyond_the_networks_are_refused() -> None:
    images = ImageSet(np.zeros((1, 4, 4, 3), np.uint8), np.array([3]))
    with pytest.raises(DataUnusable, match="pictures have class 3, and the network answers 3 classes"):
        evaluate(Brightest(), images)


def test_network_that_takes_pixels_is_evaluated_as_its_twin(pixel_bundle: Path, dy_bundle: Path, digits: Any) -> None:
    from dyx.runtime import open_bundle

    images = ImageSet(np.repeat(digits.pictures[:20, :, :, None], 3, axis=3), digits.classes[:20])
    with open_bundle(pixel_bundle, "onnxruntime") as ours, open_bundle(dy_bundle, "onnxruntime") as twin:
        found, wanted = evaluate(ours, images), evaluate(twin, images)
    np.testing.assert_array_equal(found.predicted, wanted.predicted)
    assert found.loss == pytest.approx(wanted.loss, rel=1e-5)


def test_artifacts_are_evaluated_by_the_same_steps(dy_bundle: Path, digits: Any) -> None:
    from dyx.runtime import BACKENDS, open_bundle

    images = ImageSet(np.repeat(digits.pictures[:20, :, :, None], 3, axis=3), digits.classes[:20])
    answers = []
    for backend in BACKENDS.names:
        with open_bundle(dy_bundle, backend, "cpu") as runner:
            found = evaluate(runner, images)
            answers.append(found.predicted)
            assert found.backend == backend
            assert [score[0].index for score in runner.predict(digits.pictures[:20], top=1)] == found.predicted.tolist()
    assert all((answer == answers[0]).all() for answer in answers)
