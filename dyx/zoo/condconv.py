"""MobileNetV2 with conditionally parameterised convolutions.

Source: Yang et al., "CondConv: Conditionally Parameterized Convolutions for Efficient Inference", NeurIPS 2019, in the
form of d-li14's condconv.pytorch, keys included (`features.12.pw.weight`, `features.12.route.fc.weight`,
`classifier_route.fc.weight` …): its blocks have names of their own, unlike those in `mobilenetv2.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from dyx.nn.condconv import CondConv2D, CondRouting
from dyx.nn.framework import Layer, functional, nn
from dyx.zoo.mobilenetv2 import LAST_CHANNELS, SETTINGS, STEM_CHANNELS, round8

DYNAMIC_BLOCKS = 6
"""So many of the last blocks are dynamic."""


class InvertedResidual(Layer):
    """A MobileNetV2 block whose convolutions share one routing vector, computed from the block's input.

    Args:
        channels_in: Of the input.
        channels_out: Of the output.
        stride: Of the depthwise convolution.
        expansion: Width of the depthwise convolution in terms of the input; 1 leaves the first convolution out.
        experts: Kernels of each convolution, or None for a plain block.
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, expansion: int, experts: int | None = None
    ) -> None:
        super().__init__()
        wide = channels_in * expansion
        conv = partial(CondConv2D, bias=False, num_experts=experts) if experts else partial(nn.Conv2D, bias_attr=False)
        self.expands = expansion != 1
        if self.expands:
            self.pw, self.bn_pw = conv(channels_in, wide, 1), nn.BatchNorm2D(wide)
        self.dw = conv(wide, wide, 3, stride=stride, padding=1, groups=wide)
        self.bn_dw = nn.BatchNorm2D(wide)
        self.pw_linear, self.bn_pw_linear = conv(wide, channels_out, 1), nn.BatchNorm2D(channels_out)
        self.route = CondRouting(channels_in, experts) if experts else None
        self.adds_input = stride == 1 and channels_in == channels_out

    def forward(self, x: Any) -> Any:
        """`(B, channels_out, H / stride, W / stride)` of `(B, channels_in, H, W)`."""
        routing = () if self.route is None else (self.route(x),)
        y = x
        if self.expands:
            y = functional.relu6(self.bn_pw(self.pw(y, *routing)))
        y = functional.relu6(self.bn_dw(self.dw(y, *routing)))
        y = self.bn_pw_linear(self.pw_linear(y, *routing))
        return x + y if self.adds_input else y


class CondMobileNetV2(Layer):
    """MobileNetV2 whose last six blocks are dynamic, and whose classifier is: a 1×1 one with a routing of its own.

    Args:
        width: Multiplies every number of channels but the last one's, which it can only raise.
        experts: Kernels of each dynamic convolution.
        classes: How many logits.
    """

    def __init__(self, width: float = 1.0, experts: int = 8, classes: int = 1000) -> None:
        super().__init__()
        channels, last = round8(STEM_CHANNELS * width), round8(LAST_CHANNELS * max(1.0, width))
        layers = [_with_relu6(3, channels, 3, stride=2, padding=1)]
        first_dynamic = 1 + sum(setting.depth for setting in SETTINGS) - DYNAMIC_BLOCKS
        for setting in SETTINGS:
            channels_out = round8(setting.channels * width)
            for index in range(setting.depth):
                stride = setting.stride if index == 0 else 1
                mixed = experts if len(layers) >= first_dynamic else None
                layers.append(InvertedResidual(channels, channels_out, stride, setting.expansion, mixed))
                channels = channels_out
        self.features = nn.Sequential(*layers)
        self.conv = _with_relu6(channels, last, 1)
        self.avgpool = nn.AdaptiveAvgPool2D(1)
        self.classifier_route = CondRouting(last, experts)
        self.classifier = CondConv2D(last, classes, 1, bias=False, num_experts=experts)

    def forward(self, image: Any) -> Any:
        """Logits `(B, classes)` of images `(B, 3, H, W)`."""
        pooled = self.avgpool(self.conv(self.features(image)))
        return self.classifier(pooled, self.classifier_route(pooled)).flatten(1)


def _with_relu6(channels_in: int, channels_out: int, kernel: int, **geometry: Any) -> Any:
    conv = nn.Conv2D(channels_in, channels_out, kernel, bias_attr=False, **geometry)
    return nn.Sequential(conv, nn.BatchNorm2D(channels_out), nn.ReLU6())


def condconv_mobilenetv2(width: float = 1.0, experts: int = 8, classes: int = 1000) -> CondMobileNetV2:
    """MobileNetV2 with CondConv: 22,877,496 trainable parameters at width 1, 13,612,920 at width 0.5."""
    return CondMobileNetV2(width, experts, classes)
