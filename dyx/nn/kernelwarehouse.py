"""KernelWarehouse as it is trained: one kernel per sample, each block of it mixed from cells that layers share.

A `WarehouseManager` holds the cells of a whole network. `reserve` gives a layer; when all are reserved and stand in
their network, `allocate` cuts the cells, hands them out and completes the layers.

Source: Li et al., "KernelWarehouse: Rethinking the Design of Dynamic Convolution", ICML 2024, and its official code,
whose state-dict names are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import numpy as np

from dyx.errors import InvalidOption, ModelUnusable
from dyx.nn.framework import Layer, functional, nn, paddle
from dyx.nn.geometry import Geometry
from dyx.nn.per_sample import PerSampleConv, conv_per_sample
from dyx.nn.warehouse import Cutting, PerWarehouse, Share, Warehouse, fused_name, grid_of, open_warehouses, share_of

Norm = Literal["batch", "layer"]
"""Of an attention module's hidden layer."""

_LEAST_SUM = 1e-3
"""Added to the sum that attention is divided by."""


class KWAttention(Layer):
    """Contrasting-driven attention: scores over the sum of their magnitudes.

    `z = fc2(relu(norm1(fc1(GAP x))))`, then `z_ij / (Σ_j |z_ij| + 1e-3)` over the n cells and the null cell of each
    mixture i. Weights may be negative, and sum to no fixed value. With a basis, fc2 scores the layer's own cells, the
    null cell and a basis, from which fc3, the same for every mixture, makes the scores of all other cells.

    Args:
        channels_in: Of the layer's input.
        hidden: Channels between fc1 and fc2.
        share: The layer's part of its warehouse.
        norm: With "batch", fc1 has no bias.
    """

    def __init__(self, channels_in: int, hidden: int, share: Share, norm: Norm) -> None:
        super().__init__()
        self.share = share
        self.fc1 = _linear(channels_in, hidden, bias=norm == "layer")
        self.norm1 = nn.LayerNorm(hidden) if norm == "layer" else nn.BatchNorm1D(hidden)
        if share.basis is None:
            self.fc2 = _linear(hidden, share.mixtures * (share.cells + 1), bias=True)
        else:
            self.fc2 = _linear(hidden, share.mixtures * (share.local + share.basis + 1), bias=False)
            self.fc3 = _linear(share.basis, share.cells - share.local, bias=False)
            self.basis_bias = self.create_parameter([share.mixtures * (share.cells + 1)], is_bias=True)

    def forward(self, pooled: Any) -> Any:
        """`(B, m, n + 1)`, the null cell last, of channel means `(B, C_in)`."""
        hidden = functional.relu(self.norm1(self.fc1(pooled)))
        scores = self.fc2(hidden).reshape([hidden.shape[0], self.share.mixtures, -1])
        if self.share.basis is not None:
            scores = self._with_others(scores)
        return scores / (scores.abs().sum(-1, keepdim=True) + _LEAST_SUM)

    def _with_others(self, scores: Any) -> Any:
        """Scores `(B, m, n + 1)` of `(B, m, local + basis + 1)`."""
        share = self.share
        own, basis, null = paddle.split(scores, [share.local, share.basis, 1], axis=-1)
        others = self.fc3(basis)
        everything = paddle.concat([others[..., : share.start], own, others[..., share.start :], null], axis=-1)
        return everything + self.basis_bias.reshape([share.mixtures, share.cells + 1])


class KWConv(PerSampleConv):
    """`y_b = conv(x_b, W_b) + bias`, W_b a grid of m blocks, block i being `Σ_j α_bij E_j`; abstract.

    α is the attention over the n cells E of the warehouse, or `(1 − T) · attention + T · beta` while training warms
    up: beta gives each mixture the one cell that was handed out to it. T is `temperature`, 0 in a new layer; neither
    it nor beta is in a state dict. The cells belong to the manager. `WarehouseManager.reserve` makes such layers.

    Args:
        manager: Of the cells.
        warehouse: The index of the layer's warehouse.
        in_planes: Input channels.
        out_planes: Output channels.
        geometry: How the convolution walks.
        bias: Whether it has one, the same for every sample.
    """

    def __init__(
        self, manager: WarehouseManager, warehouse: int, in_planes: int, out_planes: int, geometry: Geometry, bias: bool
    ) -> None:
        super().__init__()
        # In a tuple, so that Paddle does not take the manager for a sublayer and its cells for this layer's.
        self._source = (manager, warehouse)
        self.in_planes, self.out_planes = in_planes, out_planes
        self.kernel_size, self.stride = geometry.kernel, geometry.stride
        self.padding, self.dilation, self.groups = geometry.padding, geometry.dilation, geometry.groups
        self.temperature = 0.0
        self.attention: Any = None
        self.bias = self.create_parameter([out_planes], is_bias=True) if bias else None

    @property
    def manager(self) -> WarehouseManager:
        """Who holds the cells."""
        return self._source[0]

    @property
    def warehouse(self) -> int:
        """Index of its warehouse in `manager.weights`."""
        return self._source[1]

    @property
    def cells(self) -> Any:
        """The warehouse `(n, cell_out, cell_in, *cell_kernel)`, a parameter of the manager's."""
        return self.manager.weights[self.warehouse]

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """`(C_out, C_in / groups, *kernel)`."""
        return (self.out_planes, self.in_planes // self.groups, *self.kernel_size)

    def settle(self, warehouse: Warehouse, start: int, norm: Norm, basis_ratio: float) -> Share:
        """Take the cells from `start` on, and get the attention that the warehouse's size asks for."""
        grid = grid_of(self.kernel_shape, warehouse.cell)
        share = share_of(warehouse, grid.mixtures, start, basis_ratio)
        self.groups_spatial, self.groups_out_channel, self.groups_in_channel = grid.spatial, grid.out, grid.in_
        self.cell_shape = (warehouse.cells, *warehouse.cell)
        self.num_mixtures, self.num_cells, self.start_cell_idx = share.mixtures, share.cells, share.start
        self.num_local_cells, self.num_basis = share.local, share.basis
        self.register_buffer("beta", paddle.to_tensor(share.beta(), paddle.get_default_dtype()), persistable=False)
        self.attention = KWAttention(self.in_planes, warehouse.cutting.hidden(self.in_planes), share, norm)
        return share

    def mixing(self, x: Any) -> Any:
        """α `(B, m, n)` of an input; the null cell, being zero, is left out. Raises ModelUnusable."""
        if self.attention is None:
            raise ModelUnusable(type(self).__name__, "it has no cells yet", "call allocate of its WarehouseManager")
        pool = functional.adaptive_avg_pool1d if len(self.kernel_size) == 1 else functional.adaptive_avg_pool2d
        attention = self.attention(pool(x, 1).flatten(1))
        if self.temperature:
            attention = (1 - self.temperature) * attention + self.temperature * self.beta
        return attention[..., :-1]

    def kernels(self, alpha: Any) -> Any:
        """W `(B, C_out, C_in / groups, *kernel)` of α `(B, m, n)`."""
        grid = [self.groups_spatial, self.groups_out_channel, self.groups_in_channel]
        alpha = alpha.reshape([alpha.shape[0], *grid, self.num_cells])
        # A kernel's taps are spread over blocks or lie inside cells, never both, so "is" is (channel, tap) either way.
        # Paddle's matmul, transpose and reshape, or an einsum with one axis more, took ten times as long on a CPU.
        kernels = paddle.einsum("bsghn,noi->bgohis", alpha, self.cells.flatten(2))
        return kernels.reshape([alpha.shape[0], *self.kernel_shape])

    def forward(self, x: Any) -> Any:
        """`(B, C_out, *size')` of `(B, C_in, *size)`."""
        y = conv_per_sample(self, x, self.kernels(self.mixing(x)))
        return y if self.bias is None else y + self.bias.reshape([1, -1, *(1 for _ in self.kernel_size)])


class KWConv1D(KWConv):
    """The layer over `(B, C, L)`; see KWConv."""


class KWConv2D(KWConv):
    """The layer over `(B, C, H, W)`; see KWConv."""


class KWLinear(Layer):
    """A linear layer, as the 1×1 convolution `conv` over all rows of a sample.

    Args:
        conv: A KWConv1D with a kernel of 1.
    """

    def __init__(self, conv: KWConv1D) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Any) -> Any:
        """`(B, …, C_out)` of `(B, …, C_in)`."""
        batch, *rows, channels = x.shape
        y = self.conv(x.reshape([batch, -1, channels]).transpose([0, 2, 1]))
        return y.transpose([0, 2, 1]).reshape([batch, *rows, self.conv.out_planes])


_AXES = {"conv1d": 1, "conv2d": 2, "linear": 1}
"""Spatial axes of what `reserve` can make."""


class WarehouseManager(Layer):
    """The cells of all KernelWarehouse layers of a network: `weights`, one parameter for each of `warehouses`.

    Layers whose names fuse to the same (see `sharing_range`) share a warehouse. What is marked * is one value for all
    warehouses, or one for each, in the order in which their first layers were reserved.

    Args:
        reduction: * Hidden channels of a layer's attention per input channel; at least 16 stay.
        cell_num_ratio: * b, cells per mixture.
        cell_inplane_ratio: * Input channels of a cell, per greatest common divisor of its layers'.
        cell_outplane_ratio: * Output channels of a cell, likewise.
        sharing_range: Words; of the parts of a layer's name between underscores, those that start with one are equal.
        nonlocal_basis_ratio: Under 1, attention to other layers' cells goes through a basis, smaller by this ratio.
        norm: In each attention, "batch" or "layer".
        spatial_partition: * Whether cells are 1×1; else they have the kernel's size.

    Raises:
        InvalidOption: An unknown norm. Ratios are checked by `allocate`.
    """

    def __init__(  # noqa: PLR0913 - the official signature, which its users know
        self,
        reduction: PerWarehouse = 0.0625,
        cell_num_ratio: PerWarehouse = 1,
        cell_inplane_ratio: PerWarehouse = 1,
        cell_outplane_ratio: PerWarehouse = 1,
        sharing_range: Sequence[str] = (),
        nonlocal_basis_ratio: float = 1,
        norm: Norm = "batch",
        spatial_partition: bool | Sequence[bool] = True,
    ) -> None:
        super().__init__()
        if norm not in ("batch", "layer"):
            raise InvalidOption("norm", norm, "'batch' or 'layer'")
        self.cutting = Cutting(reduction, cell_num_ratio, cell_inplane_ratio, cell_outplane_ratio, spatial_partition)
        self.sharing_range = tuple(sharing_range)
        self.nonlocal_basis_ratio = nonlocal_basis_ratio
        self.norm: Norm = norm
        self._kernels: dict[str, list[tuple[int, ...]]] = {}

    def reserve(  # noqa: PLR0913 - the official signature, which its users know
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: int | Sequence[int] = 1,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        warehouse_name: str = "default",
        layer_type: str = "conv2d",
    ) -> Any:
        """A layer that `allocate` will complete.

        Args:
            in_planes: Input channels.
            out_planes: Output channels.
            kernel_size: One number, or one per spatial axis, as the next three.
            stride: Of the convolution.
            padding: Zeros on both sides.
            dilation: Between the kernel's taps.
            groups: Of the convolution.
            bias: Whether the layer has one.
            warehouse_name: Parts between underscores, as `stage2_layer3_conv1`.
            layer_type: "conv1d", "conv2d" or "linear", which ignores the five before the bias.

        Returns:
            A KWConv1D, KWConv2D or KWLinear.

        Raises:
            InvalidOption: Another layer_type.
        """
        if layer_type not in _AXES:
            raise InvalidOption("layer_type", layer_type, f"one of {', '.join(_AXES)}")
        if layer_type == "linear":
            kernel_size, stride, padding, dilation, groups = 1, 1, 0, 1, 1
        kernel, steps, zeros, gaps = (_per_axis(n, _AXES[layer_type]) for n in (kernel_size, stride, padding, dilation))
        geometry = Geometry(kernel, steps, zeros, gaps, groups)
        name = fused_name(warehouse_name, self.sharing_range)
        self._kernels.setdefault(name, []).append((out_planes, in_planes // groups, *geometry.kernel))
        index = list(self._kernels).index(name)
        kind = KWConv2D if layer_type == "conv2d" else KWConv1D
        conv = kind(self, index, in_planes, out_planes, geometry, bias)
        return KWLinear(conv) if layer_type == "linear" else conv

    def allocate(self, network: Any) -> None:
        """Cut the cells, and hand them out to the reserved layers in the order in which they stand in the network.

        Raises:
            InvalidOption: Ratios that do not cut the kernels evenly, or do not hand out every cell.
            ModelUnusable: Not all reserved layers stand in the network.
        """
        layers = [layer for layer in network.sublayers(True) if isinstance(layer, KWConv) and layer.manager is self]
        reserved = sum(map(len, self._kernels.values()))
        if len(layers) != reserved:
            reason = f"it holds {len(layers)} of the {reserved} layers that its WarehouseManager has reserved"
            raise ModelUnusable(type(network).__name__, reason, "call allocate once, on the whole network")
        warehouses = open_warehouses(self._kernels, self.cutting)
        shares: list[list[Share]] = [[] for _ in warehouses]
        for layer in layers:
            mine = shares[layer.warehouse]
            start = mine[-1].end if mine else 0
            mine.append(layer.settle(warehouses[layer.warehouse], start, self.norm, self.nonlocal_basis_ratio))
        self.weights = nn.ParameterList([self._cells(*both) for both in zip(warehouses, shares, strict=True)])
        self.warehouses = warehouses

    def _cells(self, warehouse: Warehouse, shares: Sequence[Share]) -> Any:
        """A new warehouse; each layer's own cells are drawn as one kernel would be, by fan-out for ReLU."""
        out, _, *kernel = warehouse.cell
        counts = [share.end - share.start for share in shares]
        deviations = [(2 / (max(count, 1) * out * prod(kernel))) ** 0.5 for count in counts]
        scale = np.repeat(deviations, counts).reshape([-1, *(1 for _ in warehouse.cell)])
        cells = self.create_parameter([warehouse.cells, *warehouse.cell], default_initializer=nn.initializer.Normal())
        cells.set_value(cells * paddle.to_tensor(scale, cells.dtype))
        return cells


def _linear(channels_in: int, channels_out: int, *, bias: bool) -> Any:
    """A linear layer drawn by fan-out for ReLU, its bias zero."""
    kaiming = nn.initializer.Normal(0.0, (2 / max(channels_out, 1)) ** 0.5)
    return nn.Linear(channels_in, channels_out, kaiming, None if bias else False)


def _per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)
