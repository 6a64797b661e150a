"""Small networks that read their input in different ways, as users have them in a file, for pictures of 14 pixels."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn

from dyx.nn.dyconv import DYConv2D
from dyx.nn.dynamic_conv import DynamicConv2D


class _Net(nn.Layer):
    """A first layer, a dynamic convolution with batch norm, and a classifier of five classes."""

    def __init__(self, first: Any, channels: int = 8) -> None:
        super().__init__()
        self.first = first
        self.body = nn.Sequential(DYConv2D(channels, 8, 3, padding=1), nn.BatchNorm2D(8), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2D(2), nn.Flatten(), nn.Linear(32, 5))

    def forward(self, image: Any) -> Any:
        """Logits `(B, 5)` of images `(B, 3, 14, 14)`."""
        return self.head(self.body(self.first(image)))


class Padded(_Net):
    """A convolution that pads; rules may rewrite it with its batch norm."""

    def __init__(self) -> None:
        first = nn.Sequential(nn.Conv2D(3, 8, 3, padding=1, bias_attr=False), nn.BatchNorm2D(8), nn.ReLU())
        super().__init__(first)


class Unpadded(_Net):
    """A convolution that pads nothing and has no bias."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Conv2D(3, 8, 4, stride=2, bias_attr=False), nn.BatchNorm2D(8), nn.ReLU()))


class Dynamic(_Net):
    """A convolution that is dynamic."""

    def __init__(self) -> None:
        super().__init__(DynamicConv2D(3, 8, 3, padding=1))


class Shared(_Net):
    """A static convolution reads the input, and so does the network's own forward."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2D(3, 8, 3, padding=1), 11)

    def forward(self, image: Any) -> Any:
        """Logits `(B, 5)` of images `(B, 3, 14, 14)`."""
        return self.head(self.body(paddle.concat([self.first(image), image], axis=1)))
