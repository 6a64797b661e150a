"""Data sets by name, and the digits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dyx.datasets import ImageSet, read_data
from dyx.errors import ImageUnreadable, InvalidOption, PackageMissing, UnknownName

Pack = Callable[..., Path]
Folders = Callable[..., Path]


def test_unknown_data_set_offers_the_nearest() -> None:
    with pytest.raises(UnknownName, match="there is no data set named 'cifar-10'") as caught:
        read_data("cifar-10:x.tar.gz")
    assert caught.value.nearest == "cifar10"
    assert "known: digits, cifar10, cifar100, folder" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cifar10", "--data is 'cifar10', which is not cifar10:PATH, with the path of cifar-10-python.tar.gz"),
        ("cifar10:", "--data is 'cifar10:', which is not cifar10:PATH"),
        ("cifar100", "cifar100:PATH, with the path of cifar-100-python.tar.gz"),
        ("folder", "folder:DIR, with a folder that holds one folder per class"),
        ("digits:x", "--data is 'digits:x', which is not digits alone: it takes no path"),
        ("digits:", "--data is 'digits:', which is not digits alone"),
    ],
)
def test_paths_that_are_missing_or_too_many(text: str, words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        read_data(text)


def test_no_framework_is_loaded(pack: Pack, folders: Folders) -> None:
    names = ["digits", f"cifar10:{pack()}", f"folder:{folders({'cats': 2, 'dogs': 2})}"]
    script = f"""
import sys
from dyx.datasets import read_data
assert "numpy" not in sys.modules
print([len(read_data(name).train) for name in {names!r}])
assert not {{"paddle", "onnxruntime", "openvino", "onnx", "dyx.zoo", "dyx.nn"}} & set(sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "[1437, 23, 2]\n"), ran.stderr


def test_digits_are_those_that_the_trained_checkpoint_never_saw(digits: Any) -> None:
    data = read_data("digits")
    np.testing.assert_array_equal(data.held_out.pictures, digits.pictures[..., None].repeat(3, axis=-1))
    np.testing.assert_array_equal(data.held_out.classes, digits.classes)
    assert (data.name, data.labels, data.notes) == ("digits", tuple("0123456789"), ())


def test_every_digit_is_in_one_of_the_two_sets() -> None:
    from sklearn.datasets import load_digits

    scans, data = load_digits(), read_data("digits")
    sets = (data.train, data.held_out)
    assert [len(part) for part in sets] == [1437, 360]
    order = np.random.RandomState(0).permutation(1797)
    pictures = np.concatenate([part.pictures for part in sets])
    classes = np.concatenate([part.classes for part in sets])
    assert (pictures.dtype, pictures.shape, classes.dtype) == (np.uint8, (1797, 8, 8, 3), np.int64)
    assert pictures.max() == 255
    np.testing.assert_array_equal(pictures[:, :, :, 1], (scans.images[order] / 16 * 255).astype("uint8"))
    np.testing.assert_array_equal(classes, scans.target[order])


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(PackageMissing, match="scikit-learn is not installed") as caught:
        read_data("digits")
    assert "dyx[train]" in caught.value.hint


def test_picture_of_an_array_and_of_a_file_is_the_same_in_rgb(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels[1]).save(tmp_path / "x.png")
    classes = np.zeros(2, np.int64)
    for part in (ImageSet(pixels, classes), ImageSet((tmp_path / "absent.png", tmp_path / "x.png"), classes)):
        assert len(part) == 2
        assert (part.picture(1).mode, part.picture(1).size) == ("RGB", (7, 5))
        np.testing.assert_array_equal(np.asarray(part.picture(1)), pixels[1])
    with pytest.raises(ImageUnreadable, match=r"absent\.png"):
        part.picture(0)
    Image.fromarray(pixels[0, :, :, 0]).save(tmp_path / "x.png")
    for grey in (part, ImageSet(pixels[..., 0], classes)):
        assert grey.picture(1).mode == "RGB"


def test_home_is_found(monkeypatch: pytest.MonkeyPatch, folders: Folders, pack: Pack) -> None:
    monkeypatch.setenv("HOME", str(folders({"a": 2, "b": 2}).parent))
    pack()
    assert len(read_data("folder:~/pictures").train) == 2
    assert len(read_data("cifar10:~/archive.tar.gz").train) == 23
