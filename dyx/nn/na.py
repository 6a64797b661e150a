"""Normalised attention: a channel's gate depends on how its context stands among the channels' contexts.

A context is a weighted mean over positions, `Σ_p softmax_p(−|v_p − mean v|) x_p`. The gate is the sigmoid of an affine
function, with two learned scalars, of the contexts standardised over the channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dyx.errors import LayerUnreadable
from dyx.nn.framework import Layer, functional, nn, paddle
from dyx.nn.gate import GateParameters, gate_adapter
from dyx.nn.reading import LayerAdapter, Scores, array_of

EPSILON = 1e-5
"""Added to the standard deviation."""


def standardised(context: Any) -> Any:
    """`(B, C, 1)` over the channels: mean 0 and, but for EPSILON, standard deviation 1 (unbiased)."""
    centred = context - context.mean(1, keepdim=True)
    # Paddle's own std counts its elements with tensor operators, which would be traced.
    variance = centred.square().sum(1, keepdim=True) / (context.shape[1] - 1)
    return centred / (variance.sqrt() + EPSILON)


def closeness(values: Any) -> Any:
    """`softmax_p(−|v_p − mean v|)` over the last axis: most for values that are near the mean."""
    return functional.softmax(-(values - values.mean(-1, keepdim=True)).abs(), axis=-1)


class NA(Layer):
    """The articles' layer: `y = x · sigmoid(γ · standardised(g) + β)` with `g_c = Σ_p closeness(x_c)_p`.

    g is a sum of softmax weights without the values that they should weigh, so g = 1 for every channel and, in exact
    arithmetic, `y = x · sigmoid(β)`. In floating point the standardised g is rounding noise over EPSILON: in float32
    two correct runtimes may differ by 1e-2, in float64 the gate's argument stays within 1e-9 of β.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = self.create_parameter([1], default_initializer=nn.initializer.Constant(1.0))
        self.beta = self.create_parameter([1], default_initializer=nn.initializer.Constant(0.0))

    def gate(self, x: Any) -> Any:
        """Factors `(B, C, 1, 1)` in (0, 1)."""
        g = closeness(x.flatten(2)).sum(-1, keepdim=True)
        return functional.sigmoid(self.gamma * standardised(g) + self.beta).unsqueeze(-1)

    def forward(self, x: Any) -> Any:
        """`(B, C, H, W)` of the same shape."""
        return x * self.gate(x)


class NANet(Layer):
    """The authors' layer: `y = x · sigmoid(w · standardised(context) + b)`, `context_c = Σ_p closeness(m)_p x_cp`.

    m is the mean over the channels: one spatial attention map for all of them. Source: the NANet repository. At the
    initial w = 0, b = 1 it is `x · sigmoid(1)`. State-dict keys are the authors': `weight2` is w, `bias2` is b.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight2 = self.create_parameter([1], default_initializer=nn.initializer.Constant(0.0))
        self.bias2 = self.create_parameter([1], default_initializer=nn.initializer.Constant(1.0))

    def gate(self, x: Any) -> Any:
        """Factors `(B, C, 1, 1)` in (0, 1)."""
        rows = x.flatten(2)
        context = paddle.matmul(rows, closeness(rows.mean(1, keepdim=True)), transpose_y=True)
        return functional.sigmoid(self.weight2 * standardised(context) + self.bias2).unsqueeze(-1)

    def forward(self, x: Any) -> Any:
        """`(B, C, H, W)` of the same shape."""
        return x * self.gate(x)


@dataclass(frozen=True)
class NaParameters(GateParameters):
    """The two scalars of either layer.

    Attributes:
        scale: γ, or w.
        shift: β, or b.
    """

    scale: float
    shift: float


def read_na(layer: Any) -> NaParameters:
    """The parameters of an `NA`. Raises LayerUnreadable."""
    return NaParameters(_scalar(layer, "gamma"), _scalar(layer, "beta"))


def read_nanet(layer: Any) -> NaParameters:
    """The parameters of a `NANet`. Raises LayerUnreadable."""
    return NaParameters(_scalar(layer, "weight2"), _scalar(layer, "bias2"))


def _scalar(layer: Any, name: str) -> float:
    array = array_of(layer, name)
    if array.size != 1:
        raise LayerUnreadable(type(layer).__name__, f"its {name!r} has shape {list(array.shape)}, not one number")
    return float(array.reshape(()))


def _no_scores(_layer: Any) -> tuple[Scores, ...]:
    return ()


NA_CONSTANT = LayerAdapter("na", read_na, _no_scores)
"""The articles' layer, a constant in exact arithmetic."""

NANET_GATE = gate_adapter(read_nanet, lambda layer, x: NANet.gate(layer, x).flatten(1))
"""The authors' layer."""
