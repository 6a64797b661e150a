"""What it costs to convolve each channel of each sample with a kernel of its own, whatever the kernel comes from."""

from __future__ import annotations

from math import prod

from dyx.exporter.folded.depthwise import in_bands, row_split
from dyx.exporter.rule import Cost
from dyx.nn.geometry import Geometry


def depthwise_cost(geometry: Geometry, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> Cost:
    """Of what `depthwise_per_sample` builds, per image.

    Args:
        geometry: The whole walk.
        input_shape: `(C, H, W)`.
        output_shape: `(C, H', W')`.
    """
    cost = _of_bands if in_bands(input_shape[1:]) else _of_copies
    return cost(geometry, input_shape, output_shape)


def _of_bands(geometry: Geometry, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> Cost:
    (channels, lines, width), taps = input_shape, prod(geometry.kernel)
    rows = channels * output_shape[1] * geometry.kernel[1]
    floats = prod(input_shape) + 2 * rows * (lines + width) + prod(output_shape)
    return Cost.of_floats(rows * (taps * lines + lines * width + width * output_shape[2]), floats)


def _of_copies(geometry: Geometry, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> Cost:
    rows, walk = row_split(geometry)
    columns = prod(walk.kernel)
    lines = output_shape[1] if rows == 1 else input_shape[1] + 2 * int(walk.padding[0])
    points = output_shape[0] * lines * output_shape[2]
    sums = 0 if rows == 1 else 2 * rows * points
    floats = prod(input_shape) + 2 * columns * points + sums + prod(output_shape)
    return Cost.of_floats((columns + rows) * columns * points, floats, depthwise_macs=columns * columns * points)
