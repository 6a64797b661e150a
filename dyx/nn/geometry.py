"""How a convolution walks, and how that is read from a layer's attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dyx.errors import LayerUnreadable
from dyx.nn.framework import functional
from dyx.nn.reading import attribute


@dataclass(frozen=True)
class Geometry:
    """The walk of a convolution.

    Attributes:
        kernel: Its spatial size.
        stride: One number per spatial axis.
        padding: One number per spatial axis, or a word that Paddle knows ("SAME", "VALID").
        dilation: One number per spatial axis.
        groups: Groups of the convolution.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int

    @property
    def reach(self) -> int:
        """The side of the smallest map that the dilated kernel covers."""
        return max(step * (size - 1) + 1 for step, size in zip(self.dilation, self.kernel, strict=True))

    def convolve(self, x: Any, weight: Any, bias: Any = None) -> Any:
        """An ordinary convolution of `x (B, C, H, W)`."""
        word = isinstance(self.padding, str)
        padding = self.padding if word else list(self.padding)
        # Paddle dilates nothing that is padded to the same size, and paddle2onnx aborts where it finds both.
        dilation = [1] * len(self.kernel) if word and str(padding).upper() == "SAME" else list(self.dilation)
        return functional.conv2d(x, weight, bias, list(self.stride), padding, dilation, self.groups)


def read_geometry(layer: Any, kernel: tuple[int, ...]) -> Geometry:
    """The walk of a layer that keeps stride, padding, dilation and groups as attributes. Raises LayerUnreadable."""
    axes = len(kernel)
    return Geometry(
        kernel=kernel,
        stride=per_axis(layer, "stride", axes),
        padding=layer.padding if isinstance(attribute(layer, "padding"), str) else per_axis(layer, "padding", axes),
        dilation=per_axis(layer, "dilation", axes),
        groups=int(attribute(layer, "groups")),
    )


def pair(value: Any) -> tuple[int, int]:
    """One number for both axes, or one each, as Paddle's 2-D layers keep them."""
    first, second = (value, value) if isinstance(value, int) else value
    return first, second


def per_axis(layer: Any, name: str, axes: int) -> tuple[int, ...]:
    """A geometry attribute as one number per spatial axis. Raises LayerUnreadable."""
    value = attribute(layer, name)
    numbers = (value,) * axes if isinstance(value, int) else value
    if not isinstance(numbers, tuple | list) or len(numbers) != axes or not all(isinstance(n, int) for n in numbers):
        raise LayerUnreadable(type(layer).__name__, f"its {name!r} is {value!r}, not a number or {axes} numbers")
    return tuple(numbers)
