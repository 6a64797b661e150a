"""Networks by name: what is found, and what each kind of mistake is told."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import paddle
import pytest

from dyx.errors import InvalidOption, ModelUnusable, OptionNeeded, UnknownName
from dyx.zoo.source import load_source

SHAPE = (3, 16, 16)
NETWORKS = """
    import paddle
    from paddle import nn

    class Good(nn.Layer):
        def __init__(self, classes=4):
            super().__init__()
            self.fc = nn.Linear(3, classes)
        def forward(self, x):
            return self.fc(x.mean([2, 3]))

    class Needy(Good):
        def __init__(self, classes, width):
            super().__init__(classes)

    class Broken(Good):
        def __init__(self):
            raise RuntimeError("no luck")

    class NoLayer:
        pass

    def factory():
        return Good(7)

    def wrong():
        return "a string"

    number = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_networks.py"
    path.write_text(textwrap.dedent(NETWORKS))
    return path


@pytest.mark.parametrize(("name", "classes"), [("Good", 4), ("factory", 7)])
def test_class_and_function_of_a_file(file: Path, name: str, classes: int) -> None:
    source = load_source(f"{file}:{name}", SHAPE)
    assert not source.network.training
    assert tuple(source.network(paddle.zeros([2, *SHAPE])).shape) == (2, classes)
    assert source.preprocess.size == (16, 16)
    assert source.labels == ()


def test_module_on_the_path(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert isinstance(load_source("my_networks:Good", SHAPE).network, paddle.nn.Layer)


def test_file_imports_its_neighbours_and_leaves_the_path_alone(file: Path) -> None:
    import sys

    before = list(sys.path)
    (file.parent / "main_network.py").write_text("from my_networks import Good\nclass Mine(Good): pass\n")
    assert type(load_source(f"{file.parent / 'main_network.py'}:Mine", SHAPE).network).__name__ == "Mine"
    assert sys.path == before


def test_own_initialisation_is_seeded(file: Path) -> None:
    weights = [load_source(f"{file}:Good", SHAPE, seed).network.fc.weight.numpy() for seed in (3, 3, 4)]
    assert (weights[0] == weights[1]).all()
    assert (weights[0] != weights[2]).any()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Goof", "has no 'Goof'"),
        ("Needy", "it needs arguments: classes, width"),
        ("Broken", "building it raised RuntimeError: no luck"),
        ("NoLayer", "NoLayer is no paddle.nn.Layer"),
        ("wrong", "wrong makes a str, not a paddle.nn.Layer"),
        ("number", "it is a int, not a class or function"),
    ],
)
def test_what_cannot_be_built(file: Path, name: str, words: str) -> None:
    with pytest.raises(ModelUnusable, match=words):
        load_source(f"{file}:{name}", SHAPE)


def test_missing_attribute_lists_what_is_there(file: Path) -> None:
    with pytest.raises(ModelUnusable) as caught:
        load_source(f"{file}:Goof", SHAPE)
    assert "Good, Needy, Broken" in caught.value.hint


def test_files_and_modules_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import paddle\n1 / 0\n")
    for name, words in (
        (f"{tmp_path}/bad.py:Net", "raised ZeroDivisionError"),
        (f"{tmp_path}/absent.py:Net", "there is no file"),
        ("no.such.module:Net", "raised ModuleNotFoundError"),
    ):
        with pytest.raises(ModelUnusable, match=words):
            load_source(name, SHAPE)


@pytest.mark.parametrize(
    ("error", "name", "shape", "words"),
    [
        (UnknownName, "alexnet-dx", None, "no model named 'alexnet-dx'"),
        (InvalidOption, "alexnet-dy", (3, 64, 64), "--shape is '3,64,64', which is not that of alexnet-dy, 3,128,128"),
        (OptionNeeded, "net.py:Net", None, "--shape is needed: a network of your own brings no input shape"),
        (InvalidOption, "net.py:", (3, 8, 8), "MODEL is 'net.py:'"),
    ],
)
def test_names_and_shapes_that_do_not_go_together(error: Any, name: str, shape: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        load_source(name, shape)


def test_shape_of_the_zoo_may_be_repeated() -> None:
    assert load_source("alexnet-bn", (3, 128, 128)).shape == (3, 128, 128)
