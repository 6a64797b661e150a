"""The identities that folds rest on, as functions on float64 arrays.

Every function is exact in real arithmetic; tests check each against its definition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dyx.nn.attention import Routing


@dataclass(frozen=True)
class Affine:
    """A per-channel `scale · y + shift`, both `(C,)`."""

    scale: np.ndarray
    shift: np.ndarray

    @classmethod
    def of_batch_norm(
        cls, weight: np.ndarray | None, bias: np.ndarray | None, mean: np.ndarray, variance: np.ndarray, epsilon: float
    ) -> Affine:
        """Batch norm with fixed statistics: `scale = γ / √(σ² + ε)`, `shift = β - μ · scale`.

        Paddle keeps ε as float32 also in a float64 network, so it is rounded here too.
        """
        scale = 1.0 / np.sqrt(variance + np.float64(np.float32(epsilon)))
        scale = scale if weight is None else weight * scale
        shift = -mean * scale
        return cls(scale, shift if bias is None else shift + bias)


def fold_affine(
    weight: np.ndarray, bias: np.ndarray | None, affine: Affine | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Experts whose mixture already carries the affine that followed it.

    `s · Σ a_k (W_k * x + b_k) + t = Σ a_k ((s W_k) * x + (s b_k + t))`, because `Σ a_k = 1`: **softmax only**.

    Args:
        weight: `(K, C_out, …)`.
        bias: `(K, C_out)` or None.
        affine: Over C_out, or None for none.

    Returns:
        Weight and bias of the same shapes; a bias appears where an affine came.
    """
    if affine is None:
        return weight, bias
    scaled = weight * affine.scale.reshape(1, -1, *(1,) * (weight.ndim - 2))
    own = np.zeros(weight.shape[:2]) if bias is None else bias
    return scaled, own * affine.scale + affine.shift


def fold_temperature(routing: Routing) -> Routing:
    """The same routing at temperature 1: `(W v + b) / T = (W / T) v + b / T`."""
    return Routing(
        routing.fc1_weight,
        routing.fc1_bias,
        routing.fc2_weight / routing.temperature,
        routing.fc2_bias / routing.temperature,
        1.0,
    )


def experts_as_outputs(weight: np.ndarray, groups: int) -> np.ndarray:
    """One kernel that gives every expert's output side by side.

    `(K, C_out, C_in/g, *k)` → `(g · K · C_out/g, C_in/g, *k)`: experts stand inside each group, so that a grouped
    convolution still reads the right inputs.
    """
    experts, channels_out = weight.shape[:2]
    rest = weight.shape[2:]
    grouped = weight.reshape(experts, groups, channels_out // groups, *rest)
    return np.ascontiguousarray(grouped.swapaxes(0, 1).reshape(experts * channels_out, *rest))


def bias_as_outputs(bias: np.ndarray, groups: int) -> np.ndarray:
    """Biases `(K, C_out)` in the order of `experts_as_outputs`."""
    return experts_as_outputs(bias[:, :, None], groups)[:, 0]


def experts_as_inputs(weight: np.ndarray, groups: int) -> np.ndarray:
    """One kernel that reads every expert's scaled input side by side.

    `(K, C_out, C_in/g, *k)` → `(C_out, K · C_in/g, *k)`; inside each group the input holds expert after expert.
    """
    experts, channels_out, channels_in = weight.shape[:3]
    moved = np.moveaxis(weight, 0, 1)
    return np.ascontiguousarray(moved.reshape(channels_out, experts * channels_in, *weight.shape[3:]))
