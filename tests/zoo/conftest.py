"""What tests of backbones share: official state dicts, counts, comparisons of networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from dyx.inputs import varied_images

OFFICIAL = Path(__file__).parents[3] / "shared" / "state-dicts"
PADDLE_NAMES = {"running_mean": "_mean", "running_var": "_variance"}
STATISTICS = tuple(PADDLE_NAMES.values())


@pytest.fixture(scope="session")
def official() -> Callable[[str], dict[str, tuple[int, ...]]]:
    """Keys and shapes of an official PyTorch state dict, as they are in Paddle."""

    def read(name: str) -> dict[str, tuple[int, ...]]:
        if not OFFICIAL.is_dir():
            pytest.skip("../shared lies beside the project's own checkout only")
        shapes = json.loads((OFFICIAL / f"{name}.json").read_text())
        return dict(_in_paddle(key, tuple(shape)) for key, shape in shapes.items() if "num_batches" not in key)

    return read


def _in_paddle(key: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    layer, _, name = key.rpartition(".")
    linear = name == "weight" and len(shape) == 2
    return f"{layer}.{PADDLE_NAMES.get(name, name)}", shape[::-1] if linear else shape


@pytest.fixture(scope="session")
def shapes() -> Callable[[Any], dict[str, tuple[int, ...]]]:
    """Keys and shapes of a network's state dict."""
    return lambda network: {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


@pytest.fixture(scope="session")
def counts() -> Callable[[Any], tuple[int, int]]:
    """How many numbers of a network are trained, and how many are running statistics."""

    def count(network: Any) -> tuple[int, int]:
        sizes = {key: int(tensor.size) for key, tensor in network.state_dict().items()}
        statistics = sum(size for key, size in sizes.items() if key.endswith(STATISTICS))
        return sum(sizes.values()) - statistics, statistics

    return count


@pytest.fixture(scope="session")
def difference() -> Callable[..., float]:
    """The largest difference between the logits of two networks in eval mode, relative to the largest logit."""

    def compare(network: Any, other: Any, side: int = 64) -> float:
        images = paddle.to_tensor(varied_images((3, side, side), 2, np.random.default_rng(0)))
        network.eval(), other.eval()
        with paddle.no_grad():
            logits, others = network(images), other(images)
        assert logits.shape == others.shape
        assert float(logits.std()) > 0
        return float((logits - others).abs().max() / others.abs().max())

    return compare
