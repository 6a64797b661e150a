"""KernelWarehouse's attention over cells as a static layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from dyx.exporter.folded.constants import constant
from dyx.nn.framework import Layer, functional, nn, paddle
from dyx.nn.kw_parameters import Basis, KwParameters

_LEAST_SUM = 1e-3
"""Added to the sum that attention is divided by, as in the dynamic layer."""


class ContrastAttention(Layer):
    """Mixing weights `z / (Σ |z| + 1e-3)`, the sum over the null cell too.

    Args:
        layer: Whose attention is folded: no batch norm, mixtures in the order in which kernels lie.
    """

    def __init__(self, layer: KwParameters) -> None:
        super().__init__()
        attention = layer.attention
        self.cells, self.mixtures, self.linear = layer.experts, layer.grid.mixtures, layer.linear
        self.pool, self.norm_epsilon = nn.AdaptiveAvgPool2D(1), None
        arrays = {
            "fc1_weight": attention.fc1_weight.T,
            "fc1_bias": attention.fc1_bias,
            "fc2_weight": attention.fc2_weight.T,
            "fc2_bias": attention.fc2_bias,
        }
        if attention.norm is not None:
            self.norm_epsilon = attention.norm.epsilon
            arrays |= {"norm_weight": attention.norm.weight, "norm_bias": attention.norm.bias}
        self.through_basis = attention.basis is not None
        if attention.basis is not None:
            arrays |= {"spread": spread_of(attention.basis), "basis_bias": attention.basis.bias.reshape(-1)}
        for name, array in arrays.items():
            if array is None:
                setattr(self, name, None)
            else:
                constant(self, name, array)

    def forward(self, x: Any) -> Any:
        """`(B, m, n)` of a map `(B, C, H, W)`, or of a linear layer's `(B, …, C)`."""
        hidden = functional.linear(self._pooled(x), self.fc1_weight, self.fc1_bias)
        if self.norm_epsilon is not None:
            width = self.norm_weight.shape
            hidden = functional.layer_norm(hidden, width, self.norm_weight, self.norm_bias, self.norm_epsilon)
        scores = functional.linear(functional.relu(hidden), self.fc2_weight, self.fc2_bias)
        scores = scores.reshape([0, self.mixtures, self.fc2_weight.shape[1] // self.mixtures])
        if self.through_basis:
            flat = paddle.matmul(scores, self.spread).reshape([0, self.mixtures * (self.cells + 1)])
            # Added in 2-D: fused into a 3-D matmul, Paddle's oneDNN is slow.
            scores = (flat + self.basis_bias).reshape([0, self.mixtures, self.cells + 1])
        total = scores.abs().sum(-1, keepdim=True) + _LEAST_SUM
        return scores[:, :, : self.cells] / total

    def _pooled(self, x: Any) -> Any:
        if not self.linear:
            return self.pool(x).flatten(1)
        return x if x.ndim == 2 else x.flatten(1, x.ndim - 2).mean(1)


def spread_of(basis: Basis) -> np.ndarray:
    """`(local + basis + 1, n + 1)`: from what fc2 scores of a mixture to the scores of all its cells.

    One matrix for cutting scores in three, fc3, and putting the pieces together in the order of the cells.
    """
    others, width = basis.weight.shape
    cells = others + basis.local
    own = np.arange(basis.start, basis.start + basis.local)
    spread = np.zeros((basis.local + width + 1, cells + 1))
    spread[np.arange(basis.local), own] = 1
    spread[basis.local : -1, np.setdiff1d(np.arange(cells), own)] = basis.weight.T
    spread[-1, -1] = 1
    return spread
