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

    @property
    def pads_to_same(self) -> bool:
        """Whether the padding is the word for as many outputs as inputs, but for the stride."""
        return isinstance(self.padding, str) and self.padding.upper() == "SAME"

    @property
    def gaps(self) -> tuple[int, ...]:
        """From one tap to the next: the dilation, which Paddle forgets where it pads to the same size."""
        return (1,) * len(self.kernel) if self.pads_to_same else self.dilation

    def convolve(self, x: Any, weight: Any, bias: Any = None) -> Any:
        """An ordinary convolution of `x (B, C, H, W)`."""
        padding = self.padding if isinstance(self.padding, str) else list(self.padding)
        # Gaps and no dilation: paddle2onnx aborts where it finds "SAME" and a dilation.
        return functional.conv2d(x, weight, bias, list(self.stride), padding, list(self.gaps), self.groups)


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
