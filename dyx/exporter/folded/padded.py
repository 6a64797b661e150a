"""A convolution over a map that has its zeros already."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dyx.exporter.folded.constants import StaticConv
from dyx.nn.framework import paddle
from dyx.nn.geometry import Geometry


class PaddedMapConv(StaticConv):
    """An ordinary convolution that is given the zeros beside each line of its map, and pads none itself.

    No padding operator puts them there: onnxruntime and OpenVINO take one back into the convolution.

    Args:
        weight: `(C_out, C_in, h, w)`.
        bias: `(C_out,)` or None.
        geometry: How the convolution walks over the map without those zeros; its padding, in numbers, is no wider
            than the map.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry) -> None:
        lines, self.columns = geometry.padding
        super().__init__(weight, bias, replace(geometry, padding=(int(lines), 0)))

    def forward(self, x: Any, _attention: Any = None) -> Any:
        """`(B, C_out, H', W')`; an attention that the network hands over beside x is not looked at."""
        zeros = paddle.zeros_like(x[..., : self.columns])
        return super().forward(paddle.concat([zeros, x, zeros], axis=-1))
