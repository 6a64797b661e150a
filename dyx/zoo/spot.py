"""Where a convolution stands in a backbone, and who makes the layer that stands there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from dyx.nn.framework import nn


@dataclass(frozen=True)
class Spot:
    """Where a convolution stands in a backbone.

    Attributes:
        stage: ResNet and ConvNeXt: 0 … 3. MobileNets: the index of the block's setting, from 0; the stem has the
            first one's, the last convolution and the classifier the last one's.
        block: Inside the stage.
        role: What it does there. ResNet: stem, conv1, conv2, conv3, downsample. MobileNets: stem, expand, depthwise,
            project, last. ConvNeXt: stem, downsample, depthwise, expand, project. A classifier anywhere: classifier.
    """

    stage: int
    block: int
    role: str


class ConvMaker(Protocol):
    """Makes the convolution of a spot: plain, or any dynamic one."""

    def __call__(  # noqa: PLR0913 - a convolution's own arguments
        self,
        spot: Spot,
        channels_in: int,
        channels_out: int,
        kernel: int,
        /,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = False,
    ) -> Any:
        """A layer from `(B, channels_in, H, W)` to `(B, channels_out, H', W')`."""


@dataclass(frozen=True)
class BlockMaker:
    """Makes the convolutions of one block: a ConvMaker that is told the block once.

    Attributes:
        conv: Makes each convolution.
        stage: Of the block.
        block: Its index inside the stage.
    """

    conv: ConvMaker
    stage: int
    block: int

    def __call__(self, role: str, channels_in: int, channels_out: int, kernel: int, **geometry: Any) -> Any:
        """The block's convolution of a role; `geometry` is ConvMaker's stride, padding, groups and bias."""
        return self.conv(Spot(self.stage, self.block, role), channels_in, channels_out, kernel, **geometry)


class LinearMaker(Protocol):
    """Makes a classifier's linear layer."""

    def __call__(self, spot: Spot, channels_in: int, channels_out: int, /) -> Any:
        """A layer from `(B, channels_in)` to `(B, channels_out)`."""


def plain_conv(  # noqa: PLR0913 - ConvMaker's signature
    _spot: Spot,
    channels_in: int,
    channels_out: int,
    kernel: int,
    /,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    bias: bool = False,
) -> Any:
    """The ConvMaker of plain networks: a static convolution at every spot."""
    bias_attr = None if bias else False
    return nn.Conv2D(channels_in, channels_out, kernel, stride, padding, groups=groups, bias_attr=bias_attr)


def plain_linear(_spot: Spot, channels_in: int, channels_out: int) -> Any:
    """The LinearMaker of plain networks."""
    return nn.Linear(channels_in, channels_out)
