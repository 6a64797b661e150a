"""Writes archives as CIFAR-10 and CIFAR-100 are published: pickles of Python 2 in a .tar.gz. Pictures are drawn."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dyx.zoo.data import CIFAR10, CIFAR100


class Python2Pickler(pickle._Pickler):
    """A pickler that writes strings and numbers with the opcodes of Python 2 (protocol 2)."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_string(self, text: bytes) -> None:
        short = len(text) < 256
        head = pickle.SHORT_BINSTRING + bytes([len(text)]) if short else pickle.BINSTRING + struct.pack("<i", len(text))
        self.write(head + text)
        self.memoize(text)

    def save_text(self, text: str) -> None:
        self.save(text.encode("latin1"))

    def save_flag(self, flag: bool) -> None:
        """numpy gave its flags as numbers then."""
        self.save(int(flag))

    dispatch[bytes] = save_string
    dispatch[str] = save_text
    dispatch[bool] = save_flag


def python2_pickle(content: Any) -> bytes:
    """A pickle as Python 2 and numpy 1 wrote it; bytes and str alike become its strings."""
    stream = io.BytesIO()
    Python2Pickler(stream, 2).dump(content)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def draw(classes: int, count: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 `(count, 32, 32, 3)` whose colour tells the class, under noise; every class about as often."""
    labels = random.permutation(np.arange(count) % classes)
    levels = int(np.ceil(classes ** (1 / 3)))
    digits = np.stack([labels // levels**place % levels for place in range(3)], axis=1)
    colours = 40 + 176 * digits / (levels - 1)
    noise = random.normal(0, 20, (count, 32, 32, 3))
    return np.clip(colours[:, None, None] + noise, 0, 255).astype(np.uint8), labels


def batch(pictures: np.ndarray, labels: np.ndarray, key: str) -> dict[str, Any]:
    """What one member holds: a red, a green and a blue plane per row."""
    rows = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)).reshape(len(pictures), 3072)
    return {"batch_label": "drawn", key: labels.tolist(), "data": rows}


def contents(kind: str, train: int, held_out: int, seed: int) -> dict[str, dict[str, Any]]:
    """Member → what it holds. Train and held out are counts of pictures."""
    data, key = (CIFAR10, "labels") if kind == "cifar10" else (CIFAR100, "fine_labels")
    random = np.random.RandomState(seed)
    pictures, labels = draw(len(data.labels), train, random)
    names = {"label_names" if kind == "cifar10" else "fine_label_names": list(data.labels)}
    tested = batch(*draw(len(data.labels), held_out, random), key)
    if kind == "cifar100":
        folder = "cifar-100-python"
        return {f"{folder}/meta": names, f"{folder}/test": tested, f"{folder}/train": batch(pictures, labels, key)}
    folder = "cifar-10-batches-py"
    parts = zip(np.array_split(pictures, 5), np.array_split(labels, 5), strict=True)
    batches = {f"{folder}/data_batch_{number}": batch(*part, key) for number, part in enumerate(parts, 1)}
    # Out of order, as they are published.
    return {f"{folder}/batches.meta": names, f"{folder}/test_batch": tested, **dict(reversed(batches.items()))}


def write_archive(path: Path, members: Mapping[str, bytes]) -> Path:
    """A .tar.gz of members, with a folder and a page beside them, as there are in the published ones."""
    with tarfile.open(path, "w:gz") as tar:
        folder = tarfile.TarInfo(next(iter(members)).partition("/")[0])
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in {**members, f"{folder.name}/readme.html": b"<html>"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_cifar(path: Path, kind: str = "cifar10", train: int = 50, held_out: int = 20, seed: int = 0) -> Path:
    """A small archive of `cifar10` or `cifar100` whose pictures can be learnt."""
    drawn = contents(kind, train, held_out, seed)
    return write_archive(path, {name: python2_pickle(content) for name, content in drawn.items()})
