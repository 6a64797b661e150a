"""Parity verdicts, held against runners whose errors are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dyx.bundle import Samples
from dyx.inputs import input_pool
from dyx.parity import NOISE_FACTOR, ParityReport, allowed_errors, noise_of, prove
from dyx.preprocess import Preprocess
from dyx.runtime.runner import Contract, Runner
from dyx.tensors import TensorSpec

SHAPE = (3, 8, 8)
WEIGHT = np.random.default_rng(0).standard_normal((3 * 64, 5))


class Linear(Runner):
    """A real, if small, network: one matrix product, with an error that a test chooses."""

    backend, device, threads = "numpy", "cpu", 1

    def __init__(self, spoil: Any = lambda logits, image: logits) -> None:
        image, logits = TensorSpec("image", "float32", ("batch", *SHAPE)), TensorSpec("logits", "float32", ("batch", 5))
        super().__init__(Contract("linear", image, logits, Preprocess((8, 8)), tuple("abcde")))
        self.spoil = spoil

    def _infer(self, image: np.ndarray) -> np.ndarray:
        logits = image.reshape(len(image), -1).astype(np.float64) @ WEIGHT
        return np.asarray(self.spoil(logits, image).astype(np.float32))

    def close(self) -> None:
        pass


def references() -> Samples:
    images, kinds = input_pool(SHAPE, 0)
    return Samples(images, images.reshape(len(images), -1).astype(np.float64) @ WEIGHT, kinds)


def verdicts(spoil: Any, batches: tuple[int, ...] = (1, 7, 64), tolerance: float = 2e-5) -> Any:
    held = references()
    return prove(
        Linear(spoil), "onnx", held, allowed_errors(tolerance, dict.fromkeys(np.unique(held.kind), 0.0)), batches
    )


def test_faithful_runner_passes() -> None:
    for verdict in verdicts(lambda logits, image: logits):
        assert verdict.passed
        assert verdict.relative_error < 1e-6
        assert verdict.row_drift == 0
        assert verdict.top1_agreement == 1
        assert verdict.cosine > 1 - 1e-9


def test_each_row_answers_alone_once() -> None:
    sizes: list[int] = []

    def counted(logits: np.ndarray, image: np.ndarray) -> np.ndarray:
        sizes.append(len(image))
        return logits

    alone, seven = verdicts(counted, (1, 7))
    assert (alone.batch, seven.batch) == (1, 7)
    assert sizes == [1] * 64 + [7] * 10


def test_error_is_scaled_within_a_kind() -> None:
    """1e-3 is nothing beside the logits of a large input, and a miss beside those of a uniform one."""
    (verdict,) = verdicts(lambda logits, image: logits + 1e-3, (64,))
    assert not verdict.passed
    assert verdict.where["kind"] in ("zeros", "constant", "uniform", "normal", "textured")
    assert verdict.max_abs_error == pytest.approx(1e-3, rel=0.2)


def test_place_of_the_largest_error_is_named() -> None:
    held = references()
    row = int(np.flatnonzero(held.kind == "uniform")[0])

    def spoil_one(logits: np.ndarray, image: np.ndarray) -> np.ndarray:
        mine = np.array([np.array_equal(one, held.image[row]) for one in image])
        logits[mine, 3] += 7
        return logits

    for verdict in verdicts(spoil_one):
        assert not verdict.passed
        assert verdict.where == {"kind": "uniform", "row": row, "class": 3}
        assert f"uniform input, row {row}, class 3" in verdict.sentence()


def test_rows_that_depend_on_their_neighbours_are_caught() -> None:
    """Alone a little below its reference, in a batch a little above: each within tolerance, their difference not."""

    def lean(logits: np.ndarray, image: np.ndarray) -> np.ndarray:
        return logits * (1 + (0.9e-3 if len(image) > 1 else -0.9e-3))

    alone, batched = verdicts(lean, (1, 7), tolerance=1e-3)
    assert alone.passed
    assert batched.relative_error < 1e-3
    assert not batched.passed
    assert batched.row_drift == pytest.approx(1.8e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda logits, image: logits[:, :4], "gives another shape"),
        (lambda logits, image: logits * np.nan, "gives NaN or infinity"),
        (lambda logits, image: logits / 0.0, "gives NaN or infinity"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_shape_and_nan_have_verdicts_of_their_own(spoil: Any, words: str) -> None:
    (verdict,) = verdicts(spoil, (64,))
    assert not verdict.passed
    assert words in verdict.sentence()
    report = ParityReport(2e-5, {}, {}, (verdict,))
    assert report.to_json()["verdicts"][0]["relative_error"] is None, "JSON has no infinity"


def test_noise_of_the_original_raises_the_limit() -> None:
    held = references()
    noise = noise_of(held.logits * (1 + 1e-3), held)
    assert all(own == pytest.approx(1e-3, rel=1e-6) for kind, own in noise.items() if kind != "zeros")
    allowed = allowed_errors(2e-5, noise)
    assert allowed["normal"] == NOISE_FACTOR * noise["normal"]
    assert allowed["zeros"] == 2e-5
    report = ParityReport(2e-5, noise, allowed, ())
    assert "4 × the float32 original's own error for" in report.applied
    assert ParityReport(2e-5, {"normal": 1e-7}, {"normal": 2e-5}, ()).applied == "2e-05 of max |y|"


def test_passing_tolerance_would_pass() -> None:
    made = verdicts(lambda logits, image: logits * (1 + 3e-4))
    report = ParityReport(2e-5, {}, {}, made)
    assert not report.passed
    assert 3e-4 < report.passing_tolerance < 4e-4
    assert all(
        verdict.passed
        for verdict in verdicts(lambda logits, image: logits * (1 + 3e-4), tolerance=report.passing_tolerance)
    )


def test_frozen_batch_has_no_rows_alone() -> None:
    (verdict,) = verdicts(lambda logits, image: logits, (7,))
    assert verdict.row_drift is None
    assert verdict.passed
