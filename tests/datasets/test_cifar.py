"""Archives of CIFAR: honest ones come out pixel by pixel, bad ones are told of in one sentence, and no code runs."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from pickletools import genops
from typing import Any

import numpy as np
import pytest

from dyx.datasets import cifar, read_data
from dyx.errors import DyxError

Pack = Callable[..., Path]
Fails = Callable[[str, str], DyxError]

ROWS = np.zeros((3, 3072), np.uint8)


def python3_pickle(protocol: int) -> Callable[[Any], bytes]:
    return lambda content: pickle.dumps(content, protocol=protocol)


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_archive_comes_out_pixel_by_pixel(kind: str, protocol: int, pack: Pack, writer: Any) -> None:
    """Protocol 0 stands for Python 2."""
    path = pack(kind=kind, dumps=python3_pickle(protocol) if protocol else None)
    data = read_data(f"{kind}:{path}")
    assert data.name == f"{kind}:{path}"
    assert (len(data.labels), data.labels[0]) == ((10, "airplane") if kind == "cifar10" else (100, "apple"))
    members = writer.contents(kind, 23, 10, 0)
    train = [members[name] for name in sorted(members) if "data_batch" in name or name.endswith("train")]
    (tested,) = (part for name, part in members.items() if "test" in name)
    for got, parts, count in ((data.train, train, 23), (data.held_out, [tested], 10)):
        rows = np.concatenate([part["data"] for part in parts])
        classes = [number for part in parts for number in part["labels" if kind == "cifar10" else "fine_labels"]]
        assert (got.pictures.dtype, got.pictures.shape, got.classes.dtype) == (np.uint8, (count, 32, 32, 3), np.int64)
        assert got.pictures.flags.c_contiguous
        assert got.classes.tolist() == classes
        for colour in range(3):
            planes = rows[:, 1024 * colour : 1024 * (colour + 1)].reshape(count, 32, 32)
            np.testing.assert_array_equal(got.pictures[..., colour], planes)


def test_writer_writes_what_python_2_wrote(pack: Pack) -> None:
    with tarfile.open(pack()) as tar:
        file = tar.extractfile("cifar-10-batches-py/data_batch_1")
        assert file is not None
        opcodes = [(opcode.name, argument) for opcode, argument, _ in genops(file.read())]
    assert {"SHORT_BINSTRING", "BINSTRING"} < {name for name, _ in opcodes}
    assert not {"BINUNICODE", "BINBYTES", "NEWTRUE", "NEWFALSE"} & {name for name, _ in opcodes}
    assert ("GLOBAL", "numpy.core.multiarray _reconstruct") in opcodes


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("copy", [0, 1])
def test_reading_warns_of_nothing(copy: int, pack: Pack, writer: Any) -> None:
    """The published files give numpy's dtype the flags 0 and 1, of which 2.4.0 to 2.4.4 warn; later ones of 0 and 0."""
    flags = b"K\x00K%c\x87"

    def dumps(content: Any) -> bytes:
        written: bytes = writer.python2_pickle(content)
        assert flags % 1 in written or "data" not in content
        return written.replace(flags % 1, flags % copy)

    read_data(f"cifar10:{pack(dumps=dumps)}")


def test_drawn_pictures_can_be_learnt(cifar_archive: Callable[..., Path], tmp_path: Path) -> None:
    """The nearest mean colour tells the class, also of a hundred."""
    for kind, classes in (("cifar10", 10), ("cifar100", 100)):
        data = read_data(f"{kind}:{cifar_archive(tmp_path / kind, kind, 5 * classes, classes, seed=3)}")
        colours, asked = (part.pictures.mean(axis=(1, 2)) for part in (data.train, data.held_out))
        means = np.stack([colours[data.train.classes == number].mean(axis=0) for number in range(classes)])
        nearest = np.linalg.norm(asked[:, None] - means, axis=2).argmin(axis=1)
        np.testing.assert_array_equal(nearest, data.held_out.classes)
    again = read_data(f"{kind}:{cifar_archive(tmp_path / 'again', kind, 5 * classes, classes, seed=4)}")
    assert not np.array_equal(again.train.pictures, data.train.pictures)


def test_archive_that_is_not_the_published_one_is_said(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack()
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    wanted = "c58f30108f718f92721af3d95e74349a"
    assert read_data(f"cifar10:{path}").notes == (f"not the published archive (MD5 {md5} instead of {wanted})",)
    monkeypatch.setitem(cifar.PUBLISHED, "cifar10", replace(cifar.PUBLISHED["cifar10"], md5=md5))
    assert read_data(f"cifar10:{path}").notes == ()


def test_memory_stays_near_the_size_of_the_data(cifar_archive: Callable[..., Path], tmp_path: Path) -> None:
    path = cifar_archive(tmp_path / "x.tar.gz", "cifar10", 5000, 1000)
    read_data(f"cifar10:{path}")  # what is imported on the way counts once
    tracemalloc.start()
    data = read_data(f"cifar10:{path}")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = data.train.pictures.nbytes + data.held_out.pictures.nbytes
    # All batches as read, and the training set into which they are joined: 1 + 5 / 6.
    assert peak < 1.9 * size


def test_archive_that_is_no_file(tmp_path: Path, fails: Fails) -> None:
    error = fails(f"cifar10:{tmp_path / 'absent.tar.gz'}", "there is no such file")
    assert error.hint == "give the path of cifar-10-python.tar.gz as it was published"
    fails(f"cifar100:{tmp_path}", "it is a folder")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.9, 0.9999])
def test_truncated_archive(share: float, pack: Pack, fails: Fails) -> None:
    path = pack()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    # Of nothing at all gzip says nothing.
    words = "it is damaged, truncated or not packed by gzip" if share else "no tar archive, or a damaged one"
    fails(f"cifar10:{path}", words)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9999])
def test_flipped_bits_in_an_archive(share: float, pack: Pack, fails: Fails) -> None:
    path = pack()
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 0xFF
    path.write_bytes(content)
    fails(f"cifar10:{path}", "it is damaged, truncated or not packed by gzip")


def test_archive_of_something_else(tmp_path: Path, fails: Fails) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(b"no archive at all")
    fails(f"cifar10:{path}", "not packed by gzip .*no")
    path.write_bytes(gzip.compress(b"no tar archive at all" * 100))
    fails(f"cifar10:{path}", "what it unpacks to is no tar archive")


def test_tar_that_ends_too_early(pack: Pack, fails: Fails) -> None:
    path = pack()
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:40_000]))
    fails(f"cifar10:{path}", "data_batch_|no tar archive, or a damaged one")


def test_members_that_are_missing(pack: Pack, fails: Fails) -> None:
    fails(
        f"cifar10:{pack({'test_batch': None, 'data_batch_3': None})}",
        "these files are not in it: cifar-10-batches-py/data_batch_3, cifar-10-batches-py/test_batch$",
    )
    fails(f"cifar100:{pack()}", "these files are not in it: cifar-100-python/train, ")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_are_not_followed(kind: bytes, pack: Pack, tmp_path: Path, fails: Fails) -> None:
    path = tmp_path / "links.tar.gz"
    with tarfile.open(pack()) as old, tarfile.open(path, "w:gz") as new:
        for member in old:
            content = old.extractfile(member)
            if member.name.endswith("data_batch_1"):
                member.type, member.linkname, member.size = kind, "cifar-10-batches-py/data_batch_2", 0
            new.addfile(member, content)
    fails(f"cifar10:{path}", "these files are not in it: cifar-10-batches-py/data_batch_1$")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"test_batch": [1]}, "test_batch holds a list, not a dictionary"),
        ({"test_batch": b"no pickle"}, "test_batch is truncated or no pickle"),
        ({"test_batch": b""}, "test_batch is truncated or no pickle .EOFError"),
        ({"test_batch": {"labels": [0], "fine": 1}}, "test_batch has no entry 'data'; it has fine, labels"),
        ({"test_batch": {"data": ROWS}}, "test_batch has no entry 'labels'; it has data"),
        ({"test_batch": {"data": ROWS[:, :3071], "labels": [0] * 3}}, r"array uint8 \[3, 3071\], not .* \[n, 3072\]"),
        ({"test_batch": {"data": ROWS.astype("f4"), "labels": [0] * 3}}, r"data of .* is an array float32 \[3, 3072\]"),
        ({"test_batch": {"data": ROWS[0], "labels": [0] * 3}}, r"an array uint8 \[3072\]"),
        ({"test_batch": {"data": np.array(3, "u1"), "labels": [0] * 3}}, r"an array uint8 \[\]"),
        ({"test_batch": {"data": ROWS[:0], "labels": []}}, r"an array uint8 \[0, 3072\]"),
        ({"test_batch": {"data": [1], "labels": [0]}}, "data of .* is a list of int, not an array"),
        (
            {"test_batch": {"data": ROWS, "labels": [0] * 4}},
            "test_batch has 3 pictures in data and 4 classes in labels",
        ),
        ({"test_batch": {"data": ROWS, "labels": ["0"] * 3}}, "is a list of bytes, not a list of integers"),
        ({"test_batch": {"data": ROWS, "labels": ROWS}}, r"is an array uint8 \[3, 3072\], not a list of integers"),
        ({"data_batch_2": {"data": ROWS, "labels": [0, 10, 0]}}, "data_batch_2 is 10 in row 1, .* not one of 0 to 9"),
        ({"data_batch_2": {"data": ROWS, "labels": [0, 0, -1]}}, "data_batch_2 is -1 in row 2, .* not one of 0 to 9"),
        ({"batches.meta": {"label_names": "a"}}, "label_names of .*batches.meta is a bytes, not a list of names"),
        ({"batches.meta": {"label_names": []}}, "is a list of nothing, not a list of names"),
        ({"batches.meta": {"label_names": [1]}}, "is a list of int, not a list of names"),
        ({"batches.meta": {}}, "batches.meta has no entry 'label_names'; it has none"),
    ],
)
def test_members_that_do_not_hold_what_they_should(
    changed: dict[str, Any], words: str, pack: Pack, fails: Fails
) -> None:
    fails(f"cifar10:{pack(changed)}", words)


class Payload:
    """A pickle that writes a file when it is loaded by an ordinary unpickler."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_armed_archive_is_refused_and_nothing_runs(protocol: int, pack: Pack, tmp_path: Path, fails: Fails) -> None:
    mark = tmp_path / "code-ran"
    armed = pickle.dumps({"data": ROWS, "labels": [0] * 3, "evil": Payload(mark)}, protocol=protocol)
    reason = "test_batch refers to posix.system, which is neither an array nor a plain container; nothing was run"
    fails(f"cifar10:{pack({'test_batch': armed})}", reason)
    assert not mark.exists()
    # The refusal is worth something only if the member is really armed.
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.loads({armed!r})"], check=True)
    assert mark.exists()


def test_persistent_objects_of_an_archive_are_refused(pack: Pack, fails: Fails) -> None:
    fails(f"cifar10:{pack({'test_batch': b'U' + bytes([1]) + b'aQ.'})}", "refers to a persistent object b'a'")


def test_members_and_archives_that_unpack_to_too_much(
    pack: Pack, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    path = pack()
    monkeypatch.setattr(cifar, "LARGEST_MEMBER_BYTES", 20_000)
    fails(f"cifar10:{path}", r"test_batch has 3\d,\d{3} bytes, more than 20,000")
    monkeypatch.setattr(cifar, "LARGEST_ARCHIVE_BYTES", 100_000)
    fails(f"cifar10:{path}", "it unpacks to more than 100,000 bytes")


def test_zeros_that_unpack_to_gigabytes_are_not_kept(tmp_path: Path, fails: Fails) -> None:
    path = tmp_path / "bomb.tar.gz"
    member = tarfile.TarInfo("cifar-10-batches-py/test_batch")
    member.size = 600_000_000
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(member.tobuf())
        for _ in range(600):
            file.write(bytes(1_000_000))
    tracemalloc.start()
    fails(f"cifar10:{path}", "it unpacks to more than 500,000,000 bytes")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
