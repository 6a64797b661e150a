"""CIFAR-10 and CIFAR-100 from their archives "python version", as published at cs.toronto.edu/~kriz/cifar.html.

An archive holds pickles. They are read where they lie, nothing is written to the disk, and the unpickler of
`checkpoint.py` refuses whatever would run code.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import expanduser
from pathlib import Path
from typing import Any

import numpy as np

from dyx.checkpoint import read_arrays
from dyx.datasets.images import ImageData, ImageSet
from dyx.errors import CheckpointUnsafe, DataUnusable

LARGEST_MEMBER_BYTES = 200_000_000
LARGEST_ARCHIVE_BYTES = 500_000_000
"""Unpacked, both above twice what is published: a small file can hold any number of zeros."""

_CHUNK_BYTES = 1 << 20
_SIDE = 32
_COLUMNS = 3 * _SIDE * _SIDE


@dataclass(frozen=True)
class Published:
    """What the published archive of one data set holds.

    Attributes:
        file: Its name.
        train: Members to train on, in order.
        held_out: The member that is held out.
        meta: The member that names the classes.
        classes_key: Where the first two hold their classes.
        labels_key: Where the last holds their names.
        md5: Of the archive.
    """

    file: str
    train: tuple[str, ...]
    held_out: str
    meta: str
    classes_key: str
    labels_key: str
    md5: str


PUBLISHED = {
    "cifar10": Published(
        "cifar-10-python.tar.gz",
        tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
        "cifar-10-batches-py/test_batch",
        "cifar-10-batches-py/batches.meta",
        "labels",
        "label_names",
        "c58f30108f718f92721af3d95e74349a",
    ),
    "cifar100": Published(
        "cifar-100-python.tar.gz",
        ("cifar-100-python/train",),
        "cifar-100-python/test",
        "cifar-100-python/meta",
        "fine_labels",
        "fine_label_names",
        "eb9058c3a382ffc7106e4002c42a8d85",
    ),
}


@dataclass(frozen=True)
class _Archive:
    """An archive that a user gave."""

    source: str
    path: Path
    published: Published

    def unusable(self, reason: str) -> DataUnusable:
        """The error that says why it cannot be used."""
        return DataUnusable(self.source, reason, f"give the path of {self.published.file} as it was published")


@dataclass(frozen=True)
class _Batch:
    """The pictures of one member: uint8 `(n, 3072)`, a red, a green and a blue plane in each row; and their classes."""

    rows: np.ndarray
    classes: np.ndarray


def read_cifar10(place: str) -> ImageData:
    """CIFAR-10: 50,000 pictures of 10 classes to train on, 10,000 held out, 32×32. Raises DataUnusable."""
    return _read("cifar10", place)


def read_cifar100(place: str) -> ImageData:
    """CIFAR-100: 50,000 pictures of 100 classes to train on, 10,000 held out, 32×32. Raises DataUnusable."""
    return _read("cifar100", place)


def _read(kind: str, place: str) -> ImageData:
    published = PUBLISHED[kind]
    archive = _Archive(f"{kind}:{place}", Path(expanduser(place)), published)
    _check_intact(archive)
    members = _members(archive)
    labels = _labels(archive, members.pop(published.meta))
    batches = {name: _batch(archive, name, content, len(labels)) for name, content in members.items()}
    del members  # what is joined below can then be let go of, batch by batch
    train = _joined([batches.pop(name) for name in published.train])
    held_out = _joined([batches.pop(published.held_out)])
    return ImageData(archive.source, labels, train, held_out, _notes(archive))


def _check_intact(archive: _Archive) -> None:
    """Unpack it once and keep nothing: its checksum stands at the end."""
    if not archive.path.is_file():
        raise archive.unusable("it is a folder" if archive.path.is_dir() else "there is no such file")
    size = 0
    try:
        with gzip.open(archive.path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > LARGEST_ARCHIVE_BYTES:
                    raise archive.unusable(f"it unpacks to more than {LARGEST_ARCHIVE_BYTES:,} bytes")
    except (OSError, EOFError, zlib.error) as error:
        raise archive.unusable(f"it is damaged, truncated or not packed by gzip ({error})") from error


def _members(archive: _Archive) -> dict[str, dict[str, Any]]:
    """What the pickles that are needed hold, by member."""
    wanted = (*archive.published.train, archive.published.held_out, archive.published.meta)
    found: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(archive.path, "r:gz") as tar:
            for member in tar:
                if member.name in wanted and member.isreg():
                    found[member.name] = _member(archive, tar, member)
    except (OSError, ValueError, tarfile.TarError) as error:
        raise archive.unusable(f"what it unpacks to is no tar archive, or a damaged one ({error})") from error
    missing = [name for name in wanted if name not in found]
    if missing:
        raise archive.unusable(f"these files are not in it: {', '.join(missing)}")
    return found


def _member(archive: _Archive, tar: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    if member.size > LARGEST_MEMBER_BYTES:
        raise archive.unusable(f"{member.name} has {member.size:,} bytes, more than {LARGEST_MEMBER_BYTES:,}")
    file = tar.extractfile(member)
    assert file is not None, "a regular file has content"
    try:
        # It ends where the member ends. Python 2 wrote the published ones: their strings are bytes.
        content = read_arrays(file, archive.path, encoding="bytes")
    except CheckpointUnsafe as error:
        reason = f"{member.name} refers to {error.found}, which is neither an array nor a plain container"
        raise archive.unusable(f"{reason}; nothing was run") from error
    except Exception as error:  # a damaged pickle can raise almost anything
        said = f"{type(error).__name__}: {error}"
        raise archive.unusable(f"{member.name} is truncated or no pickle ({said})") from error
    if not isinstance(content, dict):
        raise archive.unusable(f"{member.name} holds a {type(content).__name__}, not a dictionary")
    return {_text(key): value for key, value in content.items()}


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _entry(archive: _Archive, member: str, content: Mapping[str, Any], key: str) -> Any:
    if key not in content:
        raise archive.unusable(f"{member} has no entry {key!r}; it has {', '.join(sorted(content)) or 'none'}")
    return content[key]


def _labels(archive: _Archive, content: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes."""
    member, key = archive.published.meta, archive.published.labels_key
    names = _entry(archive, member, content, key)
    if not isinstance(names, list) or not names or not all(isinstance(name, bytes | str) for name in names):
        raise archive.unusable(f"{key} of {member} is {_seen(names)}, not a list of names")
    return tuple(_text(name) for name in names)


def _batch(archive: _Archive, member: str, content: Mapping[str, Any], count: int) -> _Batch:
    """The pictures of a member and their classes, which are of so many; all checked."""
    key = archive.published.classes_key
    rows, classes = (_entry(archive, member, content, name) for name in ("data", key))
    is_bytes = isinstance(rows, np.ndarray) and rows.dtype == np.uint8
    if not is_bytes or rows.shape[1:] != (_COLUMNS,) or not len(rows):
        raise archive.unusable(f"data of {member} is {_seen(rows)}, not an array uint8 [n, {_COLUMNS}]")
    if not isinstance(classes, list) or not all(isinstance(number, int) for number in classes):
        raise archive.unusable(f"{key} of {member} is {_seen(classes)}, not a list of integers")
    if len(rows) != len(classes):
        raise archive.unusable(f"{member} has {len(rows)} pictures in data and {len(classes)} classes in {key}")
    strange = next((row for row, number in enumerate(classes) if not 0 <= number < count), None)
    if strange is not None:
        said = f"{classes[strange]} in row {strange}, which is not one of 0 to {count - 1}"
        raise archive.unusable(f"{key} of {member} is {said}")
    return _Batch(rows, np.array(classes, np.int64))


def _seen(value: Any) -> str:
    """A value of a damaged archive, in words."""
    if isinstance(value, np.ndarray):
        return f"an array {value.dtype} {list(value.shape)}"
    if isinstance(value, list):
        kinds = sorted({type(part).__name__ for part in value})
        return f"a list of {', '.join(kinds) or 'nothing'}"
    return f"a {type(value).__name__}"


def _joined(batches: list[_Batch]) -> ImageSet:
    """Batches as one set, in order. The list is emptied on the way, so that each batch is there but once."""
    classes = np.concatenate([batch.classes for batch in batches])
    pictures = np.empty((len(classes), _SIDE, _SIDE, 3), np.uint8)
    start = 0
    while batches:
        planes = batches.pop(0).rows.reshape(-1, 3, _SIDE, _SIDE)
        pictures[start : start + len(planes)] = planes.transpose(0, 2, 3, 1)
        start += len(planes)
    return ImageSet(pictures, classes)


def _notes(archive: _Archive) -> tuple[str, ...]:
    with archive.path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    wanted = archive.published.md5
    return () if md5 == wanted else (f"not the published archive (MD5 {md5} instead of {wanted})",)
