"""MobileNetV3-Small with a free choice of convolutions.

Source: Howard et al., "Searching for MobileNetV3", ICCV 2019, table 2. Keys are torchvision's (`features.0.0.weight`,
`features.1.block.0.0.weight`, `features.1.block.1.fc1.weight`, `features.12.0.weight`, `classifier.3.weight` …).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dyx.nn.framework import Layer, nn
from dyx.nn.se import SqueezeExcite
from dyx.zoo.mobilenetv2 import round8
from dyx.zoo.spot import BlockMaker, ConvMaker, Spot, plain_conv


class Setting(NamedTuple):
    """A row of the paper's table 2: a block's kernel, its widths, squeeze and excitation, hard swish, stride."""

    kernel: int
    expanded: int
    channels: int
    excites: bool
    hardswish: bool
    stride: int


SETTINGS = (
    Setting(3, 16, 16, True, False, 2),
    Setting(3, 72, 24, False, False, 2),
    Setting(3, 88, 24, False, False, 1),
    Setting(5, 96, 40, True, True, 2),
    Setting(5, 240, 40, True, True, 1),
    Setting(5, 240, 40, True, True, 1),
    Setting(5, 120, 48, True, True, 1),
    Setting(5, 144, 48, True, True, 1),
    Setting(5, 288, 96, True, True, 2),
    Setting(5, 576, 96, True, True, 1),
    Setting(5, 576, 96, True, True, 1),
)
STEM_CHANNELS = 16
LAST_CHANNELS = 576
HIDDEN = 1024


class InvertedResidual(Layer):
    """Expand by a 1×1 convolution, filter depthwise, excite, project back; the input is added where shapes agree.

    Args:
        make: Makes the block's convolutions.
        channels_in: Of the input.
        setting: The block's row of the table. Where it expands to no more than the input, the first one is left out.
    """

    def __init__(self, make: BlockMaker, channels_in: int, setting: Setting) -> None:
        super().__init__()
        wide, kernel, activation = setting.expanded, setting.kernel, nn.Hardswish if setting.hardswish else nn.ReLU
        layers = []
        if wide != channels_in:
            layers.append(_normed(make("expand", channels_in, wide, 1), wide, activation()))
        depthwise = make("depthwise", wide, wide, kernel, stride=setting.stride, padding=kernel // 2, groups=wide)
        layers.append(_normed(depthwise, wide, activation()))
        if setting.excites:
            layers.append(SqueezeExcite(wide, round8(wide / 4)))
        layers.append(_normed(make("project", wide, setting.channels, 1), setting.channels))
        self.block = nn.Sequential(*layers)
        self.adds_input = setting.stride == 1 and channels_in == setting.channels

    def forward(self, x: Any) -> Any:
        """`(B, channels, H / stride, W / stride)` of `(B, channels_in, H, W)`."""
        y = self.block(x)
        return x + y if self.adds_input else y


def _normed(conv: Any, channels: int, *activation: Any) -> Any:
    # Of this paper: statistics that move by .01 per step, and a wide epsilon.
    return nn.Sequential(conv, nn.BatchNorm2D(channels, momentum=0.99, epsilon=1e-3), *activation)


class MobileNetV3Small(Layer):
    """The network of the paper's table 2, of width 1.

    Args:
        conv: Makes every convolution but those of squeeze and excitation. A spot's stage is the index in SETTINGS.
        classes: How many logits.
        hidden: Channels between the classifier's two layers.
    """

    def __init__(self, conv: ConvMaker = plain_conv, classes: int = 1000, hidden: int = HIDDEN) -> None:
        super().__init__()
        channels = STEM_CHANNELS
        stem = conv(Spot(0, 0, "stem"), 3, channels, 3, stride=2, padding=1)
        layers = [_normed(stem, channels, nn.Hardswish())]
        for stage, setting in enumerate(SETTINGS):
            layers.append(InvertedResidual(BlockMaker(conv, stage, 0), channels, setting))
            channels = setting.channels
        last = conv(Spot(len(SETTINGS) - 1, 0, "last"), channels, LAST_CHANNELS, 1)
        self.features = nn.Sequential(*layers, _normed(last, LAST_CHANNELS, nn.Hardswish()))
        self.avgpool = nn.AdaptiveAvgPool2D(1)
        self.classifier = nn.Sequential(
            *(nn.Linear(LAST_CHANNELS, hidden), nn.Hardswish(), nn.Dropout(0.2)),
            nn.Linear(hidden, classes),
        )

    def forward(self, image: Any) -> Any:
        """Logits `(B, classes)` of images `(B, 3, H, W)`."""
        return self.classifier(self.avgpool(self.features(image)).flatten(1))


def mobilenetv3_small(classes: int = 1000) -> MobileNetV3Small:
    """Plain MobileNetV3-Small: 2,542,856 trainable parameters."""
    return MobileNetV3Small(classes=classes)
