"""Efficient channel attention: a channel's gate depends on the means of its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dyx.errors import LayerUnreadable
from dyx.nn.framework import Layer, functional, nn, paddle
from dyx.nn.gate import GateParameters, gate_adapter
from dyx.nn.reading import array_of, attribute

if TYPE_CHECKING:
    import numpy as np


class ECA(Layer):
    """`y = x · sigmoid(conv1d_k(GAP x))`, the convolution running over the channels.

    Source: Wang et al., "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", CVPR 2020, in
    the articles' form: zero padding, no bias; k = 3 for 48 and 128 channels, 5 for 192.

    Args:
        channels: Channels C.
        k_size: Channels that a gate depends on, k; odd.
    """

    def __init__(self, channels: int, k_size: int = 3) -> None:
        super().__init__()
        self.channels, self.k_size = channels, k_size
        self.avgpool = nn.AdaptiveAvgPool2D(1)
        self.conv = nn.Conv1D(1, 1, k_size, padding=(k_size - 1) // 2, bias_attr=False)

    def gate(self, x: Any) -> Any:
        """Factors `(B, C, 1, 1)` in (0, 1)."""
        means = self.avgpool(x).reshape([0, 1, self.channels])
        return functional.sigmoid(self.conv(means)).reshape([0, self.channels, 1, 1])

    def forward(self, x: Any) -> Any:
        """`(B, C, H, W)` of the same shape."""
        return x * self.gate(x)


@dataclass(frozen=True)
class EcaParameters(GateParameters):
    """The gate `sigmoid(conv1d(GAP x))`, the convolution running over the channels with zeros at the ends.

    Attributes:
        kernel: `(k,)`, k odd.
    """

    kernel: np.ndarray

    def matrix(self, channels: int) -> np.ndarray:
        """The convolution over C channels as a banded matrix `(C, C)`."""
        import numpy as np

        reach, matrix = len(self.kernel) // 2, np.zeros((channels, channels))
        for at, tap in enumerate(self.kernel):
            matrix += tap * np.eye(channels, k=at - reach)
        return matrix


def read_eca(layer: Any) -> EcaParameters:
    """The parameters of an `ECA`: `conv` is a Conv1D from one channel to one, without bias. Raises LayerUnreadable."""
    name, conv = type(layer).__name__, attribute(layer, "conv")
    if not isinstance(conv, nn.Conv1D):
        raise LayerUnreadable(name, f"its conv is a {type(conv).__name__}, not a Conv1D")
    weight = array_of(conv, "weight")
    if weight.shape[:2] != (1, 1) or weight.shape[2] % 2 == 0:
        raise LayerUnreadable(name, f"its conv has a weight {list(weight.shape)}, not (1, 1, k) with k odd")
    if conv.bias is not None:
        raise LayerUnreadable(name, "its conv has a bias")
    parameters = EcaParameters(weight[0, 0])
    if not _is_matrix(conv, parameters):
        raise LayerUnreadable(
            name, f"its conv, {conv.extra_repr()}, does not give a score per channel, zeros at the ends"
        )
    return parameters


def _is_matrix(conv: Any, parameters: EcaParameters) -> bool:
    """Whether a convolution does what its kernel says, whatever its stride, padding and dilation are called."""
    import numpy as np

    channels = 2 * len(parameters.kernel) + 1
    with paddle.no_grad():
        made = conv(paddle.eye(channels, dtype=conv.weight.dtype).unsqueeze(1)).numpy()
    wanted = parameters.matrix(channels).T[:, None]
    return made.shape == wanted.shape and bool(np.allclose(made, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max()))


def _factors(layer: Any, x: Any) -> Any:
    means = x.mean([2, 3]).unsqueeze(1)
    return functional.sigmoid(layer.conv(means)).squeeze(1)


ECA_GATE = gate_adapter(read_eca, _factors)
"""Efficient channel attention."""
