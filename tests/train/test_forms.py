"""Training forms: which one a layer gets, and that it gets it."""

from __future__ import annotations

import paddle
import pytest
from paddle import nn

from dyx.errors import InvalidOption
from dyx.nn.dyconv import DYConv2D
from dyx.nn.eca import ECA
from dyx.nn.odconv import ODConv2D
from dyx.train.forms import FormChoice, fastest_forms, fixed_form, has_choice, use_forms


def network() -> nn.Layer:
    return nn.Sequential(DYConv2D(4, 4, 3, padding=1), ECA(4, 3), ODConv2D(4, 4, 3, padding=1))


def test_layers_compute_by_the_form_that_was_chosen() -> None:
    layers = network()
    use_forms(layers, {"0": FormChoice("mix-outputs", {}, None), "2": FormChoice("columns", {}, None)})
    assert (layers[0].form, layers[2].form) == ("mix-outputs", "columns")


def test_a_fixed_form_leaves_others_at_their_definition() -> None:
    chosen = fixed_form(network(), "mix-outputs")
    assert {path: choice.chosen for path, choice in chosen.items()} == {"0": "mix-outputs", "2": "grouped"}
    with pytest.raises(InvalidOption, match="auto or one that its layers take: columns, grouped, mix-outputs"):
        fixed_form(network(), "fast")


def test_a_network_without_a_choice_takes_any_form() -> None:
    plain = nn.Sequential(nn.Conv2D(3, 4, 3), ECA(4, 3))
    assert fixed_form(plain, "columns") == {}
    assert not has_choice(plain) and has_choice(network())


def test_measuring_leaves_the_network_as_it_was() -> None:
    layers = network()
    layers.train()
    before = {key: tensor.numpy().copy() for key, tensor in layers.state_dict().items()}
    found = fastest_forms(layers, paddle.randn([4, 4, 8, 8]))
    assert set(found) == {"0", "2"}
    assert set(found["0"].ms) == {"grouped", "columns", "mix-outputs"}
    assert set(found["2"].ms) == {"grouped", "columns"}
    assert layers[0].form == "grouped"
    for key, tensor in layers.state_dict().items():
        assert (tensor.numpy() == before[key]).all(), key
    assert all(parameter.grad is None for parameter in layers.parameters())
