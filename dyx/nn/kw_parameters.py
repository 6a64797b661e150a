"""A KernelWarehouse layer as plain arrays and numbers, and the adapter that reads it.

The cells are not among the arrays: a warehouse is larger than any layer, and many layers share it. It is named, and
read when a fold is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from dyx.errors import LayerUnreadable
from dyx.nn.geometry import Geometry, read_geometry
from dyx.nn.reading import LayerAdapter, Scores, array_of, attribute, optional_array_of
from dyx.nn.warehouse import Grid

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Cells:
    """The cells of a warehouse, which stay where they are until they are read.

    Attributes:
        name: The same for all layers that share them, and for no other.
        shape: `(n, C_out, C_in, *kernel)`.
        tensor: The parameter.
        shared: Whether other layers were handed some of them.
    """

    name: str
    shape: tuple[int, ...]
    tensor: Any
    shared: bool

    @property
    def size(self) -> int:
        """How many numbers they are."""
        return prod(self.shape)

    def read(self) -> np.ndarray:
        """Their values, as float64."""
        import numpy as np

        return np.asarray(self.tensor.numpy(), dtype=np.float64)


@dataclass(frozen=True)
class HiddenNorm:
    """The norm of the hidden layer: batch norm with fixed statistics, or layer norm where there are none.

    Attributes:
        weight: `(h,)`.
        bias: `(h,)`.
        mean: `(h,)` or None.
        variance: `(h,)` or None.
        epsilon: Added to the variance.
    """

    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray | None
    variance: np.ndarray | None
    epsilon: float


@dataclass(frozen=True)
class Basis:
    """How a layer scores cells that are not its own: all mixtures alike, from a few numbers each.

    Attributes:
        weight: fc3, `(n - local, basis)`.
        bias: Of all scores, `(m, n + 1)`.
        start: How many of the other cells come before its own.
        local: How many cells are its own.
    """

    weight: np.ndarray
    bias: np.ndarray
    start: int
    local: int


@dataclass(frozen=True)
class KwAttention:
    """Contrasting-driven attention, as float64 arrays; see `dyx.nn.kernelwarehouse.KWAttention`.

    Attributes:
        fc1_weight: `(h, C_in)`.
        fc1_bias: `(h,)`, or None.
        norm: Between fc1 and the ReLU, or None.
        fc2_weight: `(m · (n + 1), h)`, or `(m · (local + basis + 1), h)` with a basis.
        fc2_bias: As many, or None.
        basis: None where fc2 scores every cell itself.
    """

    fc1_weight: np.ndarray
    fc1_bias: np.ndarray | None
    norm: HiddenNorm | None
    fc2_weight: np.ndarray
    fc2_bias: np.ndarray | None
    basis: Basis | None


@dataclass(frozen=True)
class KwParameters:
    """A KernelWarehouse layer.

    Attributes:
        attention: Makes the mixing weights `(B, m, n)`.
        grid: The cells that make up its kernel.
        cells: Of its warehouse.
        bias: `(C_out,)`, the same for every sample, or None.
        geometry: The walk.
        linear: Whether it is a linear layer: channels come last then, and the walk is that of a 1×1 convolution.
        temperature: T, 0 where attention alone mixes.
    """

    attention: KwAttention
    grid: Grid
    cells: Cells
    bias: np.ndarray | None
    geometry: Geometry
    linear: bool
    temperature: float

    @property
    def experts(self) -> int:
        """How many cells are mixed, n."""
        return self.cells.shape[0]

    @property
    def channels_out(self) -> int:
        """C_out."""
        return self.grid.out * self.cells.shape[1]

    @property
    def channels_in(self) -> int:
        """C_in, over all groups."""
        return self.grid.in_ * self.cells.shape[2] * self.geometry.groups

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """`(C_out, C_in / groups, *kernel)`."""
        return (self.channels_out, self.channels_in // self.geometry.groups, *self.geometry.kernel)

    @property
    def smallest_side(self) -> int:
        """The side of the smallest map that it can see."""
        return self.geometry.reach


def read_kw(layer: Any) -> KwParameters:
    """The parameters of a KWConv2D, or of a KWLinear with its `conv`. Raises LayerUnreadable."""
    conv, name = _conv(layer), type(layer).__name__
    if attribute(conv, "attention", name) is None:
        raise LayerUnreadable(name, "it has no cells yet: allocate of its WarehouseManager was not called")
    grid = Grid(*(attribute(conv, f"groups_{axis}", name) for axis in ("spatial", "out_channel", "in_channel")))
    cells = _cells(conv, name)
    geometry = read_geometry(conv, tuple(attribute(conv, "kernel_size", name)))
    attention = _attention_of(conv, grid, cells.shape[0], name)
    parameters = KwParameters(
        *(attention, grid, cells, optional_array_of(conv, "bias"), geometry, conv is not layer),
        temperature=float(attribute(conv, "temperature", name)),
    )
    _check(parameters, name)
    return parameters


def _conv(layer: Any) -> Any:
    """A layer itself, or the convolution inside a linear one."""
    return attribute(layer, "conv") if hasattr(layer, "conv") else layer


def _cells(conv: Any, name: str) -> Cells:
    tensor, index = attribute(conv, "cells", name), attribute(conv, "warehouse", name)
    # Fused names repeat from manager to manager, so the tensor itself tells warehouses apart.
    key = f"{attribute(conv, 'manager', name).warehouses[index].name} at {id(tensor):x}"
    return Cells(key, tuple(tensor.shape), tensor, attribute(conv, "num_local_cells", name) != tensor.shape[0])


def _attention_of(conv: Any, grid: Grid, cells: int, name: str) -> KwAttention:
    """Raises LayerUnreadable where the arrays of the attention do not fit each other."""
    module = conv.attention
    fc1, fc2, norm = (attribute(module, part, name) for part in ("fc1", "fc2", "norm1"))
    basis = None if attribute(conv, "num_basis", name) is None else _basis_of(conv, grid, cells, name)
    attention = KwAttention(
        fc1_weight=array_of(fc1, "weight").T,
        fc1_bias=optional_array_of(fc1, "bias"),
        norm=_norm_of(norm),
        fc2_weight=array_of(fc2, "weight").T,
        fc2_bias=optional_array_of(fc2, "bias"),
        basis=basis,
    )
    scored = cells if basis is None else basis.local + basis.weight.shape[1]
    hidden = len(attention.fc1_weight)
    _check_shape(name, "fc1", attention.fc1_weight, (hidden, attribute(conv, "in_planes", name)))
    _check_shape(name, "fc2", attention.fc2_weight, (grid.mixtures * (scored + 1), hidden))
    return attention


def _norm_of(norm: Any) -> HiddenNorm:
    batch = hasattr(norm, "_mean")
    mean, variance = (array_of(norm, key) if batch else None for key in ("_mean", "_variance"))
    weight, bias = array_of(norm, "weight"), array_of(norm, "bias")
    return HiddenNorm(weight, bias, mean, variance, float(attribute(norm, "_epsilon")))


def _basis_of(conv: Any, grid: Grid, cells: int, name: str) -> Basis:
    module = conv.attention
    weight, bias = array_of(attribute(module, "fc3", name), "weight").T, array_of(module, "basis_bias")
    start, local = attribute(conv, "start_cell_idx", name), attribute(conv, "num_local_cells", name)
    _check_shape(name, "fc3", weight, (cells - local, conv.num_basis))
    _check_shape(name, "basis_bias", bias, (grid.mixtures * (cells + 1),))
    return Basis(weight, bias.reshape(grid.mixtures, cells + 1), start, local)


def _check(parameters: KwParameters, name: str) -> None:
    """Raises LayerUnreadable where kernel, cells and bias do not fit each other."""
    cell, geometry = parameters.cells.shape[3:], parameters.geometry
    if parameters.grid.spatial * prod(cell) != prod(geometry.kernel):
        reason = f"{parameters.grid.spatial} cells of {list(cell)} do not make up its kernel of {list(geometry.kernel)}"
        raise LayerUnreadable(name, reason)
    if isinstance(geometry.padding, str):
        raise LayerUnreadable(name, f"its padding is {geometry.padding!r}, not numbers")
    if parameters.channels_out % geometry.groups:
        reason = f"its {parameters.channels_out} outputs do not divide into {geometry.groups} groups"
        raise LayerUnreadable(name, reason)
    if parameters.bias is not None:
        _check_shape(name, "bias", parameters.bias, (parameters.channels_out,))


def _check_shape(name: str, what: str, array: np.ndarray, wanted: tuple[int, ...]) -> None:
    if array.shape != wanted:
        raise LayerUnreadable(name, f"its {what} has shape {list(array.shape)}, where {list(wanted)} fits its cells")


def _set_temperature(layer: Any, temperature: float) -> None:
    _conv(layer).temperature = temperature


def _scores(layer: Any) -> tuple[Scores]:
    return (Scores(_conv(layer).attention.fc2, SPREAD, CENTRE),)


def _mixing(layer: Any, x: Any) -> tuple[Any]:
    conv = _conv(layer)
    if conv is not layer:
        x = x.reshape([x.shape[0], -1, x.shape[-1]]).transpose([0, 2, 1])
    return (conv.mixing(x),)


SPREAD, CENTRE = 0.12, 0.4
"""Deviation of a score over inputs, and of the scores' means: dozens of layers in a row then stay near float32."""

KW = LayerAdapter("kw", read_kw, _scores, _set_temperature, final_temperature=0.0, attention=_mixing)
"""KernelWarehouse's convolution and linear layer."""
