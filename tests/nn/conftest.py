"""Outputs of the layers' official code, as arrays with Paddle's names.

A golden is an .npz: `sd/…` a torch state dict, `in/…` inputs and cotangents, `out/…` and `out64/…` outputs, `grad/…`
gradients, `aux/…` intermediate values, `meta_json` the constructors' arguments. ../shared has them whole; trimmed
copies with the same keys lie in tests/data/golden, so that a plain clone tests the layers too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TRIMMED = Path(__file__).parents[1] / "data" / "golden"
WHOLE = Path(__file__).parents[3] / "shared" / "golden"
PADDLE_NAMES = {"running_mean": "_mean", "running_var": "_variance"}


@dataclass(frozen=True)
class Golden:
    """One golden file."""

    arrays: Mapping[str, np.ndarray]

    def array(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def keys(self, prefix: str) -> list[str]:
        return [key for key in self.arrays if key.startswith(prefix)]

    @property
    def meta(self) -> dict[str, Any]:
        """Constructor arguments and what else was recorded."""
        return dict(json.loads(bytes(self.arrays["meta_json"]).decode()))

    def outputs(self, section: str = "out/T") -> list[tuple[float, int, np.ndarray]]:
        """(temperature, layer, output) of every `out/T30/layer0`; the sections "out64/T" and "out/train_T" likewise."""
        found = []
        for key in self.keys(section):
            match = re.fullmatch(r"([\d.]+)/layer(\d+)", key.removeprefix(section))
            if match:
                found.append((float(match[1]), int(match[2]), self.arrays[key]))
        return found

    @staticmethod
    def assert_agrees(got: Any, wanted: Any, tolerance: float) -> None:
        """The same shape, and apart by no more than `tolerance` of max |wanted|."""
        got, wanted = np.asarray(got), np.asarray(wanted)
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max()

    def state(self, network: Any, prefix: str = "", section: str = "sd/") -> dict[str, np.ndarray]:
        """What `section` + `prefix` holds, under Paddle's names and in its layouts, the prefix taken off.

        The network says which weights belong to linear layers, which Paddle keeps as (in, out). The sections "grad/"
        and "out/train_…/buf/" are read the same way; running variances stay torch's.
        """
        import paddle

        linear = {
            path for path, layer in network.named_sublayers(include_self=True) if isinstance(layer, paddle.nn.Linear)
        }
        state = {}
        for key in self.keys(section + prefix):
            owner, _, name = key.removeprefix(section + prefix).rpartition(".")
            if name != "num_batches_tracked":
                path = f"{owner}.{PADDLE_NAMES.get(name, name)}".lstrip(".")
                transposed = owner in linear and name == "weight"
                state[path] = self.arrays[key].T if transposed else self.arrays[key]
        return state

    def load(self, network: Any, prefix: str = "") -> None:
        """Put the state dict into a network, in the network's dtype; every key must find its place.

        Paddle keeps batch norm's epsilon as float32, so in float64 the difference goes into the running variances:
        the network then computes what torch computes in float64.
        """
        mine, values = network.state_dict(), self.state(network, prefix)
        assert set(values) == set(mine)
        for key, value in values.items():
            exact = value.astype(str(mine[key].dtype).removeprefix("paddle."))
            if key.endswith("_variance") and exact.dtype == np.float64:
                exact += 1e-5 - np.float64(np.float32(1e-5))
            assert exact.shape == tuple(mine[key].shape)
            mine[key].set_value(exact)

    def updated_buffers(self, network: Any, mode: str, batch: int, prefix: str = "") -> dict[str, np.ndarray]:
        """The running statistics after one training step at `mode` ("train_T0.5"), as Paddle counts them.

        Torch adds .1 of the variance with ddof 1, Paddle of that with ddof 0, over `batch` values per channel.
        """
        before = self.state(network, prefix)
        after = self.state(network, prefix, f"out/{mode}/buf/")
        for key in after:
            if key.endswith("_variance"):
                kept = 0.9 * before[key].astype("float64")
                after[key] = kept + (after[key] - kept) * (batch - 1) / batch
        return after


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str], Golden]:
    """Reads a golden by name: its trimmed copy if there is one, else the whole file; skips where there is neither.

    `pytest.mark.parametrize("golden", ["trimmed", "whole"], indirect=True)` runs a test over both; a trimmed copy that
    is missing is then an error, since every clone has them.
    """
    wanted = getattr(request, "param", None)
    folders = {"trimmed": [TRIMMED], "whole": [WHOLE], None: [TRIMMED, WHOLE]}[wanted]

    def read(name: str) -> Golden:
        paths = [folder / f"{name}.npz" for folder in folders]
        path = next((path for path in paths if path.is_file()), paths[-1])
        if path.parent == WHOLE and not path.is_file():
            pytest.skip("../shared lies beside the project's own checkout only")
        with np.load(path, allow_pickle=False) as arrays:
            return Golden(dict(arrays))

    return read
