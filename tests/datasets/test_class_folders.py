"""A folder per class: what is held out, what counts as a picture, and what cannot be used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dyx.datasets import ImageSet, read_data
from dyx.errors import DyxError

Folders = Callable[..., Path]
Fails = Callable[[str, str], DyxError]


def shades(part: ImageSet) -> list[tuple[int, int]]:
    """Which folder, and which file of it, each picture is: its red and its green."""
    return [part.picture(index).getpixel((0, 0))[:2] for index in range(len(part))]  # type: ignore[misc,index]


@pytest.mark.parametrize("beside", ["val", "validation", "test"])
def test_folders_that_say_what_is_held_out(beside: str, folders: Folders) -> None:
    root = folders({"train/dogs": 2, "train/cats": 3, f"{beside}/dogs": 2, f"{beside}/cats": 1})
    data = read_data(f"folder:{root}")
    assert (data.name, data.labels, data.notes) == (f"folder:{root}", ("cats", "dogs"), ())
    assert shades(data.train) == [(1, 0), (1, 1), (1, 2), (0, 0), (0, 1)]
    assert shades(data.held_out) == [(3, 0), (2, 0), (2, 1)]
    assert data.train.classes.tolist() == [0, 0, 0, 1, 1]
    assert data.held_out.classes.tolist() == [0, 1, 1]
    assert data.train.classes.dtype == np.int64
    assert all(isinstance(file, Path) for file in data.train.pictures)


def test_val_goes_before_test_and_may_lack_classes(folders: Folders) -> None:
    data = read_data(f"folder:{folders({'train/a': 1, 'train/b': 1, 'test/a': 1, 'test/b': 1, 'val/b': 1})}")
    assert (shades(data.held_out), data.held_out.classes.tolist()) == ([(4, 0)], [1])


def test_a_fifth_of_every_class_is_held_out(folders: Folders) -> None:
    root = folders({"a": 2, "b": 9, "c": 10, "train": 11})
    data = read_data(f"folder:{root}")
    assert data.labels == ("a", "b", "c", "train"), "train alone is a class like any other"
    assert np.bincount(data.held_out.classes).tolist() == [1, 1, 2, 2]
    assert np.bincount(data.train.classes).tolist() == [1, 8, 8, 9]
    both = shades(data.train) + shades(data.held_out)
    assert len(set(both)) == len(both) == 32, "no picture is in both"
    for part in (data.train, data.held_out):
        assert [shade for shade, _ in shades(part)] == part.classes.tolist()
    assert data.notes == ("a fifth of every class is held out, always the same pictures",)
    held_out = [int(file.stem) for file in data.held_out.pictures if file.parent.name == "c"]  # type: ignore[union-attr]
    assert held_out == sorted(np.random.RandomState(0).permutation(10)[:2].tolist())
    again = read_data(f"folder:{root}")
    assert (again.train.pictures, again.held_out.pictures) == (data.train.pictures, data.held_out.pictures)


def test_pictures_in_subfolders_count_and_hidden_and_other_files_do_not(folders: Folders, tmp_path: Path) -> None:
    root = folders({"a": 2, "b/deep/er": 2, "b/.thumbnails": 2, ".git/x": 2})
    (root / "a" / "0.JPG").write_bytes((root / "a" / "000.png").read_bytes())
    for name in ("a/._001.png", "a/notes.txt", "list.csv", ".DS_Store"):
        (root / name).write_text("no picture")
    (root / "a" / "folder.png").mkdir()
    data = read_data(f"folder:{root}")
    assert data.labels == ("a", "b")
    files = {*data.train.pictures, *data.held_out.pictures}  # type: ignore[misc]
    names = ("a/000.png", "a/001.png", "a/0.JPG", "b/deep/er/000.png", "b/deep/er/001.png")
    assert files == {root / name for name in names}


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, "there is no such folder"),
        ({".": 3}, "pictures holds 3 files and no folder of a class"),
        ({"cats": 3}, "it has a single class, cats"),
        ({"train/cats": 3}, "it has a single class, train"),
        ({"train/cats": 3, "val/cats": 3}, "it has a single class, cats"),
        ({"a": 3, "b": 0, "c": 0}, r"these classes of .*pictures have no pictures \(\.png .*\): b, c$"),
        ({"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 0}, r"these classes of .*val have no pictures .*: b$"),
        ({"a": 3, "b": 1, "c": 1}, "have one picture, which cannot be both trained on and held out: b, c$"),
        ({"train/a": 1, "train/b": 1, "val/a": 1, "val/z": 1}, "val has classes that train has not: z$"),
        ({"train/a": 1, "train/b": 1, "val/.": 2}, "val holds 2 files and no folder of a class"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value) or "absent",
)
def test_folders_that_cannot_be_used(counts: dict[str, int], words: str, folders: Folders, fails: Fails) -> None:
    fails(f"folder:{folders(counts)}", words)


def test_file_in_place_of_a_folder(tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "x").write_text("")
    fails(f"folder:{tmp_path / 'x'}", "it is a file")


def test_pictures_that_cannot_be_read_are_named(folders: Folders, fails: Fails) -> None:
    root = folders({"train/a": 9, "train/b": 1, "val/a": 1})
    (root / "train/a/003.png").write_bytes((root / "train/a/003.png").read_bytes()[:50])
    fails(f"folder:{root}", r"1 of 11 pictures cannot be read: \S+/train/a/003\.png: [^,]+$")
    (root / "val/a/000.png").write_text("no picture")
    fails(f"folder:{root}", r"2 of 11 pictures cannot be read: \S+003\.png: .*, \S+val/a/000\.png: ")
    for file in (root / "train/a").iterdir():
        file.write_text("")
    error = fails(f"folder:{root}", r"10 of 11 pictures cannot be read: .*004\.png: [^,]*, and 5 more$")
    assert "005.png" not in str(error)
    assert "copy them again" in error.hint


def test_picture_that_would_unpack_to_gigabytes(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    fails(f"folder:{folders({'a': 2, 'b': 2})}", "4 of 4 pictures cannot be read.*exceeds limit")


def test_no_file_is_kept_open(folders: Folders) -> None:
    """More files than a process may open."""
    root = folders({"a": 30, "b": 30})
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
from dyx.datasets import read_data
print(len(read_data("folder:{root}").train))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.stdout == "48\n", ran.stderr
