"""A checkpoint that does not fit is told everything at once, and changes nothing."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from safetensors.numpy import save_file

from dyx.checkpoint import Checkpoint, read_checkpoint
from dyx.errors import CheckpointMismatch
from dyx.zoo import build, find_model
from dyx.zoo.weights import draw_weights, load_weights

SHARED = Path(__file__).parents[3] / "shared"
STATE_DICTS = sorted(SHARED.glob("state-dicts/*.json")) or [Path("absent.json")]
WRITER = runpy.run_path(str(Path(__file__).parents[1] / "data" / "torch_writer.py"))
COUNTER = "num_batches_tracked"


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


def in_torch(network: Any) -> dict[str, np.ndarray]:
    """A network's weights as torch would hold them: other names, linear weights turned, counters."""
    written = {}
    for key, array in state(network).items():
        place, _, last = key.rpartition(".")
        turned = isinstance(dict(network.named_sublayers())[place], paddle.nn.Linear) and last == "weight"
        name = {"_mean": "running_mean", "_variance": "running_var"}.get(last, last)
        written[f"{place}.{name}"] = np.ascontiguousarray(array.T) if turned else array
        if last == "_variance":
            written[f"{place}.{COUNTER}"] = np.array(7)
    return written


def as_zip(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    return WRITER["write_zip"](path.with_suffix(".pth"), {"model": WRITER["tensors"](arrays), "epoch": 3})


def as_legacy(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    return WRITER["write_legacy"](path.with_suffix(".pt"), WRITER["tensors"](arrays))


def as_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    path = path.with_suffix(".safetensors")
    save_file(arrays, path)
    return path


@pytest.mark.parametrize("write", [as_zip, as_legacy, as_safetensors])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_in_torch_layout_come_back_bit_by_bit(tmp_path: Path, write: Any, prefix: str) -> None:
    donor, network = build("alexnet-bn"), build("alexnet-bn")
    draw_weights(donor, (3, 128, 128), 5)
    path = write(tmp_path / "x", {prefix + key: array for key, array in in_torch(donor).items()})
    got = read_checkpoint(path)
    notes = load_weights(network, got)
    assert got.notes[-1] == "5 batch counters dropped"
    layout = "from torch's layout to Paddle's: 3 linear weights transposed"
    assert notes == ((f"prefix {prefix!r} taken off every key",) if prefix else ()) + (layout,)
    for key, array in state(donor).items():
        np.testing.assert_array_equal(state(network)[key], array)


def test_paddle_checkpoint_is_told_of_no_change() -> None:
    network = build("alexnet-dy")
    assert load_weights(network, checkpoint(state(build("alexnet-dy")))) == ()


def without_counters(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: array for key, array in arrays.items() if not key.endswith(COUNTER)}


def test_checkpoint_of_another_model_is_named() -> None:
    arrays = without_counters(in_torch(build("alexnet-bn")))
    with pytest.raises(CheckpointMismatch) as caught:
        load_weights(build("alexnet-dy"), checkpoint(arrays))
    assert caught.value.looks_like == ("alexnet-bn",)
    assert caught.value.hint == (
        "it looks like a checkpoint of alexnet-bn (its 7,526,794 numbers are exactly that network's)"
    )
    assert "features.8.routing.net.0.weight" in caught.value.missing
    assert caught.value.misshapen["features.8.weight"] == "[192, 128, 3, 3], wanted [2, 192, 128, 3, 3]"


def test_checkpoint_of_no_known_model_is_not_guessed_at() -> None:
    with pytest.raises(CheckpointMismatch) as caught:
        load_weights(build("alexnet-bn"), checkpoint({"head.weight": np.zeros(3, np.float32)}))
    assert caught.value.looks_like == ()
    assert "another network, number of experts or number of classes?" in caught.value.hint


@pytest.mark.parametrize("path", STATE_DICTS, ids=lambda path: path.stem)
def test_official_state_dicts_fit_the_networks_they_belong_to(path: Path) -> None:
    if not path.is_file():
        pytest.skip("../shared lies beside the project's own checkout only")
    random, name = np.random.default_rng(5), path.stem.replace("_", "-")
    arrays = without_counters(
        {key: random.random(shape, np.float32) for key, shape in json.loads(path.read_text()).items()}
    )
    network = build(name)
    load_weights(network, Checkpoint(Path("x.pth"), "", arrays, (), "torch"))
    own, layers = network.state_dict(), dict(network.named_sublayers())
    assert len(own) == len(arrays)
    assert sum(array.size for array in arrays.values()) == find_model(name).parameters
    for key, array in arrays.items():
        turned = isinstance(layers.get(key.rpartition(".")[0]), paddle.nn.Linear) and key.endswith(".weight")
        got = own[key.replace("running_mean", "_mean").replace("running_var", "_variance")].numpy()
        np.testing.assert_array_equal(got, array.T if turned else array)
