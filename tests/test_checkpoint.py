"""Reading a checkpoint: honest files load, files that would run code do not, and damaged ones say what is wrong."""

from __future__ import annotations

import json
import os
import pickle
import runpy
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

WRITER = runpy.run_path(str(Path(__file__).parent / "data" / "torch_writer.py"))
tensors, write_zip = WRITER["tensors"], WRITER["write_zip"]

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
    assert (got.sha256, got.notes, got.framework) == (sha256(path), (), "paddle")


def test_state_dict_of_a_layer_loads(tmp_path: Path) -> None:
    layer = paddle.nn.Linear(3, 2)
    paddle.save(layer.state_dict(), str(tmp_path / "x.pdparams"))
    wanted = {key: tensor.numpy() for key, tensor in layer.state_dict().items()}
    assert_same(read_checkpoint(tmp_path / "x.pdparams").arrays, wanted)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
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


@pytest.mark.parametrize(
    ("metadata", "framework"),
    [(None, ""), ({"format": "pt"}, "torch"), ({"format": "pd"}, "paddle"), ({"format": "np"}, ""), ({"a": "b"}, "")],
)
def test_safetensors_load(tmp_path: Path, metadata: dict[str, str] | None, framework: str) -> None:
    save_file(ARRAYS, tmp_path / "x.safetensors", metadata)
    got = read_checkpoint(tmp_path / "x.safetensors")
    assert_same({key: got.arrays[key] for key in ARRAYS}, ARRAYS)
    assert (got.framework, got.notes) == (framework, ())


def packed(dtype: str, content: bytes, shape: list[int]) -> bytes:
    """A safetensors file with one tensor, of a dtype that numpy may not have."""
    header = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(content)]}}).encode()
    return len(header).to_bytes(8, "little") + header + content


def test_bfloat16_of_safetensors_is_widened_and_said(tmp_path: Path) -> None:
    values = np.float32([[1.5], [-3.0], [0.15625]])
    content = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    (tmp_path / "x.safetensors").write_bytes(packed("BF16", content, [3, 1]))
    got = read_checkpoint(tmp_path / "x.safetensors")
    assert_same(got.arrays, {"w": values})
    assert got.notes == ("1 tensors converted from bfloat16 to float32",)


@pytest.mark.parametrize(("dtype", "size", "said"), [("F8_E4M3", 1, "F8_E4M3"), ("I64", 8, "int64")])
def test_safetensors_of_other_dtypes_are_refused(tmp_path: Path, dtype: str, size: int, said: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(packed(dtype, bytes(size), [1]))
    with pytest.raises(CheckpointUnreadable, match=f"w has dtype {said}; weights are float32"):
        read_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.pth.tar"])
def test_torch_files_load_as_float32_without_their_counters(tmp_path: Path, name: str) -> None:
    kinds = {"half": np.float16([0.5]), "double": np.float64([0.1]), "bfloat16": np.uint16([0x3FC0])}
    counters = {"bn.num_batches_tracked": np.array(3), "num_batches_tracked": np.array(3)}
    got = read_checkpoint(write_zip(tmp_path / name, {"net": tensors(ARRAYS | kinds | counters), "epoch": 3}))
    assert_same(
        got.arrays, ARRAYS | {key: np.float32([value]) for key, value in zip(kinds, (0.5, 0.1, 1.5), strict=True)}
    )
    assert got.framework == "torch"
    assert got.notes == (
        "state dict taken from 'net'; beside it: epoch",
        "1 tensors converted from float16 to float32",
        "1 tensors converted from float64 to float32",
        "1 tensors converted from bfloat16 to float32",
        "2 batch counters dropped",
    )


def test_real_torch_file_loads(tmp_path: Path) -> None:
    got = read_checkpoint(Path(__file__).parent / "data" / "torch" / "run.pth")
    assert len(got.arrays) == 8
    assert {array.dtype.name for array in got.arrays.values()} == {"float32"}
    assert got.notes[-1] == "1 batch counters dropped"


def test_other_integers_of_a_torch_file_are_refused(tmp_path: Path) -> None:
    state = {"w": np.float32([1]), "positions": np.arange(3), "my_num_batches_tracked": np.arange(3)}
    with pytest.raises(CheckpointUnreadable, match="positions has dtype int64"):
        read_checkpoint(write_zip(tmp_path / "x.pth", tensors(state)))
    del state["positions"]
    with pytest.raises(CheckpointUnreadable, match="my_num_batches_tracked has dtype int64"):
        read_checkpoint(write_zip(tmp_path / "x.pth", tensors(state)))


def test_views_of_a_torch_file_come_row_by_row(tmp_path: Path) -> None:
    stored = WRITER["Stored"]("0", np.arange(6, dtype=np.float32))
    state = {"w": WRITER["view"](stored, 0, (3, 2), (1, 3))}
    got = read_checkpoint(write_zip(tmp_path / "x.pth", state)).arrays["w"]
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, [[0, 3], [1, 4], [2, 5]])


def test_torch_files_under_another_name_are_told_of(tmp_path: Path) -> None:
    with pytest.raises(CheckpointUnreadable, match=r"a PyTorch checkpoint must be named \.pth or \.pt"):
        read_checkpoint(write_zip(tmp_path / "x.pdparams", tensors(ARRAYS)))


def test_nan_of_a_torch_file_is_found_in_the_state_dict_alone(tmp_path: Path) -> None:
    bad = {"b": WRITER["view"](WRITER["Stored"]("9", np.float32([np.nan])), 0, (1,), (1,))}
    read_checkpoint(write_zip(tmp_path / "x.pth", {"net": tensors(ARRAYS), "optimizer": bad}))
    with pytest.raises(CheckpointNotFinite, match=r"b \(1 values\)"):
        read_checkpoint(write_zip(tmp_path / "x.pth", {"net": bad}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        (b"", "the file is empty"),
        (b"not a checkpoint at all", "it is truncated or damaged, or torch.save did not write it"),
    ],
    ids=["missing", "empty", "garbage"],
)
def test_unreadable_torch_files(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointUnreadable, match=words) as caught:
        read_checkpoint(tmp_path / "x.pth")
    assert ".pdparams or .pth" in caught.value.hint


def test_code_in_a_torch_file_is_refused(tmp_path: Path) -> None:
    evil = WRITER["Called"](WRITER["Name"]("posix", "system"), (f"touch {tmp_path / 'code-ran'}",))
    with pytest.raises(CheckpointUnsafe, match=r"it refers to posix\.system"):
        read_checkpoint(write_zip(tmp_path / "x.pth", {"net": tensors(ARRAYS), "args": evil}))
    assert not (tmp_path / "code-ran").exists()


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
