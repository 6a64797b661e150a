"""Pictures in folders, one folder per class.

Either `DIR/train/CLASS/…` and `DIR/val/CLASS/…` (or `validation`, or `test`), or `DIR/CLASS/…`, of which a fifth of
every class is then held out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import expanduser
from pathlib import Path
from typing import TypeAlias

import numpy as np

from dyx.datasets.images import ImageData, ImageSet
from dyx.errors import DataUnusable, ImageUnreadable
from dyx.preprocess import PICTURE_SUFFIXES, check_picture, picture_files

Files: TypeAlias = Mapping[str, Sequence[Path]]
"""Class → its pictures."""

TRAIN = "train"
HELD_OUT = ("val", "validation", "test")
"""The first of these that is there beside `train` is held out."""

_SHARE = 5
_LISTED = 5
_HINT = "lay it out as DIR/CLASS/picture.png, or as DIR/train/CLASS/picture.png and DIR/val/CLASS/picture.png"


def read_class_folders(place: str) -> ImageData:
    """The pictures of a folder, each class a folder in it; classes are in the order of their names.

    Raises:
        DataUnusable: No such folder, fewer than two classes, a class without pictures, pictures that cannot be read.
        PackageMissing: Pillow.
    """
    source, folder = f"folder:{place}", Path(expanduser(place))
    if not folder.is_dir():
        raise DataUnusable(source, "it is a file" if folder.exists() else "there is no such folder", _HINT)
    beside = _beside_train(folder)
    notes: tuple[str, ...] = ()
    train = _files(source, folder / TRAIN if beside else folder)
    if len(train) < 2:
        raise DataUnusable(source, f"it has a single class, {', '.join(train)}", _HINT)
    if beside:
        held_out = _files(source, folder / beside)
        _check_known(source, beside, held_out, train)
    else:
        train, held_out = _split(source, train)
        notes = ("a fifth of every class is held out, always the same pictures",)
    _check_readable(source, [file for files in (*train.values(), *held_out.values()) for file in files])
    labels = tuple(train)
    return ImageData(source, labels, _image_set(train, labels), _image_set(held_out, labels), notes)


def _beside_train(folder: Path) -> str:
    """The folder that is held out, if there is one; `train` alone may well be a class."""
    there = (name for name in HELD_OUT if (folder / name).is_dir())
    return next(there, "") if (folder / TRAIN).is_dir() else ""


def _files(source: str, folder: Path) -> Files:
    """The pictures of every class folder. Raises DataUnusable where there is none, or one without pictures."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    classes = sorted(path.name for path in inside if path.is_dir())
    if not classes:
        raise DataUnusable(source, f"{folder} holds {len(inside)} files and no folder of a class", _HINT)
    files = {name: picture_files(folder / name) for name in classes}
    empty = [name for name in classes if not files[name]]
    if empty:
        reason = f"these classes of {folder} have no pictures ({' '.join(PICTURE_SUFFIXES)}): {', '.join(empty)}"
        raise DataUnusable(source, reason, _HINT)
    return files


def _check_known(source: str, beside: str, held_out: Files, train: Files) -> None:
    strange = [name for name in held_out if name not in train]
    if strange:
        raise DataUnusable(source, f"{beside} has classes that {TRAIN} has not: {', '.join(strange)}", _HINT)


def _split(source: str, files: Files) -> tuple[Files, Files]:
    """A fifth of every class, at least one picture, apart from the rest."""
    single = [name for name, found in files.items() if len(found) < 2]
    if single:
        reason = f"these classes have one picture, which cannot be both trained on and held out: {', '.join(single)}"
        raise DataUnusable(source, reason, "give each of them two or more")
    chosen = {name: _chosen(len(found)) for name, found in files.items()}
    train = {name: [file for index, file in enumerate(files[name]) if index not in chosen[name]] for name in files}
    held_out = {name: [files[name][index] for index in sorted(chosen[name])] for name in files}
    return train, held_out


def _chosen(count: int) -> set[int]:
    """A fifth of so many, at least one. A seed for each class: what is added to one changes nothing for the others."""
    order = np.random.RandomState(0).permutation(count)
    return set(order[: max(1, count // _SHARE)].tolist())


def _check_readable(source: str, files: Sequence[Path]) -> None:
    faults = [fault for file in files if (fault := _fault(file))]
    if faults:
        more = f", and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        reason = f"{len(faults)} of {len(files)} pictures cannot be read: {', '.join(faults[:_LISTED])}{more}"
        raise DataUnusable(source, reason, "remove them or copy them again; formats that Pillow reads will do")


def _fault(file: Path) -> str:
    """What is wrong with a picture, or nothing."""
    try:
        check_picture(file)
    except ImageUnreadable as error:
        return str(error).removeprefix("cannot read image ")
    return ""


def _image_set(files: Files, labels: Sequence[str]) -> ImageSet:
    numbers = {name: number for number, name in enumerate(labels)}
    pairs = [(file, numbers[name]) for name, found in files.items() for file in found]
    return ImageSet(tuple(file for file, _ in pairs), np.array([number for _, number in pairs], np.int64))
