"""The eager network that the benchmark shows beside the exported one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dyx
from dyx.errors import DeviceMissing, InvalidTensor
from dyx.zoo.eager import open_eager


def test_eager_network_is_the_exported_one(dy_bundle: Path) -> None:
    images = np.random.default_rng(0).standard_normal((3, 3, 128, 128)).astype(np.float32)
    with open_eager("alexnet-dy", device="cpu") as eager, dyx.open(dy_bundle) as exported:
        wanted = eager.run(images)
        assert np.abs(exported.run(images) - wanted).max() < 2e-5 * np.abs(wanted).max()
        with pytest.raises(InvalidTensor):
            eager.run(images[:, :2])
        assert (eager.backend, eager.device) == ("paddle-eager", "cpu")


def test_eager_network_takes_another_shape_and_tells_other_classes() -> None:
    with open_eager("resnet18", shape=[3, 64, 64], classes=7, device="cpu") as eager:
        assert eager.contract.input.shape == ("batch", 3, 64, 64)
        assert eager.run(np.zeros((2, 3, 64, 64), np.float32)).shape == (2, 7)


def test_gpu_that_is_not_there_is_named() -> None:
    import paddle

    if paddle.is_compiled_with_cuda():
        pytest.skip("this machine may have a GPU")
    with pytest.raises(DeviceMissing, match="paddle-eager cannot use device 'gpu'"):
        open_eager("alexnet-bn", device="gpu")
