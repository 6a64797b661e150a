"""Writes what torch.save writes, without torch; and what it would never write.

A test gives tensors as `view(…)` over storages as `Stored(…)`, or as plain arrays.
"""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

KINDS = {
    "float32": "Float",
    "float64": "Double",
    "float16": "Half",
    "int64": "Long",
    "int8": "Char",
    "uint16": "BFloat16",
    "bool": "Bool",
}


@dataclass(frozen=True)
class Name:
    """A name in a pickle, which need not exist anywhere."""

    module: str
    name: str

    def __call__(self, *_: Any) -> None:
        """So that a pickler takes it for something to call."""


@dataclass(frozen=True)
class Called:
    """The result of a call in a pickle, with state if there is any."""

    name: Name
    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.name, self.arguments) if self.state is None else (self.name, self.arguments, self.state)


@dataclass(frozen=True)
class Stored:
    """A storage: the numbers that are in the file, and what the pickle says of them where that differs."""

    key: str
    numbers: np.ndarray
    kind: str = ""
    length: int | None = None

    @property
    def pid(self) -> tuple[Any, ...]:
        kind = self.kind or KINDS[self.numbers.dtype.name]
        return (
            "storage",
            Name("torch", f"{kind}Storage"),
            self.key,
            "cuda:0",
            self.numbers.size if self.length is None else self.length,
        )


def view(storage: Any, offset: Any, size: Any, strides: Any, *metadata: Any) -> Called:
    """A tensor as torch tells of it."""
    hooks = Called(Name("collections", "OrderedDict"))
    return Called(Name("torch._utils", "_rebuild_tensor_v2"), (storage, offset, size, strides, False, hooks, *metadata))


class TorchPickler(pickle._Pickler):
    """A pickler that writes names without looking for them, and storages as persistent objects."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def __init__(self, file: io.BytesIO, protocol: int, *, legacy: bool) -> None:
        super().__init__(file, protocol)
        self.legacy = legacy
        self.stored: dict[str, Stored] = {}

    def persistent_id(self, thing: Any) -> Any:
        if not isinstance(thing, Stored):
            return None
        self.stored[thing.key] = thing
        return (*thing.pid, None) if self.legacy else thing.pid

    def save_name(self, name: Name) -> None:
        self.write(b"c" + f"{name.module}\n{name.name}\n".encode())
        self.memoize(name)

    dispatch[Name] = save_name


def tensors(state: dict[str, np.ndarray]) -> OrderedDict[str, Called]:
    """A state dict of plain arrays, each over a storage of its own."""
    written = OrderedDict()
    for index, (key, values) in enumerate(state.items()):
        array = np.array(values, order="C")
        strides = tuple(stride // array.itemsize for stride in array.strides)
        written[key] = view(Stored(str(index), array), 0, array.shape, strides)
    return written


def write_zip(path: Path, content: Any, protocol: int = 2, order: str = "little", **packing: Any) -> Path:
    """A file as torch.save writes it since 1.6. `packing` goes to ZipFile."""
    stream = io.BytesIO()
    pickler = TorchPickler(stream, protocol, legacy=False)
    pickler.dump(content)
    with zipfile.ZipFile(path, "w", **packing) as archive:
        archive.writestr("archive/data.pkl", stream.getvalue())
        archive.writestr("archive/byteorder", order)
        for key, storage in pickler.stored.items():
            archive.writestr(
                f"archive/data/{key}", storage.numbers.astype(storage.numbers.dtype.newbyteorder(order)).tobytes()
            )
        archive.writestr("archive/version", "3\n")
    return path


def write_legacy(path: Path, content: Any, protocol: int = 2, order: str = sys.byteorder, version: int = 1001) -> Path:
    """A file as torch.save wrote it before 1.6."""
    stream = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, version, {"protocol_version": version, "little_endian": order == "little"}):
        pickle.dump(part, stream, protocol=2)
    pickler = TorchPickler(stream, protocol, legacy=True)
    pickler.dump(content)
    pickle.dump(sorted(pickler.stored), stream, protocol=2)
    for _, storage in sorted(pickler.stored.items()):
        stream.write(storage.numbers.size.to_bytes(8, order))
        stream.write(storage.numbers.astype(storage.numbers.dtype.newbyteorder(order)).tobytes())
    path.write_bytes(stream.getvalue())
    return path
