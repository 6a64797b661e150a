"""Warehouses: how the KernelWarehouse layers of a network share their cells, as plain numbers.

A warehouse holds n cells, small kernels of one size. A layer's kernel is a grid of blocks of that size, and each block,
called a mixture, is a weighted sum of all n cells. Before training, every cell is handed out to one mixture of one
layer; a kernel mixed at temperature 1 consists of the cells handed out to it. Mixtures that go empty-handed have the
null cell, which is zero.

Source: Li et al., "KernelWarehouse: Rethinking the Design of Dynamic Convolution", ICML 2024, and its official code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import gcd, prod
from typing import Any

import numpy as np

from dyx.errors import InvalidOption

PerWarehouse = float | Sequence[float]
"""One number for all warehouses, or one for each, in the order in which their first layers were reserved."""

SMALLEST_WIDTH = 16
"""The narrowest hidden layer, and the smallest basis, that an attention module gets."""


@dataclass(frozen=True)
class Cutting:
    """How kernels are cut into cells, and how many cells a warehouse holds.

    Attributes:
        reduction: Hidden channels of an attention module per input channel.
        cell_num_ratio: b, cells per mixture.
        cell_inplane_ratio: Input channels of a cell per greatest common divisor of its layers'.
        cell_outplane_ratio: Output channels of a cell per greatest common divisor of its layers'.
        spatial_partition: Whether a cell is 1×1; else it has the kernel's own size, which its layers then share.
    """

    reduction: PerWarehouse
    cell_num_ratio: PerWarehouse
    cell_inplane_ratio: PerWarehouse
    cell_outplane_ratio: PerWarehouse
    spatial_partition: bool | Sequence[bool]

    def of(self, index: int, warehouses: int) -> OneCutting:
        """What holds for one of so many warehouses. Raises InvalidOption where a list has another length."""

        def mine(option: str) -> Any:
            value = getattr(self, option)
            values = value if isinstance(value, Sequence) else [value]
            if len(values) not in (1, warehouses):
                raise InvalidOption(option, value, f"a number, or one for each of the {warehouses} warehouses")
            return values[index] if len(values) > 1 else values[0]

        return OneCutting(*(mine(field.name) for field in fields(self)))


@dataclass(frozen=True)
class OneCutting:
    """A Cutting of a single warehouse: its values are numbers."""

    reduction: float
    cell_num_ratio: float
    cell_inplane_ratio: float
    cell_outplane_ratio: float
    spatial_partition: bool

    def hidden(self, channels_in: int) -> int:
        """Hidden channels of the attention module of a layer with so many input channels."""
        return max(int(channels_in * self.reduction), SMALLEST_WIDTH)


@dataclass(frozen=True)
class Warehouse:
    """One warehouse.

    Attributes:
        name: What the names of its layers have in common.
        cells: n.
        cell: A cell's shape, `(C_out, C_in, *kernel)`.
        cutting: How it was cut.
    """

    name: str
    cells: int
    cell: tuple[int, ...]
    cutting: OneCutting


@dataclass(frozen=True)
class Grid:
    """A kernel as a grid of cells; mixtures are counted spatial first: `(s · out + o) · in_ + i`.

    Attributes:
        spatial: S, cells over the kernel's spatial axes, row-major.
        out: Go, cells over its output channels.
        in_: Gi, cells over its input channels per group.
    """

    spatial: int
    out: int
    in_: int

    @property
    def mixtures(self) -> int:
        """Their number, m."""
        return self.spatial * self.out * self.in_


@dataclass(frozen=True)
class Share:
    """What a layer has of its warehouse.

    Attributes:
        mixtures: m, its own.
        cells: n, the warehouse's; column n is the null cell.
        start: The first of the cells that were handed out to it.
        end: One past the last of them.
        assigned: `(m,)`, the cell handed out to each mixture, n where it went empty-handed.
        local: Cells that its attention scores directly where others are scored through a basis.
        basis: The size of that basis; None where every cell is scored directly.
    """

    mixtures: int
    cells: int
    start: int
    end: int
    assigned: np.ndarray
    local: int
    basis: int | None

    def beta(self) -> np.ndarray:
        """`(m, n + 1)`, one-hot: the attention that training starts from."""
        rows: np.ndarray = np.eye(self.cells + 1, dtype=np.float32)[self.assigned]
        return rows


def fused_name(name: str, sharing_range: Sequence[str]) -> str:
    """The warehouse of a layer's name: each part between underscores loses what follows a word of the sharing range.

    `stage2_layer3_conv1` with `("layer", "conv")` becomes `stage2_layer_conv`.
    """
    return "_".join(next((word for word in sharing_range if part.startswith(word)), part) for part in name.split("_"))


def open_warehouses(kernels: Mapping[str, Sequence[tuple[int, ...]]], cutting: Cutting) -> tuple[Warehouse, ...]:
    """The warehouses of a network.

    Args:
        kernels: Name of a warehouse → shapes `(C_out, C_in / groups, *kernel)` of its layers.
        cutting: How to cut them.

    Raises:
        InvalidOption: A ratio that does not divide the kernels, or that leaves cells over.
    """
    return tuple(
        _open(name, shapes, cutting.of(index, len(kernels))) for index, (name, shapes) in enumerate(kernels.items())
    )


def grid_of(kernel: tuple[int, ...], cell: tuple[int, ...]) -> Grid:
    """How many cells a kernel `(C_out, C_in / groups, *kernel)` takes along each axis."""
    out, in_, *spatial = (whole // part for whole, part in zip(kernel, cell, strict=True))
    return Grid(prod(spatial), out, in_)


def share_of(warehouse: Warehouse, mixtures: int, start: int, basis_ratio: float) -> Share:
    """The share of the next layer, when the cells before `start` are handed out.

    Args:
        warehouse: Whose cells.
        mixtures: m of the layer.
        start: The first cell that is left.
        basis_ratio: Size of the basis per cell that is not local; from 1 on there is no basis.
    """
    cells, ratio = warehouse.cells, warehouse.cutting.cell_num_ratio
    takes = _takes(mixtures, ratio)
    assigned = np.where(takes, start + _cells_each(ratio) * (np.cumsum(takes) - 1), cells)
    local = int(ratio * mixtures)
    basis = None if basis_ratio >= 1 else max(int((cells - local) * basis_ratio), SMALLEST_WIDTH)
    return Share(mixtures, cells, start, start + handed_out(mixtures, ratio), assigned, local, basis)


def handed_out(mixtures: int, ratio: float) -> int:
    """Cells that go to a layer of so many mixtures, b of them each."""
    return _cells_each(ratio) * int(_takes(mixtures, ratio).sum())


def _cells_each(ratio: float) -> int:
    """Cells that a mixture takes if it takes any; attention starts on the first of them."""
    return max(int(ratio), 1)


def _takes(mixtures: int, ratio: float) -> np.ndarray:
    """`(m,)`: which mixtures take cells. Under b = 1, one of every ⌊1/b⌋ does, its place moving on by one each time."""
    order = np.arange(mixtures)
    period = max(int(1 / ratio), 1)
    taken: np.ndarray = order % period == order // period % period
    return taken


def _open(name: str, kernels: Sequence[tuple[int, ...]], cutting: OneCutting) -> Warehouse:
    if cutting.cell_num_ratio <= 0:
        raise InvalidOption(f"cell_num_ratio of warehouse {name!r}", cutting.cell_num_ratio, "a number above 0")
    cell = _cell_of(name, kernels, cutting)
    mixtures = [grid_of(kernel, cell).mixtures for kernel in kernels]
    cells = max(int(sum(mixtures) * cutting.cell_num_ratio), 1)
    handed = sum(handed_out(count, cutting.cell_num_ratio) for count in mixtures)
    if handed != cells:
        ratios = f"cell_inplane_ratio {cutting.cell_inplane_ratio}, cell_outplane_ratio {cutting.cell_outplane_ratio}"
        wanted = f"one that hands out all its cells: {handed} of {cells} are handed out with {ratios}"
        raise InvalidOption(f"cell_num_ratio of warehouse {name!r}", cutting.cell_num_ratio, wanted)
    return Warehouse(name, cells, cell, cutting)


def _cell_of(name: str, kernels: Sequence[tuple[int, ...]], cutting: OneCutting) -> tuple[int, ...]:
    """The shape of the cells. Raises InvalidOption where it does not tile every kernel."""
    if len({len(kernel) for kernel in kernels}) > 1:
        raise InvalidOption("warehouse_name", name, f"one for kernels of as many axes as each other: {list(kernels)}")
    out = max(int(gcd(*(kernel[0] for kernel in kernels)) * cutting.cell_outplane_ratio), 1)
    in_ = max(int(gcd(*(kernel[1] for kernel in kernels)) * cutting.cell_inplane_ratio), 1)
    spatial = kernels[0][2:]
    tiles = {
        "cell_outplane_ratio": all(kernel[0] % out == 0 for kernel in kernels),
        "cell_inplane_ratio": all(kernel[1] % in_ == 0 for kernel in kernels),
        "spatial_partition": cutting.spatial_partition or all(kernel[2:] == spatial for kernel in kernels),
    }
    for option, fits in tiles.items():
        if not fits:
            wanted = f"one that cuts its kernels {list(kernels)} into cells of one size"
            raise InvalidOption(f"{option} of warehouse {name!r}", getattr(cutting, option), wanted)
    return (out, in_, *((1,) * len(spatial) if cutting.spatial_partition else spatial))
