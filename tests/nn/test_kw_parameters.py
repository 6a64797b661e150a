"""What is read from a KernelWarehouse layer, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
import pytest

from dyx.errors import LayerUnreadable
from dyx.nn.adapters import adapter_of, dynamic_layers, final_temperature, set_temperature
from dyx.nn.geometry import Geometry
from dyx.nn.kernelwarehouse import WarehouseManager
from dyx.nn.kw_parameters import KW, read_kw


class Network(paddle.nn.Layer):
    """Layers of one manager, in the order in which they are reserved."""

    def __init__(self, *specs: dict[str, Any], **options: Any) -> None:
        super().__init__()
        self.warehouse_manager = WarehouseManager(**options)
        self.layers = paddle.nn.LayerList([self.warehouse_manager.reserve(**spec) for spec in specs])
        self.warehouse_manager.allocate(self)
        self.eval()


CONV = {"in_planes": 8, "out_planes": 16, "kernel_size": 3, "stride": 2, "padding": 1}
LINEAR = {"in_planes": 32, "out_planes": 20, "layer_type": "linear"}
HALVED = {"cell_num_ratio": 0.5, "cell_inplane_ratio": 0.5, "cell_outplane_ratio": 0.5}


def test_parameters_of_a_convolution() -> None:
    network = Network(CONV, {**CONV, "in_planes": 16, "bias": False})
    first, second = map(read_kw, network.layers)
    assert (first.experts, first.channels_in, first.channels_out) == (27, 8, 16)
    assert (first.grid.spatial, first.grid.out, first.grid.in_) == (9, 1, 1)
    assert (second.grid.out, second.grid.in_, second.grid.mixtures) == (1, 2, 18)
    assert first.geometry == Geometry((3, 3), (2, 2), (1, 1), (1, 1), 1)
    assert second.kernel_shape == (16, 16, 3, 3)
    assert (first.linear, first.temperature, first.smallest_side) == (False, 0, 3)
    assert second.bias is None
    assert first.attention.fc1_bias is None
    np.testing.assert_array_equal(first.attention.fc2_weight, network.layers[0].attention.fc2.weight.numpy().T)
    assert first.attention.fc2_weight.dtype == "float64"


def test_a_linear_layer_is_read_through_its_convolution() -> None:
    (layer,) = Network(LINEAR, cell_inplane_ratio=0.25).layers
    read = read_kw(layer)
    assert (read.linear, read.channels_in, read.channels_out, read.kernel_shape) == (True, 32, 20, (20, 32, 1))
    np.testing.assert_array_equal(read.bias, layer.conv.bias.numpy())
    assert adapter_of(layer) is adapter_of(Network(CONV).layers[0]) is KW
    assert adapter_of(layer.conv) is None


def test_layers_of_a_warehouse_name_the_same_cells_and_no_others_do() -> None:
    network = Network(CONV, CONV, {**CONV, "warehouse_name": "other"})
    first, second, other = (read_kw(layer).cells for layer in network.layers)
    stranger = read_kw(Network(CONV, CONV).layers[0]).cells
    assert first.name == second.name
    assert len({first.name, other.name, stranger.name}) == 3
    assert (first.shared, other.shared) == (True, False)


def test_cells_are_read_when_they_are_asked_for() -> None:
    network = Network(CONV)
    cells = read_kw(network.layers[0]).cells
    network.warehouse_manager.weights[0].set_value(paddle.full([9, 16, 8, 1, 1], 3.0))
    assert (cells.shape, cells.size) == ((9, 16, 8, 1, 1), 9 * 16 * 8)
    np.testing.assert_array_equal(cells.read(), np.full((9, 16, 8, 1, 1), 3.0))
    assert cells.read().dtype == "float64"


def test_a_basis_and_a_layer_norm_are_read() -> None:
    basis = read_kw(Network(CONV, CONV, nonlocal_basis_ratio=0.25, **HALVED).layers[1]).attention.basis
    assert basis is not None
    assert (basis.start, basis.local, basis.weight.shape, basis.bias.shape) == (18, 18, (18, 16), (36, 37))
    normed = read_kw(Network(CONV, norm="layer").layers[0]).attention
    assert normed.basis is None
    assert normed.norm is not None
    assert (normed.norm.mean, normed.norm.variance) == (None, None)
    assert normed.fc1_bias is not None


def test_temperature_is_set_on_convolutions_and_linear_layers() -> None:
    network = Network(CONV, {**LINEAR, "warehouse_name": "head"})
    assert set_temperature(network, 0.5) == {"kw": 0.5}
    assert [read_kw(layer).temperature for layer in network.layers] == [0.5, 0.5]
    assert set_temperature(network) == {"kw": 0} == {"kw": final_temperature("kw")}
    assert list(dynamic_layers(network)) == ["layers.0", "layers.1"]


def test_scores_are_those_of_fc2() -> None:
    network = Network(CONV, {**LINEAR, "warehouse_name": "head"})
    (score,), (linear,) = map(KW.scores, network.layers)
    assert score.layer is network.layers[0].attention.fc2
    assert linear.layer is network.layers[1].conv.attention.fc2
    assert not score.competing


def test_attention_is_what_the_layer_mixes_with() -> None:
    network = Network(CONV, {**LINEAR, "warehouse_name": "head"})
    assert KW.attention is not None
    x, rows = paddle.randn([3, 8, 5, 5]), paddle.randn([3, 2, 2, 32])
    (alpha,) = KW.attention(network.layers[0], x)
    assert alpha.shape == [3, 9, 9]
    np.testing.assert_array_equal(alpha.numpy(), network.layers[0].mixing(x).numpy())
    (linear,) = KW.attention(network.layers[1], rows)
    as_map = rows.reshape([3, 4, 32]).transpose([0, 2, 1])
    np.testing.assert_array_equal(linear.numpy(), network.layers[1].conv.mixing(as_map).numpy())


def refit(part: str, shape: list[int]) -> Callable[[Any], None]:
    """A change that gives a part of the attention a weight of another shape."""

    def change(layer: Any) -> None:
        owner = getattr(layer.attention, part)
        owner.weight = owner.create_parameter(shape)

    return change


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("it has no cells yet: allocate", lambda layer: setattr(layer, "attention", None)),
        ("it has no attribute 'groups_spatial'", lambda layer: delattr(layer, "groups_spatial")),
        ("it has no attribute 'fc3'", lambda layer: delattr(layer.attention, "fc3")),
        ("its 'stride' is 'big'", lambda layer: setattr(layer, "stride", "big")),
        ("its padding is 'SAME', not numbers", lambda layer: setattr(layer, "padding", "SAME")),
        (r"its fc1 has shape \[16, 7\], where \[16, 8\]", refit("fc1", [7, 16])),
        (r"its fc2 has shape \[3, 16\], where \[1260, 16\]", refit("fc2", [16, 3])),
        (r"its fc3 has shape \[4, 16\], where \[18, 16\]", refit("fc3", [16, 4])),
        (
            r"its basis_bias has shape \[5\], where \[1332\]",
            lambda layer: setattr(layer.attention, "basis_bias", layer.create_parameter([5])),
        ),
        (r"its bias has shape \[5\], where \[16\]", lambda layer: setattr(layer, "bias", layer.create_parameter([5]))),
        (
            r"9 cells of \[1, 1\] do not make up its kernel of \[5, 5\]",
            lambda layer: setattr(layer, "kernel_size", (5, 5)),
        ),
        ("its 16 outputs do not divide into 3 groups", lambda layer: setattr(layer, "groups", 3)),
    ],
)
def test_layers_that_are_not_what_their_name_says(words: str, change: Any) -> None:
    layer = copy.deepcopy(Network(CONV, CONV, nonlocal_basis_ratio=0.25, **HALVED).layers[0])
    read_kw(layer)
    change(layer)
    with pytest.raises(LayerUnreadable, match=words):
        read_kw(layer)
