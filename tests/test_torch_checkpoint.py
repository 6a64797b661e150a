"""Reading `.pth`: files of the real torch, the same by hand, and every lie that a file can tell of itself."""

from __future__ import annotations

import io
import pickle
import runpy
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dyx.errors import CheckpointUnreadable, CheckpointUnsafe
from dyx.torch_checkpoint import WRAPPERS, read_torch

DATA = Path(__file__).parent / "data"
WRITER = runpy.run_path(str(DATA / "torch_writer.py"))
Called, Name, Stored, tensors, view, write_legacy, write_zip = (
    WRITER[name] for name in ("Called", "Name", "Stored", "tensors", "view", "write_legacy", "write_zip")
)
WRITERS = pytest.mark.parametrize("write", [write_zip, write_legacy], ids=["zip", "legacy"])

ARRAYS = {
    "a.mask": np.array([True, False]),
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.half": np.float16([1.5, -2]),
    "a.double": np.float64([[0.1]]),
    "a.bfloat16": np.uint16([0x3FC0]),
    "a.num_batches_tracked": np.array(7),
}
NUMBERS = np.arange(12, dtype=np.float32)
STORED = Stored("0", NUMBERS)


def eighths(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape)) / 8).reshape(shape)


def assert_same(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert list(got) == list(wanted)
    for key, array in wanted.items():
        assert (got[key].dtype, got[key].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(got[key], array)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointUnreadable) as caught:
        read_torch(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "prefix"), [("zip", ""), ("legacy", ""), ("run", "module."), ("run_legacy", "module.")]
)
def test_files_of_the_real_torch_load(name: str, prefix: str) -> None:
    arrays, notes = read_torch(DATA / "torch" / f"{name}.pth")
    shapes = {"0.weight": (3, 2, 3, 3), "0.bias": (3,), "1.weight": (3,), "1.bias": (3,), "1.running_mean": (3,)}
    shapes |= {"1.running_var": (3,), "1.num_batches_tracked": (), "2.weight": (2, 3), "2.bias": (2,)}
    counter = {f"{prefix}1.num_batches_tracked": np.array(0)}
    assert_same(arrays, {prefix + key: eighths(*shape).astype(np.float32) for key, shape in shapes.items()} | counter)
    beside = "optimizer, lr_scheduler, epoch, args, best, history, random"
    assert notes == ((f"state dict taken from 'model'; beside it: {beside}",) if prefix else ())


@pytest.mark.parametrize("name", ["odd", "odd_legacy"])
def test_odd_tensors_of_the_real_torch_load(name: str) -> None:
    arrays, _ = read_torch(DATA / "torch" / f"{name}.pth")
    shared = eighths(12).astype(np.float32)
    wanted = {
        "first": shared[:6].reshape(2, 3),
        "rest": shared[6:],
        "transposed": shared.reshape(3, 4).T,
        "columns": shared.reshape(3, 4)[:, 1:3],
        "expanded": np.full((2, 2), shared[3]),
        "scalar": np.array(1.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "half": shared.astype(np.float16),
        "bfloat16": (shared.view(np.uint32) >> 16).astype(np.uint16),
        "double": shared.astype(np.float64),
        "parameter": shared,
        "buffer": shared,
    }
    assert_same(arrays, wanted)


def test_whole_network_is_refused_by_its_class() -> None:
    said = refusal(DATA / "torch" / "module.pth")
    assert "it holds a torch.nn.modules.container.Sequential, not a state dict; save network.state_dict()" in said


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@WRITERS
def test_every_protocol_and_byte_order_loads(tmp_path: Path, write: Any, protocol: int, order: str) -> None:
    arrays, notes = read_torch(write(tmp_path / "x.pth", tensors(ARRAYS), protocol, order))
    assert_same(arrays, ARRAYS)
    assert notes == ()


def test_without_byteorder_the_archive_is_of_a_little_endian_machine(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "whole.pth", tensors(ARRAYS))
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "x.pth", "w") as target:
        for name in source.namelist():
            if not name.endswith("byteorder"):
                target.writestr(name, source.read(name))
    assert_same(read_torch(tmp_path / "x.pth")[0], ARRAYS)


@pytest.mark.parametrize("name", WRAPPERS)
def test_state_dict_is_found_under_each_wrapper(tmp_path: Path, name: str) -> None:
    arrays, notes = read_torch(write_zip(tmp_path / "x.pth", {"epoch": 3, name: tensors(ARRAYS)}))
    assert_same(arrays, ARRAYS)
    assert notes == (f"state dict taken from {name!r}; beside it: epoch",)


def test_of_two_wrappers_the_earlier_one_is_taken_and_the_other_is_told(tmp_path: Path) -> None:
    other = tensors({"b": np.float32([1])})
    got, notes = read_torch(write_zip(tmp_path / "x.pth", {"model_ema": other, "model": tensors(ARRAYS)}))
    assert_same(got, ARRAYS)
    assert notes == ("state dict taken from 'model'; beside it: model_ema",)


def test_wrappers_may_be_nested_twice(tmp_path: Path) -> None:
    content = {"state_dict": {"net": tensors(ARRAYS), "temperature": 1}, "epoch": 3}
    arrays, notes = read_torch(write_zip(tmp_path / "x.pth", content))
    assert_same(arrays, ARRAYS)
    assert notes == ("state dict taken from 'state_dict' / 'net'; beside it: epoch, temperature",)


def test_nothing_beside_a_wrapper_is_not_told(tmp_path: Path) -> None:
    assert read_torch(write_zip(tmp_path / "x.pth", {"net": tensors(ARRAYS)}))[1] == ("state dict taken from 'net'",)


def test_an_empty_wrapper_is_passed_over(tmp_path: Path) -> None:
    arrays, _ = read_torch(write_zip(tmp_path / "x.pth", {"model": {}, "net": tensors(ARRAYS)}))
    assert_same(arrays, ARRAYS)


@WRITERS
def test_storages_are_read_once_and_only_where_they_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    state = {"a": view(STORED, 0, (6,), (1,)), "b": view(STORED, 6, (6,), (1,)), "c": view(STORED, 0, (3, 2), (4, 1))}
    path = write(tmp_path / "x.pth", {"model": state, "optimizer": view(Stored("1", NUMBERS + 1), 0, (12,), (1,))})
    read = []
    counted = np.frombuffer
    monkeypatch.setattr(np, "frombuffer", lambda content, dtype: read.append(len(content)) or counted(content, dtype))
    arrays, _ = read_torch(path)
    assert_same(arrays, {"a": NUMBERS[:6], "b": NUMBERS[6:], "c": NUMBERS.reshape(3, 4)[:, :2]})
    assert read == [48]


@WRITERS
@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (view(STORED, 1, (12,), (1,)), "w reaches number 12 of a storage that has 12"),
        (view(STORED, 0, (3, 4), (5, 1)), "w reaches number 13 of a storage that has 12"),
        (view(STORED, 12, (1,), (1,)), "w reaches number 12"),
        (view(STORED, 10**30, (1,), (1,)), "w reaches number 1000"),
        (view(STORED, 0, (2,), (10**30,)), "w reaches number 1000"),
        (view(STORED, -1, (2,), (1,)), "w is no view of a storage: offset -1"),
        (view(STORED, 11, (2,), (-1,)), r"w is no view of a storage: .*strides \(-1,\)"),
        (view(STORED, 0, (-2,), (1,)), r"w is no view of a storage: .*size \(-2,\)"),
        (view(STORED, 0, (2, 2), (1,)), "w is no view of a storage"),
        (view(STORED, 0, (2.0,), (1,)), "w is no view of a storage"),
        (view(STORED, 0, 2, 1), "w is no view of a storage"),
        (view(STORED, Called(Name("a", "b")), (2,), (1,)), "w is no view of a storage"),
        (view(STORED, 0, (10**6, 10**6), (0, 0)), "its tensors claim 1000000000000 numbers, and the file has"),
        (view(STORED, 0, (0, 10**30), (1, 1)), "truncated or damaged"),
        (view(STORED, 0, (1,) * 99, (1,) * 99), "truncated or damaged"),
        (
            view(Stored("0", NUMBERS, kind="ComplexFloat"), 0, (1,), (1,)),
            "storage 0 is of kind ComplexFloat, which holds no weights",
        ),
    ],
)
def test_a_tensor_stays_inside_its_storage(tmp_path: Path, write: Any, tensor: Any, words: str) -> None:
    with pytest.raises(CheckpointUnreadable, match=words):
        read_torch(write(tmp_path / "x.pth", {"w": tensor}))


def test_a_legacy_storage_ends_inside_the_file(tmp_path: Path) -> None:
    path = write_legacy(tmp_path / "x.pth", {"w": view(STORED, 0, (1,), (1,))})
    content = bytearray(path.read_bytes())
    content[-56:-48] = struct.pack("<q", 10**12)
    path.write_bytes(content)
    assert f"storage 0 ends at byte {len(content) - 48 + 4 * 10**12} of {len(content)}" in refusal(path)


@pytest.mark.parametrize("length", [0, 11, 13, 10**12])
def test_a_storage_is_as_long_as_it_says(tmp_path: Path, length: int) -> None:
    state = {"w": view(Stored("0", NUMBERS, length=length), 0, (1,), (1,))}
    said = refusal(write_zip(tmp_path / "x.pth", state))
    assert f"storage 0 has 48 bytes, not the {length} numbers of 4 bytes that it declares" in said


def test_a_storage_that_is_missing_is_named(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "whole.pth", {"w": view(STORED, 0, (1,), (1,))})
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "x.pth", "w") as target:
        target.writestr("archive/data.pkl", source.read("archive/data.pkl"))
    assert "archive/data/0" in refusal(tmp_path / "x.pth")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.999])
@WRITERS
def test_truncated_files(tmp_path: Path, write: Any, share: float) -> None:
    whole = write(tmp_path / "x.pth", tensors(ARRAYS | {"long": np.zeros(1000, np.float32)})).read_bytes()
    (tmp_path / "x.pth").write_bytes(whole[: int(len(whole) * share)])
    assert "it is truncated or damaged" in refusal(tmp_path / "x.pth")


def test_a_changed_bit_in_an_archive_is_found(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.pth", tensors({"long": np.zeros(1000, np.float32)}))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "Bad CRC-32 for file 'archive/data/0'" in refusal(path)


def test_compressed_archives_are_refused_before_anything_is_unpacked(tmp_path: Path) -> None:
    bomb = {"w": np.zeros(10_000_000, np.float32)}
    path = write_zip(tmp_path / "x.pth", tensors(bomb), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    assert "archive/data.pkl in it is compressed, which torch.save never does" in refusal(path)


@pytest.mark.parametrize(("field", "words"), [(20, "declares 48 bytes and has"), (24, "bytes and has 48")])
def test_an_entry_has_the_size_that_it_declares(tmp_path: Path, field: int, words: str) -> None:
    """Byte 20 of a row of the directory is the stored size, byte 24 the unpacked one."""
    path = write_zip(tmp_path / "x.pth", {"w": view(STORED, 0, (1,), (1,))})
    content = bytearray(path.read_bytes())
    row = content.rindex(b"archive/data/0") - 46
    content[row + field : row + field + 4] = struct.pack("<I", 10**9)
    path.write_bytes(content)
    assert words in refusal(path)


def test_entries_do_not_overlap(tmp_path: Path) -> None:
    """The quine bomb: every row of the directory points at the same bytes."""
    state = {str(index): np.full(1000, index, np.float32) for index in range(20)}
    path = write_zip(tmp_path / "x.pth", tensors(state))
    content = path.read_bytes()
    first, last = content.index(b"PK\3\4", content.index(b"byteorder")), content.index(b"PK\1\2")
    end = bytearray(content[last:])
    rows = [place for place in range(len(end)) if end[place : place + 4] == b"PK\1\2"]
    for row in rows[2:-1]:
        end[row + 42 : row + 46] = struct.pack("<I", first)
    short = content[: content.index(b"PK\3\4", first + 4)]
    offset = end.rindex(b"PK\5\6") + 16
    end[offset : offset + 4] = struct.pack("<I", len(short))
    path.write_bytes(short + end)
    assert "its entries declare" in refusal(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not a checkpoint at all", "torch.save did not write it"),
        (pickle.dumps({"a": np.zeros(3)}), r"torch.save did not write it \(a Paddle pickle is named .pdparams\)"),
        (b"PK\x05\x06" + bytes(18), "torch.save did not write it"),
        (b"PK\x03\x04", "truncated"),
    ],
    ids=["text", "paddle", "empty zip", "start of a zip"],
)
def test_other_formats_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointUnreadable, match=words):
        read_torch(tmp_path / "x.pth")


def archive(path: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        for name in names:
            target.writestr(name, pickle.dumps({}, 2))
    return path


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["x/readme"], "it is a zip archive that torch.save did not write"),
        (["data.pkl"], "it is a zip archive that torch.save did not write"),
        (["a/data.pkl", "b/data.pkl"], "it is a zip archive that torch.save did not write"),
        (
            ["x/data.pkl", "x/constants.pkl", "x/code/a.py"],
            r"it is a TorchScript program; save the network's state_dict",
        ),
    ],
)
def test_other_archives_are_refused(tmp_path: Path, names: list[str], words: str) -> None:
    assert words in refusal(archive(tmp_path / "x.pt", names))


def test_a_tar_archive_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(DATA / "torch" / "zip.pth")
    assert "torch.save did not write it" in refusal(tmp_path / "x.tar")


def test_another_legacy_version_is_refused(tmp_path: Path) -> None:
    said = refusal(write_legacy(tmp_path / "x.pth", tensors(ARRAYS), version=1002))
    assert "it is of the legacy format, version 1002, not 1001" in said


def test_entries_that_are_no_tensors_are_all_listed(tmp_path: Path) -> None:
    content = {
        **tensors(ARRAYS),
        "optimizer": {},
        "epoch": 3,
        "args": Called(Name("argparse", "Namespace")),
        "dtype": Name("torch", "float32"),
        7: view(STORED, 0, (1,), (1,)),
    }
    said = refusal(write_zip(tmp_path / "x.pth", content))
    listed = "optimizer (dict), epoch (int), args (argparse.Namespace), dtype (torch.float32), 7 (Tensor)"
    assert f"these entries are no tensors: {listed}; a state dict is looked for under model, state_dict" in said


@pytest.mark.parametrize("content", [[1], None, 3])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    assert f"it holds a {type(content).__name__}, not a state dict" in refusal(write_zip(tmp_path / "x.pth", content))


ARMS = {
    "posix.system": lambda mark: (f"touch {mark}",),
    "builtins.eval": lambda mark: (f"open({str(mark)!r}, 'w')",),
    "subprocess.check_call": lambda mark: (["touch", str(mark)],),
}


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("protocol", [2, 4])
@WRITERS
def test_code_is_never_run_and_its_name_is_said(tmp_path: Path, write: Any, name: str, protocol: int) -> None:
    module, _, member = name.rpartition(".")
    evil = Called(Name(module, member), ARMS[name](tmp_path / "code-ran"))
    for content in ({**tensors(ARRAYS), "evil": evil}, {"model": tensors(ARRAYS), "args": evil}, evil):
        with pytest.raises(CheckpointUnsafe) as caught:
            read_torch(write(tmp_path / "x.pth", content, protocol))
        assert caught.value.found == name
        assert not (tmp_path / "code-ran").exists()


@pytest.mark.parametrize("name", ARMS)
def test_the_same_files_do_run_in_an_ordinary_unpickler(tmp_path: Path, name: str) -> None:
    """The refusal above is worth something only if the file is really armed."""
    module, _, member = name.rpartition(".")
    content = {"evil": Called(Name(module, member), ARMS[name](tmp_path / "code-ran"))}
    with zipfile.ZipFile(write_zip(tmp_path / "x.pth", content)) as source:
        (tmp_path / "data.pkl").write_bytes(source.read("archive/data.pkl"))
    script = f"import pickle; pickle.load(open({str(tmp_path / 'data.pkl')!r}, 'rb'))"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "code-ran").exists()


def test_code_of_an_unlisted_name_is_inert(tmp_path: Path) -> None:
    """Safe by construction, not by the list: a caller that no list knows is a stand-in like any other."""
    mark = tmp_path / "code-ran"
    evil = Called(Name("numpy.testing._private.utils", "runstring"), (f"open({str(mark)!r}, 'w')", {}))
    content = {"model": tensors(ARRAYS), "args": evil}
    assert_same(read_torch(write_zip(tmp_path / "x.pth", content))[0], ARRAYS)
    assert not mark.exists()
    stream = io.BytesIO()
    WRITER["TorchPickler"](stream, 2, legacy=False).dump(evil)
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.loads({stream.getvalue()!r})"], check=True)
    assert mark.exists()
