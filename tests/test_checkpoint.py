"""Reading a checkpoint: honest files load, files that would run code do not, and damaged ones say what is wrong."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from safetensors.numpy import save_file

from dyx.bundle import sha256
from dyx.checkpoint import read_checkpoint
from dyx.errors import CheckpointNotFinite, CheckpointUnreadable, CheckpointUnsafe

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.float32([1.5, -2])}


class Payload:
    """A pickle that writes a file when it is loaded by an ordinary unpickler."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def written(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def assert_same(got: Any, wanted: dict[str, np.ndarray]) -> None:
    assert list(got) == list(wanted)
    for key, array in wanted.items():
        assert got[key].dtype == np.float32
        np.testing.assert_array_equal(got[key], array)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_file_of_paddle_save_loads(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "x.pdparams"
    paddle.save({key: paddle.to_tensor(array) for key, array in ARRAYS.items()}, str(path), protocol=protocol)
    got = read_checkpoint(path)
    assert_same(got.arrays, ARRAYS)
    assert (got.sha256, got.notes) == (sha256(path), ())


def test_state_dict_of_a_layer_loads(tmp_path: Path) -> None:
    layer = paddle.nn.Linear(3, 2)
    paddle.save(layer.state_dict(), str(tmp_path / "x.pdparams"))
    wanted = {key: tensor.numpy() for key, tensor in layer.state_dict().items()}
    assert_same(read_checkpoint(tmp_path / "x.pdparams").arrays, wanted)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_other_honest_containers_load(tmp_path: Path, protocol: int) -> None:
    content = OrderedDict(ARRAYS) | {"StructuredToParameterName@@": {"a.weight": "linear_0.w_0"}}
    assert_same(read_checkpoint(written(tmp_path / "x.pdparams", content, protocol)).arrays, ARRAYS)


def test_numpy_1_module_names_load(tmp_path: Path) -> None:
    content = pickle.dumps(ARRAYS, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in content
    (tmp_path / "x.pdparams").write_bytes(content)
    assert_same(read_checkpoint(tmp_path / "x.pdparams").arrays, ARRAYS)


def test_tensors_that_paddle_split_are_joined(tmp_path: Path) -> None:
    whole = np.arange(12, dtype=np.float32)
    content = {
        "w@@.0": whole[:8],
        "w@@.1": whole[8:],
        "UnpackBigParamInfor@@": {"w": {"OriginShape": (3, 4), "slices": ["w@@.0", "w@@.1"]}},
    }
    assert_same(read_checkpoint(written(tmp_path / "x.pdparams", content, 2)).arrays, {"w": whole.reshape(3, 4)})


def test_bfloat16_is_widened_and_said(tmp_path: Path) -> None:
    values = np.float32([1.5, -3.0, 0.15625])
    content = {"w": (values.view(np.uint32) >> 16).astype(np.uint16)}
    got = read_checkpoint(written(tmp_path / "x.pdparams", content))
    np.testing.assert_array_equal(got.arrays["w"], values)
    assert got.notes == ("1 tensors converted from bfloat16 (stored as bare uint16) to float32",)


def test_float64_and_float16_become_float32_and_are_said(tmp_path: Path) -> None:
    content = {"a": np.float64([0.1]), "b": np.float16([0.5])}
    got = read_checkpoint(written(tmp_path / "x.pdparams", content))
    assert_same(got.arrays, {"a": np.float32([0.1]), "b": np.float32([0.5])})
    assert len(got.notes) == 2


def test_safetensors_load(tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / "x.safetensors")
    got = read_checkpoint(tmp_path / "x.safetensors").arrays
    assert_same({key: got[key] for key in ARRAYS}, ARRAYS)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("posix.system", lambda mark: Payload(os.system, f"touch {mark}")),
        ("builtins.eval", lambda mark: Payload(eval, f"open({str(mark)!r}, 'w')")),
        ("subprocess.Popen", lambda mark: Payload(subprocess.Popen, ["touch", str(mark)])),
        ("builtins.getattr", lambda mark: Payload(getattr, os, "system")),
        ("numpy.load", lambda mark: Payload(np.load, str(mark))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_code_is_never_run_and_its_name_is_said(tmp_path: Path, name: str, payload: Any, protocol: int) -> None:
    mark = tmp_path / "code-ran"
    try:
        content = {**ARRAYS, "evil": payload(mark)}
        path = written(tmp_path / "x.pdparams", content, protocol)
    except TypeError:  # getattr(os, …): a module cannot be pickled; name it by hand
        path = tmp_path / "x.pdparams"
        path.write_bytes(b"\x80\x02cbuiltins\ngetattr\n.")
    with pytest.raises(CheckpointUnsafe) as caught:
        read_checkpoint(path)
    # Protocol 2 writes the names that Python 2 had for modules.
    assert caught.value.found.rpartition(".")[2] == name.rpartition(".")[2]
    assert protocol == 2 or caught.value.found == name
    assert caught.value.found in str(caught.value)
    assert "nothing was run" in caught.value.hint
    assert not mark.exists()


def test_the_same_payload_does_run_in_an_ordinary_unpickler(tmp_path: Path) -> None:
    """The refusal above is worth something only if the file is really armed."""
    mark = tmp_path / "code-ran"
    path = written(tmp_path / "x.pdparams", {"evil": Payload(os.system, f"touch {mark}")})
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.load(open({str(path)!r}, 'rb'))"], check=True)
    assert mark.exists()


def test_persistent_objects_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pdparams").write_bytes(b"\x80\x02X\x01\x00\x00\x00aQ.")
    with pytest.raises(CheckpointUnsafe, match="a persistent object 'a'"):
        read_checkpoint(tmp_path / "x.pdparams")


@pytest.mark.parametrize("name", ["x.pdparams", "x.safetensors"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        (b"", "the file is empty"),
        (b"PK\x05\x06" + bytes(18), "it is a zip archive"),
        (b"not a checkpoint at all", "it is (truncated or no pickle|no usable safetensors file)"),
    ],
    ids=["missing", "empty", "zip", "garbage"],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointUnreadable, match=words):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_truncated_files(tmp_path: Path, share: float) -> None:
    content = pickle.dumps({"w": np.zeros(1000, np.float32)})
    (tmp_path / "x.pdparams").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointUnreadable, match="it is truncated or no pickle"):
        read_checkpoint(tmp_path / "x.pdparams")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "it holds a list, not a state dict"),
        ({"a": "text", "b": 3}, r"these entries are no arrays: a \(str\), b \(int\)"),
        ({"a": np.int8([1])}, "a has dtype int8"),
        ({"a": np.array([object], dtype=object)}, "."),
    ],
)
def test_pickles_that_are_no_state_dict(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises((CheckpointUnreadable, CheckpointUnsafe), match=words):
        read_checkpoint(written(tmp_path / "x.pdparams", content))


def test_nan_and_infinity_are_counted_for_every_key(tmp_path: Path) -> None:
    content = {"a": np.float32([np.nan, 1, np.inf]), "b": np.float32([0]), "c": np.float32([-np.inf])}
    with pytest.raises(CheckpointNotFinite, match=r"a \(2 values\), c \(1 values\)"):
        read_checkpoint(written(tmp_path / "x.pdparams", content))


def test_trained_checkpoint_loads(checkpoint: Path) -> None:
    got = read_checkpoint(checkpoint)
    assert len(got.arrays) == 48
    assert got.arrays["features.8.weight"].shape == (2, 192, 128, 3, 3)
