"""ConvNeXt with a free choice of convolutions.

Source: Liu et al., "A ConvNet for the 2020s", CVPR 2022, keys as in its official code
(`downsample_layers.0.0.weight`, `stages.0.0.dwconv.weight`, `head.weight` …). Point-wise layers are 1×1 convolutions
and the layer scale is `(1, C, 1, 1)`, as in KernelWarehouse's network; the plain official one has linear layers on
channels-last maps and `(C)` there: the same arithmetic and count.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from dyx.nn.framework import Layer, functional, nn
from dyx.zoo.spot import BlockMaker, ConvMaker, Spot, plain_conv

_EPSILON = 1e-6


class ChannelNorm(Layer):
    """Layer norm over the channels of each position, `weight` and `bias` `(C)`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = self.create_parameter([channels], default_initializer=nn.initializer.Constant(1.0))
        self.bias = self.create_parameter([channels], is_bias=True)
        self.channels = channels

    def forward(self, x: Any) -> Any:
        """`(B, C, H, W)` of `(B, C, H, W)`."""
        last = x.transpose([0, 2, 3, 1])
        normed = functional.layer_norm(last, [self.channels], self.weight, self.bias, _EPSILON)
        return normed.transpose([0, 3, 1, 2])


class Block(Layer):
    """Depthwise 7×7, channel norm, 1×1 to four times the channels, GELU, 1×1 back, scale, and the input added.

    Args:
        make: Makes the block's convolutions.
        channels: Of input and output.
    """

    def __init__(self, make: BlockMaker, channels: int) -> None:
        super().__init__()
        self.gamma = self.create_parameter([1, channels, 1, 1], default_initializer=nn.initializer.Constant(1e-6))
        self.dwconv = make("depthwise", channels, channels, 7, padding=3, groups=channels, bias=True)
        self.norm = ChannelNorm(channels)
        self.pwconv1 = make("expand", channels, 4 * channels, 1, bias=True)
        self.pwconv2 = make("project", 4 * channels, channels, 1, bias=True)

    def forward(self, x: Any) -> Any:
        """`(B, C, H, W)` of `(B, C, H, W)`."""
        y = functional.gelu(self.pwconv1(self.norm(self.dwconv(x))))
        return x + self.gamma * self.pwconv2(y)


class ConvNeXt(Layer):
    """Four stages of blocks, each behind a convolution that shrinks the map.

    Args:
        depths: Blocks in each stage.
        widths: Channels of each stage.
        conv: Makes every convolution. The convolution before stage s has the spot `(s, 0)`.
        classes: How many logits.
    """

    def __init__(
        self,
        depths: tuple[int, ...] = (3, 3, 9, 3),
        widths: tuple[int, ...] = (96, 192, 384, 768),
        conv: ConvMaker = plain_conv,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        stem = conv(Spot(0, 0, "stem"), 3, widths[0], 4, stride=4, bias=True)
        shrinkers = [nn.Sequential(stem, ChannelNorm(widths[0]))]
        for stage, (narrow, wide) in enumerate(pairwise(widths), start=1):
            shrink = conv(Spot(stage, 0, "downsample"), narrow, wide, 2, stride=2, bias=True)
            shrinkers.append(nn.Sequential(ChannelNorm(narrow), shrink))
        self.downsample_layers = nn.LayerList(shrinkers)
        self.stages = nn.LayerList(
            nn.Sequential(*(Block(BlockMaker(conv, stage, index), width) for index in range(depth)))
            for stage, (depth, width) in enumerate(zip(depths, widths, strict=True))
        )
        self.avgpool = nn.AdaptiveAvgPool2D(1)
        self.norm = nn.LayerNorm(widths[-1], _EPSILON)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, image: Any) -> Any:
        """Logits `(B, classes)` of images `(B, 3, H, W)`."""
        x = image
        for index, stage in enumerate(self.stages):
            x = stage(self.downsample_layers[index](x))
        return self.head(self.norm(self.avgpool(x).flatten(1)))


def convnext_tiny(conv: ConvMaker = plain_conv, classes: int = 1000) -> ConvNeXt:
    """ConvNeXt-T; plain with 1000 classes it has 28,589,128 trainable parameters."""
    return ConvNeXt(conv=conv, classes=classes)
