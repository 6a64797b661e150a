"""Torch's names and layouts on a Paddle network; and whose a checkpoint is, where its shapes fit both ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from dyx.checkpoint import Checkpoint
from dyx.nn.condconv import CondConv2D
from dyx.zoo.foreign import look_alikes, mapped
from dyx.zoo.weights import load_weights


class Network(paddle.nn.Layer):
    """One layer of each kind that the two frameworks hold differently; its linear weight is square."""

    def __init__(self, *, norm: bool = True) -> None:
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 4, 1)
        self.norm = paddle.nn.BatchNorm2D(4) if norm else paddle.nn.Identity()
        self.fc = paddle.nn.Linear(4, 4)


def numbers(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


TORCH = {
    "conv.weight": numbers(4, 3, 1, 1),
    "conv.bias": numbers(4),
    "norm.weight": numbers(4),
    "norm.bias": numbers(4),
    "norm.running_mean": numbers(4),
    "norm.running_var": numbers(4) + 1,
    "fc.weight": numbers(4, 4),
    "fc.bias": numbers(4),
}
PADDLE = {key.replace("running_mean", "_mean").replace("running_var", "_variance"): a for key, a in TORCH.items()}
PLAIN = {key: array for key, array in TORCH.items() if not key.startswith("norm.")}
ONE = "from torch's layout to Paddle's: 1 linear weights transposed"


def checkpoint(arrays: dict[str, np.ndarray], framework: str = "") -> Checkpoint:
    return Checkpoint(Path("x"), "", arrays, (), framework)


def prefixed(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {prefix + key: array for key, array in arrays.items()}


def test_statistics_are_renamed_and_linear_weights_transposed() -> None:
    network = Network()
    assert load_weights(network, checkpoint(TORCH, "torch")) == (ONE,)
    for key, tensor in network.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), PADDLE[key].T if key == "fc.weight" else PADDLE[key])


@pytest.mark.parametrize(
    ("arrays", "framework", "torch"),
    [
        (PADDLE, "paddle", False),
        (PADDLE, "", False),
        (PADDLE, "torch", False),  # its names say more than its file: Paddle arrays that torch.save wrote
        (TORCH, "torch", True),
        (TORCH, "", True),
        (TORCH, "paddle", True),
    ],
)
def test_names_of_statistics_tell_whose_it_is(arrays: dict[str, np.ndarray], framework: str, *, torch: bool) -> None:
    got = mapped(Network(), checkpoint(arrays, framework))
    assert got.notes == ((ONE,) if torch else ())
    np.testing.assert_array_equal(got.arrays["fc.weight"], numbers(4, 4).T if torch else numbers(4, 4))
    assert got.arrays.keys() == PADDLE.keys()


@pytest.mark.parametrize(("framework", "torch"), [("paddle", False), ("torch", True), ("", False)])
def test_without_batch_norm_the_file_tells_and_then_the_shapes(framework: str, *, torch: bool) -> None:
    got = mapped(Network(norm=False), checkpoint(PLAIN, framework))
    np.testing.assert_array_equal(got.arrays["fc.weight"], numbers(4, 4).T if torch else numbers(4, 4))


def test_one_shape_that_fits_only_transposed_decides_for_all() -> None:
    network = paddle.nn.Sequential(paddle.nn.Linear(4, 4), paddle.nn.Linear(4, 10))
    arrays = {"0.weight": numbers(4, 4), "0.bias": numbers(4), "1.weight": numbers(10, 4), "1.bias": numbers(10)}
    got = mapped(network, checkpoint(arrays))
    np.testing.assert_array_equal(got.arrays["0.weight"], numbers(4, 4).T)
    np.testing.assert_array_equal(got.arrays["1.weight"], numbers(10, 4).T)
    assert got.notes == ("from torch's layout to Paddle's: 2 linear weights transposed",)


def test_names_of_torch_that_are_the_networks_own_prove_nothing() -> None:
    """A Paddle layer of the user's may call its statistics as torch does."""
    network = Network(norm=False)
    network.register_buffer("running_mean", paddle.zeros([4]))
    arrays = PLAIN | {"running_mean": numbers(4)}
    got = mapped(network, checkpoint(arrays, "paddle"))
    np.testing.assert_array_equal(got.arrays["fc.weight"], numbers(4, 4))
    assert got.arrays.keys() == arrays.keys()


def test_a_statistic_of_both_names_is_not_swallowed() -> None:
    got = mapped(Network(), checkpoint(TORCH | {"norm._mean": numbers(4) + 9}, "torch"))
    np.testing.assert_array_equal(got.arrays["norm._mean"], numbers(4) + 9)
    assert "norm.running_mean" in got.arrays


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.", "model.module."]
)
def test_prefixes_of_every_key_are_taken_off(prefix: str) -> None:
    got = mapped(Network(), checkpoint(prefixed(prefix, TORCH), "torch"))
    assert got.arrays.keys() == PADDLE.keys()
    assert got.notes == (f"prefix {prefix!r} taken off every key", ONE)


def test_prefixes_go_from_paddle_like_safetensors_too() -> None:
    got = mapped(Network(), checkpoint(prefixed("module.", PADDLE)))
    assert got.arrays.keys() == PADDLE.keys()
    np.testing.assert_array_equal(got.arrays["fc.weight"], numbers(4, 4))


def test_a_prefix_of_some_keys_stays() -> None:
    arrays = prefixed("module.", TORCH) | {"fc.bias": numbers(4)}
    assert mapped(Network(), checkpoint(arrays, "torch")).arrays.keys() == arrays.keys()


@pytest.mark.parametrize("name", ["backbone", "module"])
def test_a_prefix_that_the_network_has_itself_stays(name: str) -> None:
    network = paddle.nn.Layer()
    network.add_sublayer(name, Network())
    got = mapped(network, checkpoint(prefixed(f"module.{name}.", TORCH), "torch"))
    assert got.arrays.keys() == network.state_dict().keys()
    assert got.notes == ("prefix 'module.' taken off every key", ONE)


def test_keys_without_a_place_keep_the_names_of_the_file() -> None:
    arrays = prefixed("module.", TORCH | {"head.weight": numbers(1), "head.running_mean": numbers(1)})
    got = mapped(Network(), checkpoint(arrays, "torch"))
    assert got.arrays.keys() - PADDLE.keys() == {"module.head.weight", "module.head.running_mean"}


@pytest.mark.parametrize(
    ("own", "theirs"), [((8, 4, 1, 1), (8, 4)), ((8, 4), (8, 4, 1, 1)), ((1,), ()), ((20, 5, 3, 1), (20, 5, 3))]
)
def test_trailing_ones_are_the_layers_own(own: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    network = paddle.nn.Layer()
    network.weight = network.create_parameter(list(own))
    got = mapped(network, checkpoint({"weight": numbers(*theirs)}, "torch"))
    assert got.arrays["weight"].shape == own
    np.testing.assert_array_equal(got.arrays["weight"].ravel(), numbers(*theirs).ravel())
    assert got.notes == ("from torch's layout to Paddle's: 1 arrays reshaped",)
    assert mapped(network, checkpoint({"weight": numbers(*theirs)}, "paddle")).arrays["weight"].shape == theirs


def test_a_1x1_convolution_becomes_a_linear_weight() -> None:
    got = mapped(paddle.nn.Linear(3, 5), checkpoint({"weight": numbers(5, 3, 1, 1), "bias": numbers(5)}, "torch"))
    np.testing.assert_array_equal(got.arrays["weight"], numbers(5, 3).T)


@pytest.mark.parametrize("flat", [True, False])
def test_flat_experts_of_timm_get_their_shape(*, flat: bool) -> None:
    network = paddle.nn.Sequential(CondConv2D(4, 6, 3, groups=2, num_experts=8))
    kernels = numbers(8, 6, 2, 3, 3)
    arrays = {"0.weight": kernels.reshape(8, -1) if flat else kernels, "0.bias": numbers(8, 6)}
    got = mapped(network, checkpoint(arrays, "torch"))
    np.testing.assert_array_equal(got.arrays["0.weight"], kernels)
    np.testing.assert_array_equal(got.arrays["0.bias"], numbers(8, 6))


@pytest.mark.parametrize("shape", [(8, 107), (4, 216), (108, 8)])
def test_flat_experts_of_another_size_stay_as_they_are(shape: tuple[int, ...]) -> None:
    network = paddle.nn.Sequential(CondConv2D(4, 6, 3, groups=2, num_experts=8))
    got = mapped(network, checkpoint({"0.weight": numbers(*shape), "0.bias": numbers(8, 6)}, "torch"))
    assert got.arrays["0.weight"].shape == shape


def test_only_experts_are_unfolded() -> None:
    network = paddle.nn.Sequential(paddle.nn.Conv2D(2, 6, 3))
    got = mapped(network, checkpoint({"0.weight": numbers(6, 18), "0.bias": numbers(6)}, "torch"))
    assert got.arrays["0.weight"].shape == (6, 18)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [(7_526_794, ("alexnet-bn",)), (7_524_052, ("alexnet-na", "alexnet-nanet")), (7_526_795, ()), (28, ())],
)
def test_look_alikes_have_exactly_as_many_numbers(size: int, wanted: tuple[str, ...]) -> None:
    own = {"weight": paddle.zeros([4, 7])}
    assert look_alikes(own, {"w": np.zeros(size - 2, np.int8), "b": np.zeros(2, np.int8)}) == wanted


def test_the_network_itself_is_no_look_alike() -> None:
    assert look_alikes({"w": paddle.zeros([7_526_794])}, {"x": np.zeros(7_526_794, np.int8)}) == ()
