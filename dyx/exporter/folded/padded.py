"""A convolution over a map that has its zeros already."""

from __future__ import annotations

from typing import Any

import numpy as np

from dyx.exporter.folded.constants import StaticConv
from dyx.nn.framework import paddle
from dyx.nn.geometry import Geometry


class PaddedMapConv(StaticConv):
    """An ordinary convolution over a map with columns of zeros at both sides.

    No padding operator puts them there: onnxruntime and OpenVINO take one back into the convolution.

    Args:
        weight: `(C_out, C_in, h, w)`.
        bias: `(C_out,)` or None.
        geometry: How it walks over the map and those zeros.
        columns: How many columns of zeros there are at each side, no more than the map has.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, columns: int) -> None:
        super().__init__(weight, bias, geometry)
        self.columns = columns

    def forward(self, x: Any, _attention: Any = None) -> Any:
        """`(B, C_out, H', W')`; an attention that the network hands over beside x is not looked at."""
        zeros = paddle.zeros_like(x[..., : self.columns])
        return super().forward(paddle.concat([zeros, x, zeros], axis=-1))
