"""MobileNetV2 at any width, with a free choice of convolutions and of the classifier's linear layer.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018. Keys are those of
torchvision and of ODConv's and KernelWarehouse's official code (`features.0.0.weight`, `features.1.conv.0.0.weight`,
`features.18.0.weight`, `classifier.1.weight` …).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dyx.nn.framework import Layer, nn
from dyx.zoo.spot import BlockMaker, ConvMaker, LinearMaker, Spot, plain_conv, plain_linear


class Setting(NamedTuple):
    """A row of the paper's table 2: how wide its blocks expand, their output channels, how many, the first's stride."""

    expansion: int
    channels: int
    depth: int
    stride: int


SETTINGS = (
    Setting(1, 16, 1, 1),
    Setting(6, 24, 2, 2),
    Setting(6, 32, 3, 2),
    Setting(6, 64, 4, 2),
    Setting(6, 96, 3, 1),
    Setting(6, 160, 3, 2),
    Setting(6, 320, 1, 1),
)
STEM_CHANNELS = 32
LAST_CHANNELS = 1280


def round8(channels: float) -> int:
    """The multiple of 8 next to a number of channels, halves up, but never below nine tenths of it.

    Source: the rule of the paper's own code, which all its ports share.
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


class InvertedResidual(Layer):
    """Expand by a 1×1 convolution, filter depthwise, project back; the input is added where shapes agree.

    Args:
        make: Makes the block's convolutions.
        channels_in: Of the input.
        channels_out: Of the output.
        stride: Of the depthwise convolution.
        expansion: Width of the depthwise convolution in terms of the input; 1 leaves the first convolution out.
    """

    def __init__(self, make: BlockMaker, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        layers = []
        if expansion != 1:
            layers.append(_with_relu6(make("expand", channels_in, wide, 1), wide))
        depthwise = make("depthwise", wide, wide, 3, stride=stride, padding=1, groups=wide)
        layers.append(_with_relu6(depthwise, wide))
        project = make("project", wide, channels_out, 1)
        self.conv = nn.Sequential(*layers, project, nn.BatchNorm2D(channels_out))
        self.adds_input = stride == 1 and channels_in == channels_out

    def forward(self, x: Any) -> Any:
        """`(B, channels_out, H / stride, W / stride)` of `(B, channels_in, H, W)`."""
        y = self.conv(x)
        return x + y if self.adds_input else y


def _with_relu6(conv: Any, channels: int) -> Any:
    return nn.Sequential(conv, nn.BatchNorm2D(channels), nn.ReLU6())


class MobileNetV2(Layer):
    """The network of the paper's table 2.

    Args:
        width: Multiplies every number of channels but the last one's, which it can only raise.
        conv: Makes every convolution. A spot's stage is the index in SETTINGS.
        classes: How many logits.
        linear: Makes the classifier's linear layer.
        dropout: Its rate before the classifier. None leaves it out: the linear layer is `classifier` itself then
            and not `classifier.1`, as in KernelWarehouse's 1× and 4× networks.
    """

    def __init__(
        self,
        width: float = 1.0,
        conv: ConvMaker = plain_conv,
        classes: int = 1000,
        linear: LinearMaker = plain_linear,
        dropout: float | None = 0.2,
    ) -> None:
        super().__init__()
        channels, last = round8(STEM_CHANNELS * width), round8(LAST_CHANNELS * max(1.0, width))
        layers = [_with_relu6(conv(Spot(0, 0, "stem"), 3, channels, 3, stride=2, padding=1), channels)]
        for stage, setting in enumerate(SETTINGS):
            channels_out = round8(setting.channels * width)
            for index in range(setting.depth):
                stride = setting.stride if index == 0 else 1
                make = BlockMaker(conv, stage, index)
                layers.append(InvertedResidual(make, channels, channels_out, stride, setting.expansion))
                channels = channels_out
        end = len(SETTINGS) - 1
        layers.append(_with_relu6(conv(Spot(end, 0, "last"), channels, last, 1), last))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2D(1)
        classifier = linear(Spot(end, 0, "classifier"), last, classes)
        self.classifier = classifier if dropout is None else nn.Sequential(nn.Dropout(dropout), classifier)

    def forward(self, image: Any) -> Any:
        """Logits `(B, classes)` of images `(B, 3, H, W)`."""
        return self.classifier(self.avgpool(self.features(image)).flatten(1))


def mobilenetv2(width: float = 1.0, classes: int = 1000) -> MobileNetV2:
    """Plain MobileNetV2: 3,504,872 trainable parameters at width 1, 1,968,680 at width 0.5."""
    return MobileNetV2(width, classes=classes)
