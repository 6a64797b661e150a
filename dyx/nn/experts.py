"""K kernels of one convolution, as arrays: what every K-expert layer is read into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dyx.errors import LayerUnreadable
from dyx.nn.geometry import Geometry

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Experts:
    """Kernels and biases of K experts, as float64 arrays, and how their convolution walks.

    Attributes:
        weight: `(K, C_out, C_in / groups, *kernel)`.
        bias: `(K, C_out)`, or None.
        geometry: The walk.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    geometry: Geometry

    @property
    def experts(self) -> int:
        """K."""
        return int(self.weight.shape[0])

    @property
    def channels_out(self) -> int:
        """C_out."""
        return int(self.weight.shape[1])

    @property
    def channels_in(self) -> int:
        """C_in."""
        return int(self.weight.shape[2]) * self.geometry.groups

    @property
    def smallest_side(self) -> int:
        """The side of the smallest map that it can see."""
        return self.geometry.reach


def check_experts(experts: Experts, name: str) -> None:
    """Raises LayerUnreadable where the arrays of a layer do not fit each other."""
    wanted = (experts.experts, experts.channels_out)
    if experts.bias is not None and experts.bias.shape != wanted:
        reason = f"its bias has shape {list(experts.bias.shape)}, where {list(wanted)} fits its weight"
        raise LayerUnreadable(name, reason)
    if experts.channels_out % experts.geometry.groups:
        raise LayerUnreadable(
            name, f"its {experts.channels_out} outputs do not divide into {experts.geometry.groups} groups"
        )


def check_kernels(weight: np.ndarray, name: str) -> np.ndarray:
    """The kernels themselves. Raises LayerUnreadable where they have no axis of experts."""
    if weight.ndim < 4:
        raise LayerUnreadable(name, f"its weight has shape {list(weight.shape)}, not (K, C_out, C_in/groups, k, k)")
    return weight
