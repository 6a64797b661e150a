"""A checkpoint that does not fit is told everything at once, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dyx.checkpoint import Checkpoint
from dyx.errors import CheckpointMismatch
from dyx.zoo import build
from dyx.zoo.weights import draw_weights, load_weights


def state(network) -> dict[str, np.ndarray]:
    return {key: tensor.numpy() for key, tensor in network.state_dict().items()}


def checkpoint(arrays: dict[str, np.ndarray]) -> Checkpoint:
    return Checkpoint(Path("x.pdparams"), "", arrays, ())


def test_every_array_arrives() -> None:
    donor, network = build("alexnet-dy"), build("alexnet-dy")
    draw_weights(donor, (3, 128, 128), 5)
    load_weights(network, checkpoint(state(donor)))
    for key, array in state(donor).items():
        np.testing.assert_array_equal(state(network)[key], array)


def test_all_that_is_off_is_listed_and_nothing_is_loaded() -> None:
    network = build("alexnet-dy")
    before = state(network)
    arrays = {key: array + 1 for key, array in before.items()}
    del arrays["features.0.bias"], arrays["classifier.6.weight"]
    arrays["head.weight"] = np.zeros(3, np.float32)
    arrays["features.8.weight"] = np.zeros((4, 192, 128, 3, 3), np.float32)
    with pytest.raises(CheckpointMismatch) as caught:
        load_weights(network, checkpoint(arrays))
    assert set(caught.value.missing) == {"features.0.bias", "classifier.6.weight"}
    assert caught.value.extra == ("head.weight",)
    assert caught.value.misshapen == {"features.8.weight": "[4, 192, 128, 3, 3], wanted [2, 192, 128, 3, 3]"}
    for part in ("missing: features.0.bias", "not in the network: head.weight", "of another shape: features.8.weight"):
        assert part in str(caught.value)
    for key, array in state(network).items():
        np.testing.assert_array_equal(array, before[key])


@pytest.mark.parametrize("fault", ["missing", "extra", "misshapen"])
def test_each_fault_alone_is_enough(fault: str) -> None:
    network = build("alexnet-bn")
    arrays = state(network)
    if fault == "missing":
        del arrays["features.0.bias"]
    else:
        arrays["features.0.bias" if fault == "misshapen" else "head.bias"] = np.zeros(1, np.float32)
    with pytest.raises(CheckpointMismatch) as caught:
        load_weights(network, checkpoint(arrays))
    assert len(getattr(caught.value, fault)) == 1
