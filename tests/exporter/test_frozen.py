"""What one gets without dyx: one batch size, and the right answers at every call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dyx
from dyx.bundle import Bundle
from dyx.census import take_census
from dyx.exporter.frozen import export_frozen

BATCH = 2


@pytest.fixture(scope="module")
def frozen(two_graphs_class: str, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_frozen(two_graphs_class, BATCH, tmp_path_factory.mktemp("frozen") / "bundle", shape=(3, 7, 7))


@pytest.fixture(scope="module")
def answered(two_graphs_class: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two batches of images, and what the dynamic network in float64 says to them."""
    import paddle

    reference = dyx.plan(two_graphs_class, shape=(3, 7, 7)).reference
    batches = np.random.default_rng(0).standard_normal((2, BATCH, 3, 7, 7))
    with paddle.no_grad():
        return [(images.astype(np.float32), reference(paddle.to_tensor(images)).numpy()) for images in batches]


def test_it_holds_convolutions_with_computed_kernels_for_one_batch_size(frozen: Bundle) -> None:
    for census in take_census(frozen):
        assert census.computed_kernels > 0 and not census.free_batch, census.file


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "paddle"])
def test_it_answers_every_call_rightly(
    frozen: Bundle, answered: list[tuple[np.ndarray, np.ndarray]], backend: str
) -> None:
    """Paddle's oneDNN answered the second call with the kernels of the first."""
    with dyx.open(frozen, backend=backend, device="cpu") as runner:
        for images, wanted in (*answered, answered[0]):
            assert np.abs(runner.run(images) - wanted).max() < 2e-5 * np.abs(wanted).max()


def test_paddle_does_without_onednn_there_alone(frozen: Bundle, two_graphs: Path) -> None:
    for bundle, onednn in ((frozen, False), (two_graphs, True)):
        with dyx.open(bundle, backend="paddle", device="cpu") as runner:
            runner.run(np.zeros((BATCH, 3, 7, 7), np.float32))
            assert runner.options["onednn"] is onednn
