"""Arrays out of a `.pth` or `.pt` of torch.save, without torch and without running code.

Two formats are read. A zip archive holds the pickle `<root>/data.pkl`, storages `<root>/data/<key>` and
`<root>/byteorder`. The legacy format, torch's own before 1.6, is one stream: a magic number, a version, facts about the
machine, the pickle, the keys of the storages, then each storage as its length and its bytes.

Nothing that a file says of itself is believed: entries are stored, not compressed, and together no longer than the
file; a tensor stays inside its storage; tensors together have no more numbers than the file has bytes.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from dyx.errors import CheckpointUnreadable, DyxError
from dyx.torch_pickle import StandIn, Storage, Tensor, read_pickle

SUFFIXES = (".pth", ".pt", ".tar")
"""Of torch's files; `.pth.tar` is what many training scripts write."""

WRAPPERS = ("model", "state_dict", "model_state_dict", "model_ema", "state_dict_ema", "net", "module", "params")
"""Where a training run keeps its state dict, in the order in which one is taken."""

_DEEPEST = 2
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001

_DTYPES = {
    "Float": "f4",
    "Double": "f8",
    "Half": "f2",
    "BFloat16": "u2",  # numpy has none: the reader of every format widens uint16
    "Long": "i8",
    "Int": "i4",
    "Short": "i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "?",
}


ByteOrder = Literal["little", "big"]


@dataclass(frozen=True)
class _Opened:
    """A file whose pickle was read.

    Attributes:
        content: Of the pickle; tensors are not read yet.
        stored: The bytes of a storage.
        byteorder: Of its numbers.
    """

    content: Any
    stored: Callable[[Storage], bytes]
    byteorder: ByteOrder


def read_torch(path: Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The arrays of the state dict in a file, key by key, and a note on where in the file it stood.

    Integers stay integers, and bfloat16 comes as uint16.

    Raises:
        CheckpointUnreadable: Not of torch.save, truncated, or with an entry that is no tensor.
        CheckpointUnsafe: It names something that could run code. Nothing was run.
    """
    try:
        with _opened(path) as opened:
            state, notes = _state_dict(path, opened.content)
            return _arrays(path, opened, state), notes
    except DyxError:
        raise
    except Exception as error:  # a damaged file can raise almost anything
        reason = f"it is truncated or damaged, or torch.save did not write it ({type(error).__name__}: {error})"
        raise CheckpointUnreadable(path, reason) from error


@contextmanager
def _opened(path: Path) -> Iterator[_Opened]:
    with path.open("rb") as file:
        if file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC:
            with zipfile.ZipFile(file) as archive:
                yield _from_archive(path, archive)
        else:
            file.seek(0)
            yield _from_stream(path, file)


def _from_archive(path: Path, archive: zipfile.ZipFile) -> _Opened:
    entries = {entry.filename: entry for entry in archive.infolist()}
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise CheckpointUnreadable(path, "it is a zip archive that torch.save did not write")
    root = roots[0]
    if f"{root}constants.pkl" in entries:
        raise CheckpointUnreadable(path, "it is a TorchScript program; save the network's state_dict() instead")
    _check_entries(path, list(entries.values()))
    order = archive.read(f"{root}byteorder") if f"{root}byteorder" in entries else b"little"
    content, _ = read_pickle(io.BytesIO(archive.read(f"{root}data.pkl")), path)
    return _Opened(
        content, lambda storage: archive.read(f"{root}data/{storage.key}"), "big" if order == b"big" else "little"
    )


def _check_entries(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    """What could make a small file a large one is refused before anything is read."""
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise CheckpointUnreadable(path, f"{entry.filename} in it is compressed, which torch.save never does")
        if entry.file_size != entry.compress_size:
            raise CheckpointUnreadable(
                path, f"{entry.filename} in it declares {entry.file_size} bytes and has {entry.compress_size}"
            )
    declared, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if declared > size:
        raise CheckpointUnreadable(path, f"its entries declare {declared} bytes, and the file has {size}")


def _from_stream(path: Path, file: IO[bytes]) -> _Opened:
    if read_pickle(file, path)[0] != _LEGACY_MAGIC:
        raise CheckpointUnreadable(path, "torch.save did not write it (a Paddle pickle is named .pdparams)")
    version, machine = (read_pickle(file, path)[0] for _ in range(2))
    if version != _LEGACY_VERSION:
        raise CheckpointUnreadable(path, f"it is of the legacy format, version {version}, not {_LEGACY_VERSION}")
    content, storages = read_pickle(file, path)
    keys, _ = read_pickle(file, path)
    byteorder: ByteOrder = "little" if machine["little_endian"] else "big"
    dtypes = {key: _dtype(path, storages[key], byteorder) for key in keys}
    places = _places(file, dtypes, byteorder)

    def stored(storage: Storage) -> bytes:
        start, length = places[storage.key]
        file.seek(start)
        return file.read(length)

    return _Opened(content, stored, byteorder)


def _places(file: IO[bytes], dtypes: Mapping[str, np.dtype[Any]], byteorder: ByteOrder) -> dict[str, tuple[int, int]]:
    """Where each storage of a stream starts, and how many bytes it has; the file stands before the first."""
    places, start = {}, file.tell()
    end = file.seek(0, io.SEEK_END)
    for key, dtype in dtypes.items():
        file.seek(start)
        length = int.from_bytes(file.read(8), byteorder) * dtype.itemsize
        places[key] = start + 8, length
        start += 8 + length
        if start > end:
            raise EOFError(f"storage {key} ends at byte {start} of {end}")
    return places


def _state_dict(path: Path, content: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of the state dict in what a pickle holds, bare or wrapped; if wrapped, a note says where."""
    taken: list[str] = []
    beside: list[str] = []
    while len(taken) < _DEEPEST and (name := _wrapper(content)):
        beside += [str(key) for key in content if key != name]
        taken.append(name)
        content = content[name]
    _check_tensors(path, content)
    if not taken:
        return content, ()
    others = f"; beside it: {', '.join(beside)}" if beside else ""
    return content, (f"state dict taken from {' / '.join(map(repr, taken))}{others}",)


def _wrapper(content: Any) -> str | None:
    if not isinstance(content, dict):
        return None
    return next((name for name in WRAPPERS if isinstance(content.get(name), dict) and content[name]), None)


def _check_tensors(path: Path, content: Any) -> None:
    if not isinstance(content, dict):
        raise CheckpointUnreadable(path, f"it holds a {_kind(content)}, not a state dict; save network.state_dict()")
    strange = {key: value for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))}
    if strange:
        listed = ", ".join(f"{key} ({_kind(value)})" for key, value in strange.items())
        raise CheckpointUnreadable(
            path, f"these entries are no tensors: {listed}; a state dict is looked for under {', '.join(WRAPPERS)}"
        )


def _kind(value: Any) -> str:
    """Of what class a value is, or which it is; a stand-in tells the name of the real one."""
    if isinstance(value, StandIn) or (isinstance(value, type) and issubclass(value, StandIn)):
        return value.name
    return type(value).__name__


def _arrays(path: Path, opened: _Opened, state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The tensors' numbers. A storage that several tensors share is read once."""
    for key, tensor in state.items():
        _check_tensor(path, key, tensor)
    count, size = sum(math.prod(tensor.size) for tensor in state.values()), path.stat().st_size
    if count > size:
        raise CheckpointUnreadable(path, f"its tensors claim {count} numbers, and the file has {size} bytes")
    read = cache(lambda storage: _numbers(path, opened, storage))
    return {key: _view(path, key, read(tensor.storage), tensor) for key, tensor in state.items()}


def _check_tensor(path: Path, key: str, tensor: Tensor) -> None:
    shapes = tensor.size, tensor.strides
    honest = all(isinstance(shape, tuple) for shape in shapes) and len(tensor.size) == len(tensor.strides)
    if not (honest and all(isinstance(n, int) and n >= 0 for n in (tensor.offset, *tensor.size, *tensor.strides))):
        told = f"offset {tensor.offset}, size {tensor.size}, strides {tensor.strides}"
        raise CheckpointUnreadable(path, f"{key} is no view of a storage: {told}")


def _numbers(path: Path, opened: _Opened, storage: Storage) -> np.ndarray:
    """A storage as a read-only vector."""
    dtype = _dtype(path, storage, opened.byteorder)
    content = opened.stored(storage)
    if len(content) != storage.length * dtype.itemsize:
        raise CheckpointUnreadable(
            path,
            f"storage {storage.key} has {len(content)} bytes, not the {storage.length} numbers of"
            f" {dtype.itemsize} bytes that it declares",
        )
    return np.frombuffer(content, dtype).astype(dtype.newbyteorder("="), copy=False)


def _dtype(path: Path, storage: Storage, byteorder: ByteOrder) -> np.dtype[Any]:
    if storage.kind not in _DTYPES:
        raise CheckpointUnreadable(path, f"storage {storage.key} is of kind {storage.kind}, which holds no weights")
    return np.dtype(_DTYPES[storage.kind]).newbyteorder(byteorder)


def _view(path: Path, key: str, numbers: np.ndarray, tensor: Tensor) -> np.ndarray:
    if 0 in tensor.size:
        return np.zeros(tensor.size, numbers.dtype)
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.size, tensor.strides, strict=True))
    if last >= len(numbers):
        raise CheckpointUnreadable(path, f"{key} reaches number {last} of a storage that has {len(numbers)}")
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.size, strides, writeable=False)
