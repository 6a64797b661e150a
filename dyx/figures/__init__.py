"""Pictures of training, parity and speed, drawn by matplotlib, without a display.

Text, axes and frames are drawn in one ink, which `as_svg` turns into the text colour of the page around the figure.
Words that come from outside are shown as they are: a dollar sign begins no formula.
"""

from __future__ import annotations

from dyx.figures.benchmark import (
    BatchLine,
    CallTimes,
    Speed,
    Track,
    drift,
    latencies,
    ratios,
    speeds,
    throughput,
    throughput_by_batch,
)
from dyx.figures.layers import LayerBar, layer_times
from dyx.figures.proof import ParityError, parity_errors
from dyx.figures.rendering import SUFFIXES, as_png, as_svg, check_drawable, save_figure
from dyx.figures.training import History, confusion, curve_panels, learning_curves, picture_grid

__all__ = [
    "SUFFIXES",
    "BatchLine",
    "CallTimes",
    "History",
    "LayerBar",
    "ParityError",
    "Speed",
    "Track",
    "as_png",
    "as_svg",
    "check_drawable",
    "confusion",
    "curve_panels",
    "drift",
    "latencies",
    "layer_times",
    "learning_curves",
    "parity_errors",
    "picture_grid",
    "ratios",
    "save_figure",
    "speeds",
    "throughput",
    "throughput_by_batch",
]
