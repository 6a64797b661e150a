"""Omni-dimensional dynamic convolution: attention over a kernel's inputs, outputs, positions and experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dyx.errors import LayerUnreadable
from dyx.nn.attention import temperature_of
from dyx.nn.experts import Experts, check_experts, check_kernels
from dyx.nn.framework import Layer, functional, nn, paddle
from dyx.nn.geometry import read_geometry
from dyx.nn.per_sample import PerSampleConv, conv_per_sample
from dyx.nn.reading import LayerAdapter, Scores, array_of, attribute, matrix_of

if TYPE_CHECKING:
    import numpy as np

MIN_HIDDEN = 16
"""The attention has at least so many hidden channels."""


class ODAttention(Layer):
    """Four attentions on one trunk `v = relu(bn(fc(GAP x)))`; each head is a 1×1 convolution of v, with bias.

    Channel, filter and spatial attention are `sigmoid(head / T)`, kernel attention is `softmax(head / T)`. A head that
    could only repeat another is None: `filter_fc` of a depthwise convolution, `spatial_fc` of a 1×1 kernel,
    `kernel_fc` of a single expert. T is the attribute `temperature`, 1 until it is set; it is no parameter, and a state
    dict does not carry it. Source: Li et al., "Omni-Dimensional Dynamic Convolution", ICLR 2022, and its official
    repository.
    """

    def __init__(
        self, in_planes: int, out_planes: int, kernel_size: int, groups: int, reduction: float, kernel_num: int
    ) -> None:
        super().__init__()
        self.kernel_size, self.temperature = kernel_size, 1.0
        hidden = max(int(in_planes * reduction), MIN_HIDDEN)
        self.avgpool = nn.AdaptiveAvgPool2D(1)
        self.fc = _conv1x1(in_planes, hidden, bias_attr=False)
        self.bn = nn.BatchNorm2D(hidden)
        self.relu = nn.ReLU()
        self.channel_fc = _conv1x1(hidden, in_planes)
        depthwise = groups == in_planes == out_planes
        self.filter_fc = None if depthwise else _conv1x1(hidden, out_planes)
        self.spatial_fc = None if kernel_size == 1 else _conv1x1(hidden, kernel_size**2)
        self.kernel_fc = None if kernel_num == 1 else _conv1x1(hidden, kernel_num)

    def forward(self, x: Any) -> tuple[Any, Any, Any, Any]:
        """Channel `(B, C_in, 1, 1)`, filter `(B, C_out, 1, 1)`, spatial `(B, 1, 1, k, k)` and kernel `(B, K)`.

        Where a head is None, its attention is the number 1.
        """
        v = self.relu(self.bn(self.fc(self.avgpool(x))))
        spatial, kernel = self._sigmoid(self.spatial_fc, v), 1.0
        if self.spatial_fc is not None:
            spatial = spatial.reshape([0, 1, 1, self.kernel_size, self.kernel_size])
        if self.kernel_fc is not None:
            kernel = functional.softmax(self.kernel_fc(v).flatten(1) / self.temperature, axis=-1)
        return self._sigmoid(self.channel_fc, v), self._sigmoid(self.filter_fc, v), spatial, kernel

    def _sigmoid(self, head: Any, v: Any) -> Any:
        return 1.0 if head is None else functional.sigmoid(head(v) / self.temperature)


class ODConv2D(PerSampleConv):
    """`y_b = filter_b · conv(channel_b · x_b, spatial_b · Σ_k kernel_bk W_k)`, without bias.

    Source: Li et al., ICLR 2022, and its official repository. Kernels are `weight (K, C_out, C_in / groups, k, k)`.
    A single 1×1 expert has no kernel per sample: it is a plain convolution between the two scalings.
    """

    def __init__(  # noqa: PLR0913 - the official signature, which its users know
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        reduction: float = 0.0625,
        kernel_num: int = 4,
    ) -> None:
        super().__init__()
        self.in_planes, self.out_planes, self.kernel_size = in_planes, out_planes, kernel_size
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.kernel_num = kernel_num
        self.attention = ODAttention(in_planes, out_planes, kernel_size, groups, reduction, kernel_num)
        shape = [kernel_num, out_planes, in_planes // groups, kernel_size, kernel_size]
        self.weight = self.create_parameter(shape, default_initializer=_kaiming_normal(out_planes * kernel_size**2))

    @property
    def plain(self) -> bool:
        """Whether it has no kernel per sample."""
        return bool(self.kernel_size == 1 and self.kernel_num == 1)

    @property
    def forms(self) -> tuple[str, ...]:
        return ("grouped",) if self.plain else super().forms

    def forward(self, x: Any) -> Any:
        """`(B, C_out, H', W')` of `(B, C_in, H, W)`."""
        channel, filters, spatial, kernel = self.attention(x)
        scaled = x * channel
        if self.plain:
            y = functional.conv2d(scaled, self.weight[0], None, self.stride, self.padding, self.dilation, self.groups)
        else:
            y = conv_per_sample(self, scaled, self._kernels(spatial, kernel))
        return y * filters

    def _kernels(self, spatial: Any, kernel: Any) -> Any:
        """`spatial_b · Σ_k kernel_bk W_k`: `(B, C_out, C_in / groups, k, k)`."""
        mixed = self.weight if self.kernel_num == 1 else paddle.matmul(kernel, self.weight.flatten(1))
        if self.attention.spatial_fc is not None:
            # Paddle's product of five axes took 1.3 to 2.5 times as long as that of three on a CPU.
            mixed = mixed.reshape([0, -1, self.kernel_size**2]) * spatial.reshape([0, 1, -1])
        return mixed.reshape([-1, *self.weight.shape[1:]])


def _kaiming_normal(fan_out: int) -> Any:
    """The initial values of the official code: normal, for a ReLU, by the size of the output."""
    return nn.initializer.Normal(0.0, (2.0 / fan_out) ** 0.5)


def _conv1x1(channels_in: int, channels_out: int, bias_attr: bool | None = None) -> Any:
    return nn.Conv2D(channels_in, channels_out, 1, weight_attr=_kaiming_normal(channels_out), bias_attr=bias_attr)


@dataclass(frozen=True)
class Head:
    """One attention before its sigmoid or softmax: `weight · v + bias`.

    Attributes:
        weight: `(n, h)`.
        bias: `(n,)`.
    """

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class OdConvParameters(Experts):
    """An ODConv layer: experts, the trunk `v = relu(norm(fc · GAP x))`, and the heads that are not skipped.

    Attributes:
        fc: `(h, C_in)`.
        norm: The trunk's batch norm: weight, bias, mean and variance `(h,)`, and its epsilon.
        channel: Over the inputs.
        filters: Over the outputs; None in a depthwise layer.
        spatial: Over the taps; None of a 1×1 kernel.
        kernel: Over the experts; None of a single one.
        temperature: T.
    """

    fc: np.ndarray
    norm: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]
    channel: Head
    filters: Head | None
    spatial: Head | None
    kernel: Head | None
    temperature: float


def read_odconv(layer: Any) -> OdConvParameters:
    """The parameters of an `ODConv2D`. Raises LayerUnreadable."""
    name, attention = type(layer).__name__, attribute(layer, "attention")
    weight = check_kernels(array_of(layer, "weight"), name)
    norm = attribute(attention, "bn", name)
    arrays = [array_of(norm, part) for part in ("weight", "bias", "_mean", "_variance")]
    heads = {part: _head(attention, f"{part}_fc", name) for part in ("channel", "filter", "spatial", "kernel")}
    if heads["channel"] is None:
        raise LayerUnreadable(name, "its channel_fc is None: only the other heads can be skipped")
    parameters = OdConvParameters(
        weight=weight,
        bias=None,
        geometry=read_geometry(layer, weight.shape[3:]),
        fc=matrix_of(attribute(attention, "fc", name), name)[0],
        norm=(arrays[0], arrays[1], arrays[2], arrays[3], float(norm._epsilon)),
        channel=heads["channel"],
        filters=heads["filter"],
        spatial=heads["spatial"],
        kernel=heads["kernel"],
        temperature=temperature_of(attention, name),
    )
    check_experts(parameters, name)
    _check_heads(parameters, name)
    return parameters


def _head(attention: Any, name: str, owner: str) -> Head | None:
    conv = attribute(attention, name, owner)
    return None if conv is None else Head(*matrix_of(conv, owner))


def _check_heads(parameters: OdConvParameters, name: str) -> None:
    """Raises LayerUnreadable where a head does not fit the kernels, or is skipped where it matters."""
    taps = int(parameters.weight[0, 0, 0].size)
    wanted = {
        "channel_fc": (parameters.channel, parameters.channels_in, False),
        "filter_fc": (parameters.filters, parameters.channels_out, parameters.geometry.groups > 1),
        "spatial_fc": (parameters.spatial, taps, taps == 1),
        "kernel_fc": (parameters.kernel, parameters.experts, parameters.experts == 1),
    }
    for head, (found, outputs, may_skip) in wanted.items():
        if found is None and not may_skip:
            raise LayerUnreadable(name, f"its {head} is None, where its weight needs {outputs} outputs")
        if found is not None and found.weight.shape != (outputs, len(parameters.fc)):
            shape = [outputs, len(parameters.fc)]
            reason = f"its {head} has shape {list(found.weight.shape)}, where {shape} fits its weight"
            raise LayerUnreadable(name, reason)


def _set_temperature(layer: Any, temperature: float) -> None:
    layer.attention.temperature = temperature


def _scores(layer: Any) -> tuple[Scores, ...]:
    attention = layer.attention
    sigmoids = (attention.channel_fc, attention.filter_fc, attention.spatial_fc)
    heads = [Scores(head, 0.5, 0.3) for head in sigmoids if head is not None]
    if attention.kernel_fc is not None:
        heads.append(Scores(attention.kernel_fc, 1.0, competing=True))
    return tuple(heads)


def _attention(layer: Any, x: Any) -> tuple[Any, ...]:
    """Channel `(B, C_in)`, filter `(B, C_out)`, spatial `(B, taps)` and kernel `(B, K)`; ones where skipped."""
    widths = (layer.in_planes, layer.out_planes, layer.kernel_size**2, layer.kernel_num)
    found = layer.attention(x)
    return tuple(
        paddle.ones([len(x), width], x.dtype) if isinstance(attention, float) else attention.flatten(1)
        for attention, width in zip(found, widths, strict=True)
    )


ODCONV = LayerAdapter("odconv", read_odconv, _scores, _set_temperature, attention=_attention)
"""Omni-dimensional dynamic convolution."""
