"""Which batch norm follows which layer is seen on a forward, never guessed from order."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from dyx.errors import ModelUnusable
from dyx.exporter.trace import trace_sites
from dyx.nn.dyconv import DYConv2D


class Net(nn.Layer):
    """One dynamic convolution and a batch norm, wired by `wire`."""

    def __init__(self, wire: Any) -> None:
        super().__init__()
        # Declared in an order that would mislead whoever reads attributes.
        self.norm, self.other = nn.BatchNorm2D(6), nn.BatchNorm2D(6)
        self.conv = DYConv2D(4, 6, 3, padding=1, num_experts=2)
        self.wire = wire

    def forward(self, x: Any) -> Any:
        return self.wire(self, x).mean([2, 3])


def sites_of(wire: Any, prepare: Any = lambda net: None) -> Any:
    net = Net(wire)
    for norm in (net.norm, net.other):
        norm._mean.set_value(np.random.default_rng(0).standard_normal(6).astype("float32"))
    prepare(net)
    net.eval()
    net = net.to(dtype="float64")
    image = np.random.default_rng(0).standard_normal((2, 4, 8, 8))
    return trace_sites(net, image, "net")


def test_only_consumer_is_found_whatever_the_order() -> None:
    trace = sites_of(lambda net, x: net.other(net.conv(x)))
    (site,) = trace.sites
    assert (site.path, site.norm) == ("conv", ("other",))
    assert (site.input_shape, site.output_shape) == ((4, 8, 8), (6, 8, 8))
    assert [array.shape for array in trace.inputs["conv"]] == [(2, 4, 8, 8)]


@pytest.mark.parametrize(
    ("why", "wire"),
    [
        ("a relu stands between", lambda net, x: net.norm(nn.functional.relu(net.conv(x)))),
        ("a functional consumer reads it too", lambda net, x: net.norm(y := net.conv(x)) + 0.01 * y.mean()),
        ("two norms read it", lambda net, x: net.norm(y := net.conv(x)) + net.other(y)),
        ("the norm is called twice", lambda net, x: net.norm(net.norm(net.conv(x)))),
        ("the convolution is called twice", lambda net, x: net.norm(net.conv(x)) + net.conv(-x)),
        (
            "the norm serves another layer too",
            lambda net, x: net.norm(net.conv(x)) + net.norm(x[:, [0, 1, 2, 3, 0, 1]]),
        ),
        ("the norm reads something else", lambda net, x: net.norm(net.conv(x) + 1)),
        ("no norm at all", lambda net, x: net.conv(x)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_norm_is_left_alone_when(why: str, wire: Any) -> None:
    (site,) = sites_of(wire).sites
    assert site.norm == (), why
    assert site.affine is None


def test_norm_with_batch_statistics_is_left_alone() -> None:
    def use_batch_statistics(net: Net) -> None:
        net.norm._use_global_stats = False

    (site,) = sites_of(lambda net, x: net.norm(net.conv(x)), use_batch_statistics).sites
    assert site.norm == ()


def test_layer_that_the_forward_never_reaches_is_named() -> None:
    trace = sites_of(lambda net, x: net.norm(paddle.concat([x, x[:, :2]], 1)))
    assert trace.sites == ()
    assert trace.uncalled == ("conv",)


def test_tracing_leaves_no_hook_behind() -> None:
    nets: list[Net] = []
    sites_of(lambda net, x: net.norm(net.conv(x)), nets.append)
    for layer in nets[0].sublayers(include_self=True):
        assert not layer._forward_pre_hooks
        assert not layer._forward_post_hooks


def test_forward_that_fails_says_so() -> None:
    with pytest.raises(ModelUnusable, match=r"its forward raised .* on float64 \[2, 4, 8, 8\]") as caught:
        sites_of(lambda net, x: net.conv(x[:, :3]))
    assert "--shape" in caught.value.hint


def test_output_that_is_no_logits_is_refused() -> None:
    net = Net(lambda net, x: net.conv(x))
    net.forward = lambda x: (net.conv(x), x)
    net.eval()
    with pytest.raises(ModelUnusable, match="returns a tuple, not one tensor"):
        trace_sites(net.to(dtype="float64"), np.zeros((2, 4, 8, 8)), "net")


class Chain(nn.Layer):
    """Convolution, dynamic convolution, ReLU, max pool, then whatever `wire` adds."""

    def __init__(self, wire: Any) -> None:
        super().__init__()
        self.pool, self.relu = nn.MaxPool2D(2), nn.ReLU()
        self.dynamic = DYConv2D(4, 6, 3, padding=1, num_experts=2)
        self.conv, self.last = nn.Conv2D(3, 4, 1), DYConv2D(6, 6, 1, num_experts=2)
        self.wire = wire

    def forward(self, x: Any) -> Any:
        return self.wire(self, x).mean([2, 3])


def chain(wire: Any) -> Any:
    net = Chain(wire)
    net.eval()
    trace = trace_sites(net.to(dtype="float64"), np.random.default_rng(0).standard_normal((2, 3, 8, 8)), "net")
    return trace, {site.path: site for site in trace.sites}


def test_convolution_before_and_relu_and_pool_after() -> None:
    trace, sites = chain(lambda net, x: net.last(net.pool(net.relu(net.dynamic(net.conv(x))))))
    site = sites["dynamic"]
    assert site.before is not None
    assert (site.before.path, site.before.kind) == ("conv", "conv")
    assert [(found.path, found.kind) for found in site.after] == [("relu", "relu"), ("pool", "max-pool")]
    assert site.norm == ()
    assert trace.inputs["conv"][0].shape == (2, 3, 8, 8), "what a fold into the convolution before is checked on"
    assert sites["last"].before is None
    assert sites["last"].after == ()


@pytest.mark.parametrize(
    ("wire", "before", "after"),
    [
        (lambda net, x: net.last(net.pool(net.relu(net.dynamic(net.conv(net.relu(x)))))), "conv", []),
        (lambda net, x: net.last(net.pool((y := net.relu(net.dynamic(net.conv(x)))) + 0 * y)), "conv", ["relu"]),
        (lambda net, x: net.pool(y := net.relu(net.dynamic(net.conv(x)))) + 0.1 * y.max(), "conv", ["relu"]),
        (lambda net, x: net.pool(net.relu(net.dynamic(y := net.conv(x)))) + 0.1 * y.max(), "", ["relu", "pool"]),
        (lambda net, x: net.relu(net.pool(net.dynamic(net.conv(x)))), "conv", ["pool"]),
    ],
    ids=["relu called twice", "function between", "pool is not alone", "layer is not alone", "pool before relu"],
)
def test_neighbours_end_where_somebody_else_listens(wire: Any, before: str, after: list[str]) -> None:
    """One bad link among good ones is found, and the good ones stay."""
    _, sites = chain(wire)
    site = sites["dynamic"]
    assert (site.before.path if site.before else "") == before
    assert [found.path for found in site.after] == after


class Static(nn.Layer):
    """One static layer, wired by `wire`."""

    def __init__(self, layer: Any, wire: Any) -> None:
        super().__init__()
        self.layer, self.norm, self.relu, self.pool = layer, nn.BatchNorm2D(6), nn.ReLU(), nn.MaxPool2D(2)
        self.wire = wire

    def forward(self, x: Any) -> Any:
        return self.wire(self, x)


def static_sites(layer: Any, wire: Any = lambda net, x: net.layer(x)) -> Any:
    net = Static(layer, wire)
    net.eval()
    image = np.random.default_rng(0).standard_normal((2, 4, 8, 9))
    return trace_sites(net.to(dtype="float64"), image, "net", logits=False)


@pytest.mark.parametrize(
    ("layer", "padding"),
    [
        (nn.Conv2D(4, 6, 3), (0, 0)),
        (nn.Conv2D(4, 6, 3, padding=1, bias_attr=False), (1, 1)),
        (nn.Conv2D(4, 6, 3, padding=[1, 2]), (1, 2)),
        (nn.Conv2D(4, 6, (3, 1)), (0, 0)),
        (nn.Conv2D(4, 6, 6, padding=3), (3, 3)),
    ],
    ids=["plain", "no bias", "padding per axis", "oblong", "large"],
)
def test_static_convolution_of_stride_1_is_a_site(layer: Any, padding: tuple[int, int]) -> None:
    trace = static_sites(layer)
    (site,) = trace.sites
    assert (site.path, site.kind, site.class_name, site.before, site.after) == ("layer", "conv", "Conv2D", None, ())
    assert site.layer.experts == 1
    np.testing.assert_array_equal(site.layer.weight[0], layer.weight.numpy())
    assert (site.layer.bias is None) == (layer.bias is None)
    if layer.bias is not None:
        np.testing.assert_array_equal(site.layer.bias, layer.bias.numpy()[None])
    walk = site.layer.geometry
    assert (walk.kernel, walk.padding) == (tuple(layer.weight.shape[2:]), padding)
    assert (walk.stride, walk.dilation, walk.groups) == ((1, 1), (1, 1), 1)
    assert site.input_shape == (4, 8, 9)
    assert site.output_shape == tuple(layer(paddle.zeros([1, 4, 8, 9], "float64")).shape[1:])
    assert [array.shape for array in trace.inputs["layer"]] == [(2, 4, 8, 9)]


class OwnConv(nn.Conv2D):
    """A convolution of somebody's own, which may do anything."""


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2D(4, 6, 1),
        nn.Conv2D(4, 6, 3, stride=2),
        nn.Conv2D(4, 6, 3, stride=[1, 2]),
        nn.Conv2D(4, 6, 3, dilation=2),
        nn.Conv2D(4, 6, 3, groups=2),
        nn.Conv2D(4, 4, 3, groups=4),
        nn.Conv2D(4, 6, 3, padding="SAME"),
        nn.Conv2D(4, 6, 3, padding="VALID"),
        nn.Conv2D(4, 6, 3, padding=[0, 1, 2, 0]),
        nn.Conv2D(4, 6, 3, padding=[[0, 0], [0, 0], [1, 1], [1, 0]]),
        nn.Conv2D(4, 6, 3, padding=1, padding_mode="reflect"),
        nn.Conv2D(4, 6, 3, padding=1, padding_mode="circular"),
        nn.Conv2D(4, 6, 3, padding=1, padding_mode="replicate"),
        nn.Conv2D(9, 6, 3, data_format="NHWC"),
        nn.Conv2DTranspose(4, 6, 3),
        OwnConv(4, 6, 3),
    ],
    ids=[
        *("1x1", "stride", "stride along one axis", "dilation", "groups", "depthwise", "SAME", "VALID"),
        *("four paddings", "paddings with channels", "reflect", "circular", "replicate", "NHWC", "transposed", "own"),
    ],
)
def test_other_static_convolution_is_no_site(layer: Any) -> None:
    assert static_sites(layer).sites == ()


def test_static_convolution_that_does_more_than_it_says_is_no_site() -> None:
    for place in ("register_forward_post_hook", "register_forward_pre_hook"):
        layer = nn.Conv2D(4, 6, 3)
        getattr(layer, place)(lambda *call: None)
        assert static_sites(layer).sites == ()


@pytest.mark.parametrize(
    ("why", "wire", "paths", "after"),
    [
        ("all of them", lambda net, x: net.pool(net.relu(net.norm(net.layer(x)))), ["layer"], ["norm", "relu", "pool"]),
        ("no norm", lambda net, x: net.pool(net.relu(net.layer(x))), ["layer"], ["relu", "pool"]),
        ("norm after relu", lambda net, x: net.norm(net.relu(net.layer(x))), ["layer"], ["relu"]),
        ("relu after pool", lambda net, x: net.relu(net.pool(net.layer(x))), ["layer"], ["pool"]),
        ("another listens", lambda net, x: net.norm(y := net.layer(x)) + y.mean(), ["layer"], []),
        ("another listens later", lambda net, x: net.pool(y := net.norm(net.layer(x))) + y.mean(), ["layer"], ["norm"]),
        ("called twice", lambda net, x: net.layer(x) + net.layer(-x), [], []),
        ("never called", lambda net, x: net.pool(x), [], []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_follows_a_static_convolution(why: str, wire: Any, paths: list[str], after: list[str]) -> None:
    trace = static_sites(nn.Conv2D(4, 6, 3), wire)
    assert [site.path for site in trace.sites] == paths, why
    assert [found.path for site in trace.sites for found in site.after] == after, why
    assert trace.uncalled == (), "only dynamic layers are told of"


def test_sites_stand_in_the_order_of_the_forward() -> None:
    class Mixed(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.dynamic = nn.Conv2D(6, 6, 3), DYConv2D(6, 6, 3, num_experts=2)
            self.first, self.more, self.small = nn.Conv2D(4, 6, 3), nn.Conv2D(6, 6, 2), nn.Conv2D(6, 6, 1)

        def forward(self, x: Any) -> Any:
            return self.small(self.last(self.dynamic(self.more(self.first(x)))))

    net = Mixed().to(dtype="float64")
    net.eval()
    sites = trace_sites(net, np.random.default_rng(0).standard_normal((2, 4, 9, 9)), "net", logits=False).sites
    assert [site.path for site in sites] == ["first", "more", "dynamic", "last"]
    assert [site.kind for site in sites] == ["conv", "conv", "dyconv", "conv"]
    assert [site.before and site.before.path for site in sites] == [None, None, "more", None], "for dynamic ones only"
