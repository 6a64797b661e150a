"""Every form of every dynamic convolution against the definition: sample by sample, an ordinary convolution."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn import functional

import dyx
from dyx.errors import InvalidOption
from dyx.nn import per_sample
from dyx.nn.adapters import adapter_of, dynamic_layers, set_form, training_forms
from dyx.nn.condconv import CondConv2D, CondRouting
from dyx.nn.dyconv import DYConv2D
from dyx.nn.dynamic_conv import DynamicConv2D
from dyx.nn.eca import ECA
from dyx.nn.kernelwarehouse import KWConv, WarehouseManager
from dyx.nn.kw_parameters import KW
from dyx.nn.na import NA, NANet
from dyx.nn.odconv import ODConv2D
from dyx.nn.se import SqueezeExcite

NOTEBOOK = Path(__file__).parents[1] / "data" / "notebook_alexnet.py"

TOLERANCE = 5e-10
"""Of max |definition|, in float64: two forms are then within 1e-9 of each other. Seen: 4e-14."""

SINGLE = 2e-5
"""The same in float32. Seen: 3e-6, in gradients of attention, whose terms cancel."""

EXPERTS = ("DYConv2D", "DynamicConv2D", "CondConv2D")
GEOMETRIES: dict[str, dict[str, Any]] = {
    "1x1": {"kernel_size": 1},
    "1x1 strided": {"kernel_size": 1, "stride": 2},
    "1x1 padded": {"kernel_size": 1, "padding": 1},
    "1x1 grouped": {"kernel_size": 1, "groups": 2},
    "3x3": {"kernel_size": 3, "padding": 1},
    "no padding": {"kernel_size": 3},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 2},
    "grouped strided": {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2, "groups": 4},
    "depthwise": {"kernel_size": 3, "padding": 1, "groups": 8},
}


class Network(nn.Layer):
    """Dynamic layers one after the other, with the router or the warehouse that they share."""

    def __init__(self, *layers: Any, router: Any = None, manager: Any = None) -> None:
        super().__init__()
        self.layers, self.router, self.manager = nn.LayerList(layers), router, manager
        if manager is not None:
            manager.allocate(self)

    def forward(self, x: Any, call: Callable[..., Any] = lambda layer, *inputs: layer(*inputs)) -> Any:
        given = () if self.router is None else (self.router(x),)
        for layer in self.layers:
            x = call(layer, x, *given)
        return x


def network_of(kind: str, geometry: dict[str, Any], bias: bool = True, experts: int = 2) -> Network:
    """Layers of a kind, 8 channels in and 12 out (8 if depthwise), drawn in float64."""
    channels = 8 if geometry.get("groups") == 8 else 12
    if kind == "DYConv2D":
        made = Network(DYConv2D(8, channels, **geometry, bias_attr=bias, num_experts=experts))
    elif kind == "DynamicConv2D":
        made = Network(DynamicConv2D(8, channels, **geometry, bias=bias, K=experts, temperature=1))
    elif kind == "CondConv2D":
        layer = CondConv2D(8, channels, **geometry, bias=bias, num_experts=experts)
        made = Network(layer, router=CondRouting(8, experts))
    elif kind == "ODConv2D":
        made = Network(ODConv2D(8, channels, **geometry, kernel_num=experts))
    else:
        made = warehouse_network({"layer_type": kind[2:].lower(), "bias": bias, **geometry}, channels, experts)
    return drawn(made)


def warehouse_network(spec: dict[str, Any], channels: int, ratio: int) -> Network:
    """Two layers of one warehouse."""
    manager = WarehouseManager(cell_num_ratio=ratio)
    back = {**spec, "stride": 1, "padding": spec["kernel_size"] // 2, "dilation": 1}
    return Network(manager.reserve(8, channels, **spec), manager.reserve(channels, 8, **back), manager=manager)


def drawn(network: Network) -> Network:
    """In float64, with attention that is far from uniform and biases that are not zero."""
    random = np.random.default_rng(0)
    network.to(dtype="float64")
    for key, tensor in network.state_dict().items():
        positive = "_variance" in key
        tensor.set_value(random.uniform(0.5, 1.5, tensor.shape) if positive else random.normal(0, 0.5, tensor.shape))
    return network


def images(batch: int, *shape: int) -> np.ndarray:
    """Samples that differ in gain and offset."""
    random = np.random.default_rng(batch)
    gain = random.uniform(0.3, 2, [batch] + [1] * len(shape))
    offset = random.normal(0, 1, [batch, shape[0]] + [1] * (len(shape) - 1))
    found: np.ndarray = gain * random.normal(0, 1, [batch, *shape]) + offset
    return found


def by_definition(layer: Any, x: Any, *given: Any) -> Any:
    """What the layer says it computes, one sample at a time."""
    adapter = KW if isinstance(layer, KWConv) else adapter_of(layer)
    assert adapter is not None
    attention = adapter.attention(layer, x, *given)
    one = {"dyconv": of_experts, "condconv": of_experts, "odconv": of_odconv, "kw": of_warehouse}[adapter.kind]
    return paddle.concat([one(layer, x[b : b + 1], *(part[b] for part in attention)) for b in range(len(x))])


def of_experts(layer: Any, x: Any, weights: Any) -> Any:
    kernel = sum(weights[k] * layer.weight[k] for k in range(len(weights)))
    bias = None if layer.bias is None else sum(weights[k] * layer.bias[k] for k in range(len(weights)))
    return ordinary(layer, x, kernel, bias)


def of_odconv(layer: Any, x: Any, channel: Any, filters: Any, spatial: Any, weights: Any) -> Any:
    kernel = sum(weights[k] * layer.weight[k] for k in range(len(weights)))
    y = ordinary(layer, x * channel.reshape([1, -1, 1, 1]), kernel * spatial.reshape(kernel.shape[2:]))
    return y * filters.reshape([1, -1, 1, 1])


def of_warehouse(layer: Any, x: Any, alpha: Any) -> Any:
    if not isinstance(layer, KWConv):
        kernel = layer.conv.kernels(alpha.unsqueeze(0))[0, ..., 0]
        return paddle.matmul(x, kernel, transpose_y=True) + layer.conv.bias
    return ordinary(layer, x, layer.kernels(alpha.unsqueeze(0))[0], layer.bias)


def ordinary(layer: Any, x: Any, kernel: Any, bias: Any = None) -> Any:
    convolve = functional.conv1d if x.ndim == 3 else functional.conv2d
    return convolve(x, kernel, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def outcome(network: Network, x: np.ndarray, call: Any = None) -> dict[str, np.ndarray]:
    """Output, and the gradients of `Σ y · random` by the name of what they are for."""
    network.clear_gradients()
    image = paddle.to_tensor(x.astype(network.parameters()[0].numpy().dtype), stop_gradient=False)
    y = network(image) if call is None else network(image, call)
    upstream = paddle.to_tensor(np.random.default_rng(9).standard_normal(y.shape).astype(x.dtype))
    (y * upstream.astype(y.dtype)).sum().backward()
    trained = {key: parameter for key, parameter in network.named_parameters() if not parameter.stop_gradient}
    gradients = {key: parameter.grad.numpy() for key, parameter in trained.items()}
    return {"y": y.numpy(), "x": image.grad.numpy(), **gradients}


def take(network: Network, form: str) -> Network:
    for layer in network.layers:
        set_form(layer, form)
    return network


def assert_same(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tolerance: float = TOLERANCE) -> None:
    assert set(got) == set(wanted)
    for key, array in wanted.items():
        assert got[key].shape == array.shape, key
        assert np.isfinite(array).all(), key
        assert np.abs(got[key] - array).max() <= tolerance * np.abs(array).max(), key


def every_form(network: Network) -> Iterator[str]:
    """Sets them one after the other."""
    forms = training_forms(network.layers[0])
    assert forms[0] == "grouped"
    for form in forms:
        take(network, form)
        yield form


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("kind", [*EXPERTS, "ODConv2D", "KWConv2D", "KWConv1D"])
def test_every_form_is_the_definition(kind: str, geometry: str) -> None:
    """Outputs and all gradients; one sample in eval mode, since batch norm cannot be trained on one."""
    for bias, experts, batch in product([True, False], [1, 2, 4], [1, 3]):
        network = network_of(kind, GEOMETRIES[geometry], bias, experts)
        network.train() if batch > 1 else network.eval()
        x = images(batch, 8, *((7, 6) if kind.endswith("2D") else (9,)))
        wanted = outcome(network, x, by_definition)
        for _ in every_form(network):
            assert_same(outcome(network, x), wanted)


@pytest.mark.parametrize("extreme", ["equal", "one-hot"])
@pytest.mark.parametrize("geometry", ["3x3", "grouped strided"])
@pytest.mark.parametrize("kind", ["DYConv2D", "DynamicConv2D", "ODConv2D"])
def test_extreme_attention(kind: str, geometry: str, extreme: str) -> None:
    network = network_of(kind, GEOMETRIES[geometry], experts=4)
    layer = network.layers[0]
    adapter = adapter_of(layer)
    assert adapter is not None
    scores = adapter.scores(layer)[-1].layer
    for part in (scores.weight, scores.bias):
        part.set_value(part * (0 if extreme == "equal" else 1e5))
    x = images(3, 8, 7, 6)
    found = adapter.attention(layer, paddle.to_tensor(x))[-1].numpy()  # type: ignore[misc]
    # Paddle's softmax stops at exp(-64).
    assert set(found.ravel().round(20)) == ({0.25} if extreme == "equal" else {0.0, 1.0})
    wanted = outcome(network, x, by_definition)
    for _ in every_form(network):
        assert_same(outcome(network, x), wanted)


@pytest.mark.parametrize("geometry", ["1x1", "grouped strided", "depthwise"])
def test_weights_need_not_sum_to_one(geometry: str) -> None:
    """And their gradients are right, whoever made them."""
    network = network_of("CondConv2D", GEOMETRIES[geometry], experts=3)
    weights = np.array([[0, 0, 0], [0, 1, 0], [-2, 5, 0.3], [1, 1, 1]], "float64")
    network.router = Given(weights)
    wanted = outcome(network, images(4, 8, 7, 6), by_definition)
    assert wanted["router.weights"].any()
    for _ in every_form(network):
        assert_same(outcome(network, images(4, 8, 7, 6)), wanted)


class Given(nn.Layer):
    """A router that always says the same."""

    def __init__(self, weights: np.ndarray) -> None:
        super().__init__()
        self.weights = self.create_parameter(weights.shape, dtype="float64")
        self.weights.set_value(weights)

    def forward(self, _x: Any) -> Any:
        return self.weights


def test_layers_share_the_gradient_of_their_cells() -> None:
    network = network_of("KWConv2D", GEOMETRIES["3x3"])
    x = images(3, 8, 7, 6)
    for _ in every_form(network):
        whole = outcome(network, x)["manager.weights.0"]
        assert whole.reshape([len(whole), -1]).any(1).all()
    assert_same(outcome(take(network, "columns"), x), outcome(take(network, "grouped"), x))


@pytest.mark.parametrize("rows", [(), (4,), (2, 3)])
def test_linear_layers(rows: tuple[int, ...]) -> None:
    manager = WarehouseManager(cell_num_ratio=2)
    layers = [manager.reserve(*sizes, layer_type="linear") for sizes in ((8, 12), (12, 8))]
    network = drawn(Network(*layers, manager=manager))
    x = np.moveaxis(images(3, 8, *rows), 1, -1)
    wanted = outcome(network, x, by_definition)
    assert wanted["y"].shape == (3, *rows, 8)
    for _ in every_form(network):
        assert_same(outcome(network, x), wanted)


@pytest.mark.parametrize("kind", [*EXPERTS, "ODConv2D", "KWConv2D", "KWConv1D"])
def test_float32(kind: str) -> None:
    network = network_of(kind, GEOMETRIES["grouped"], experts=4)
    x = images(3, 8, *((7, 6) if kind.endswith("2D") else (9,)))
    wanted = outcome(network, x, by_definition)
    network.to(dtype="float32")
    for _ in every_form(network):
        found = outcome(network, x)
        assert found["y"].dtype == found["x"].dtype == np.float32
        assert_same(found, wanted, SINGLE)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_padding_in_words_has_no_columns(padding: str) -> None:
    network = network_of("CondConv2D", {"kernel_size": 3, "padding": padding, "stride": 2})
    x = images(3, 8, 7, 6)
    wanted = outcome(network, x, by_definition)
    assert list(every_form(network)) == ["grouped", "mix-outputs"]
    for form in ("grouped", "mix-outputs", "columns"):
        network.layers[0].form = form  # also by hand: the layer then stays with its definition
        assert_same(outcome(network, x), wanted)


@pytest.mark.parametrize("kind", EXPERTS)
def test_forms_are_different_ways(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen by the batch and the groups that convolutions get."""
    network, seen = network_of(kind, GEOMETRIES["grouped"]), []
    conv2d = functional.conv2d

    def spy(x: Any, weight: Any, *more: Any) -> Any:
        seen.append((len(x), len(weight), more[-1]))
        return conv2d(x, weight, *more)

    monkeypatch.setattr(per_sample.functional, "conv2d", spy)
    calls = {}
    for form in every_form(network):
        seen.clear()
        network(paddle.to_tensor(images(3, 8, 7, 6)))
        calls[form] = list(seen)
    assert calls == {"grouped": [(1, 3 * 12, 3 * 2)], "columns": [], "mix-outputs": [(3, 2 * 12, 2)]}


def test_which_layer_has_which_forms() -> None:
    both, three = ("grouped", "columns"), ("grouped", "columns", "mix-outputs")
    wanted = {**dict.fromkeys(EXPERTS, three), "ODConv2D": both, "KWConv2D": both, "KWConv1D": both}
    for kind, forms in wanted.items():
        assert training_forms(network_of(kind, GEOMETRIES["3x3"]).layers[0]) == forms
    assert training_forms(WarehouseManager().reserve(8, 8, layer_type="linear")) == both
    assert training_forms(ODConv2D(8, 8, 1, kernel_num=2)) == both
    assert training_forms(ODConv2D(8, 8, 1, kernel_num=1)) == ("grouped",)
    for gate in (ECA(8), SqueezeExcite(8, 2), NA(), NANet()):
        assert training_forms(gate) == ()


def test_layers_that_are_not_dyxs_own_have_none() -> None:
    spec = importlib.util.spec_from_file_location("notebook", NOTEBOOK)
    assert spec is not None
    notebook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(notebook)  # type: ignore[union-attr]
    found = [layer for layer, _ in dynamic_layers(notebook.AlexNet_DY()).values()]
    assert len(found) == 3
    for layer in found:
        assert training_forms(layer) == ()
        with pytest.raises(InvalidOption, match="form is 'grouped', which is not one that DYConv2D takes: none"):
            set_form(layer, "grouped")


def test_form_that_a_layer_cannot_take_is_refused() -> None:
    layer = ODConv2D(8, 8, 3)
    with pytest.raises(
        InvalidOption, match="form is 'mix-outputs', which is not one that ODConv2D takes: grouped, col"
    ):
        set_form(layer, "mix-outputs")
    assert layer.form == "grouped"


def test_a_form_is_the_layers_own_and_in_no_state_dict() -> None:
    one, other = DYConv2D(8, 6, 3), DYConv2D(8, 6, 3)
    keys = list(one.state_dict())
    set_form(one, "columns")
    assert (one.form, other.form, copy.deepcopy(one).form) == ("columns", "grouped", "columns")
    assert list(one.state_dict()) == keys


@pytest.mark.parametrize("form", ["grouped", "columns", "mix-outputs"])
def test_exports_do_not_care(form: str) -> None:
    layer = DYConv2D(8, 6, 3, padding=1, groups=2, num_experts=3)
    layer.eval()
    set_form(layer, form)
    x = 3 * paddle.randn([4, 8, 9, 9])
    assert float((dyx.fold(layer)(x) - layer(x)).abs().max()) < 1e-5
