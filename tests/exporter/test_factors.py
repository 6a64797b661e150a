"""Means of a map as products, in both forms in which folds hold one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
import pytest

from dyx.exporter.folded.factors import row_means, to_rows
from dyx.exporter.folded.winograd import position_means, to_positions

Means = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(params=[(to_rows, row_means), (to_positions, position_means)], ids=["rows", "positions"])
def means(request: pytest.FixtureRequest) -> Means:
    """The means of a map `(B, C, H, W)`, by way of a form."""
    to_form, means_of = request.param

    def taken(x: np.ndarray) -> Any:
        return means_of(to_form(paddle.to_tensor(x)), x.shape[2:]).numpy()

    return taken


def test_means_are_those_of_the_map(means: Means) -> None:
    x = np.random.default_rng(0).standard_normal((3, 5, 4, 6))
    np.testing.assert_allclose(means(x), x.mean((2, 3), keepdims=True), rtol=1e-12)


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7])
def test_means_of_large_maps_lose_little_in_float32(means: Means, value: float) -> None:
    """Where all positions are alike, as of a black picture, roundings do not cancel."""
    x = np.full((1, 2, 112, 112), value, np.float32)
    assert np.abs(means(x) / x[..., :1, :1] - 1).max() < 3e-6
