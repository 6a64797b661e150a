"""What it costs to convolve each channel of each sample with a kernel of its own, whatever the kernel comes from."""

from __future__ import annotations

from math import prod

from dyx.exporter.folded.depthwise import in_bands, row_split
from dyx.exporter.rule import Cost, Refusal, Site, Target
from dyx.nn.geometry import Geometry

SCAN_FORM = "depthwise kernel per sample, a convolution in a Scan"
"""What `*/aggregate-scan` builds, in words."""


def is_depthwise(site: Site) -> bool:
    """Whether a convolution has as many groups as inputs and outputs, and more than one."""
    layer = site.layer
    return bool(1 < layer.geometry.groups == layer.channels_in == layer.channels_out)


def no_scan(site: Site, target: Target) -> Refusal | None:
    """A refusal of what is not convolved sample by sample: other kernels than depthwise ones are a matrix's product."""
    if not is_depthwise(site):
        groups, channels = site.layer.geometry.groups, site.layer.channels_in
        return Refusal(f"it convolves {channels} channels in {groups} group{'s' * (groups > 1)}, not each by itself")
    if "onnx" not in target.formats or target.backend == "paddle":
        return Refusal("it loops over samples by an operator of ONNX; Paddle's programs have none")
    return Refusal("a batch of one needs no loop over samples") if target.batch == 1 else None


def depthwise_cost(site: Site, *, scan: bool = False) -> Cost:
    """Of what `depthwise_per_sample` builds, per image; `scan`: a convolution of one sample after the other."""
    geometry, input_shape, output_shape = site.layer.geometry, site.input_shape, site.output_shape
    if scan:
        macs = prod(geometry.kernel) * prod(output_shape)
        # Each sample is taken out of the map, and its answer put into that of all.
        return Cost.of_floats(macs, 2 * (prod(input_shape) + prod(output_shape)), scanned_macs=macs)
    cost = _of_bands if in_bands(geometry, input_shape[1:]) else _of_copies
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
