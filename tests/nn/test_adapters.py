"""Layers are recognised by their class's name, then checked; nothing is guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paddle
import pytest
from paddle import nn

import dyx
from dyx.errors import InvalidOption, LayerUnreadable
from dyx.nn.adapters import adapter_of, dynamic_layers
from dyx.nn.dyconv import DYCONV, DYConv2D, read_dyconv
from dyx.nn.geometry import Geometry
from dyx.zoo.source import load_source


def spoiled(change: Any) -> DYConv2D:
    layer = DYConv2D(8, 6, 3, padding=1, num_experts=2)
    change(layer)
    return layer


def test_parameters_of_a_layer() -> None:
    layer = DYConv2D(8, 6, 3, stride=2, padding=1, groups=2, num_experts=3)
    layer.routing.temperature = 7
    read = read_dyconv(layer)
    assert (read.experts, read.channels_in, read.channels_out) == (3, 8, 6)
    assert read.geometry == Geometry((3, 3), (2, 2), (1, 1), (1, 1), 2)
    assert read.routing.temperature == 7
    assert read.routing.fc2_weight.shape == (3, 2)
    assert read.weight.dtype == "float64"


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("it has no attribute 'dilation'", lambda layer: delattr(layer, "dilation")),
        ("it has no attribute 'net'", lambda layer: setattr(layer, "routing", nn.ReLU())),
        ("its 'weight' is a int, no tensor", lambda layer: (delattr(layer, "weight"), setattr(layer, "weight", 3))),
        (r"its weight has shape \[3, 3\]", lambda layer: setattr(layer, "weight", layer.create_parameter([3, 3]))),
        ("its 'stride' is 'big'", lambda layer: setattr(layer, "stride", "big")),
        (r"its 'padding' is \(1, 1, 1\)", lambda layer: setattr(layer, "padding", (1, 1, 1))),
        ("its bias has shape", lambda layer: setattr(layer, "bias", layer.create_parameter([2, 5]))),
        ("its routing.net is ReLU", lambda layer: setattr(layer.routing, "net", nn.Sequential(nn.ReLU()))),
        (
            "its routing has a kernel of",
            lambda layer: setattr(
                layer.routing, "net", nn.Sequential(nn.Conv2D(8, 2, 3), nn.ReLU(), nn.Conv2D(2, 2, 1))
            ),
        ),
        (
            "its routing's last layer has shape",
            lambda layer: setattr(
                layer.routing, "net", nn.Sequential(nn.Conv2D(8, 2, 1), nn.ReLU(), nn.Conv2D(2, 5, 1))
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layer_that_is_not_what_its_name_says(words: str, change: Any) -> None:
    with pytest.raises(LayerUnreadable, match=words) as caught:
        read_dyconv(spoiled(change))
    assert "a layer of class DYConv2D was recognised by its name" in str(caught.value)


def test_only_names_in_the_table_are_dynamic() -> None:
    class Lookalike(DYConv2D):
        """Everything that a DYConv2D has, under another name."""

    net = nn.Sequential(DYConv2D(8, 6, 1), Lookalike(6, 8, 1), nn.Conv2D(8, 8, 1))
    assert list(dynamic_layers(net)) == ["0"]
    assert adapter_of(net[1]) is None


@pytest.mark.usefixtures("clean_adapters")
def test_registered_class_is_folded() -> None:
    class Renamed(DYConv2D):
        """A user's class of another name."""

    dyx.register_layer("Renamed", DYCONV)
    layer = Renamed(8, 6, 3, padding=1, num_experts=2)
    x = paddle.randn([3, 8, 9, 9])
    static = dyx.fold(layer)
    assert type(static).__name__ != "Renamed"
    assert float((static(x) - layer(x)).abs().max()) < 1e-5


@pytest.mark.usefixtures("clean_adapters")
def test_name_clash_and_wrong_adapter_are_errors() -> None:
    from dataclasses import replace

    dyx.register_layer("DYConv2D", DYCONV)  # the same again is no clash
    other = replace(DYCONV, kind="other")
    dyx.register_layer("Free", other)
    dyx.register_layer("Free", DYCONV, replace=True)
    assert adapter_of(type("Free", (), {})()) is DYCONV
    with pytest.raises(InvalidOption, match="class_name is 'DYConv2D'"):
        dyx.register_layer("DYConv2D", other)
    with pytest.raises(InvalidOption, match=r"which is not a dyx\.LayerAdapter"):
        dyx.register_layer("Mine", print)  # type: ignore[arg-type]


@pytest.mark.usefixtures("clean_adapters")
def test_file_that_registers_its_own_layer_may_be_imported_again(tmp_path: Path) -> None:
    """Every export of `file.py:Class` runs the file anew, and its functions are new objects each time."""
    (tmp_path / "own.py").write_text(OWN)
    for _ in range(2):
        source = load_source(f"{tmp_path / 'own.py'}:Net", (3, 8, 8))
        assert list(dynamic_layers(source.network)) == ["conv"]


def test_layer_that_only_bears_the_name_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from paddle import nn\nclass DYConv2D(nn.Layer): pass\n")
    with pytest.raises(LayerUnreadable, match="it has no attribute 'routing'") as caught:
        load_source(f"{tmp_path / 'own.py'}:DYConv2D", (3, 8, 8))
    assert "replace=True" in caught.value.hint


OWN = """
import dyx
from paddle import nn
from dyx.nn.dyconv import DYCONV, DYConv2D

class Mixed(DYConv2D):
    pass

def read(layer):
    return DYCONV.read(layer)

dyx.register_layer("Mixed", dyx.LayerAdapter("dyconv", read, DYCONV.scores, DYCONV.set_temperature))

class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = Mixed(3, 4, 3, num_experts=2)

    def forward(self, x):
        return self.conv(x).mean([2, 3])
"""
