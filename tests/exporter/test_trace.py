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
