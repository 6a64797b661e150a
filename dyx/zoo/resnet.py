"""ResNet-18 and ResNet-50 with a free choice of convolutions, and ResNet-18 for CIFAR-100, plain and with gates.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, in the form that torchvision and the
official code of ODConv and KernelWarehouse share: a bottleneck's stride is in its 3×3 convolution. Keys are theirs
(`conv1.weight`, `layer1.0.bn1.weight`, `layer2.0.downsample.0.weight`, `fc.weight` …).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from dyx.nn.framework import Layer, functional, nn
from dyx.nn.na import NA
from dyx.zoo.spot import BlockMaker, ConvMaker, Spot, plain_conv

CIFAR_CLASSES = 100


class BasicBlock(Layer):
    """Two 3×3 convolutions beside a shortcut.

    Args:
        make: Makes the block's convolutions.
        channels_in: Of the input.
        channels: Of both convolutions and of the output.
        stride: Of the first convolution and of the shortcut.
        gate: Makes a layer that stands after the second batch norm, before the addition.
    """

    def __init__(
        self, make: BlockMaker, channels_in: int, channels: int, stride: int, gate: Callable[[], Any] | None = None
    ) -> None:
        super().__init__()
        downsample = _downsample(make, channels_in, channels, stride)
        self.conv1 = make("conv1", channels_in, channels, 3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2D(channels)
        self.conv2 = make("conv2", channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2D(channels)
        self.gate = gate and gate()
        self.downsample = downsample
        self.channels_out = channels

    def forward(self, x: Any) -> Any:
        """`(B, channels, H / stride, W / stride)` of `(B, channels_in, H, W)`."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.gate is not None:
            y = self.gate(y)
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(y + shortcut)


class Bottleneck(Layer):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut; the last one has four times the channels.

    Args:
        make: Makes the block's convolutions.
        channels_in: Of the input.
        channels: Of the first two convolutions; the output has four times as many.
        stride: Of the 3×3 convolution and of the shortcut.
    """

    def __init__(self, make: BlockMaker, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.channels_out = 4 * channels
        downsample = _downsample(make, channels_in, self.channels_out, stride)
        self.conv1 = make("conv1", channels_in, channels, 1)
        self.bn1 = nn.BatchNorm2D(channels)
        self.conv2 = make("conv2", channels, channels, 3, stride=stride, padding=1)
        self.bn2 = nn.BatchNorm2D(channels)
        self.conv3 = make("conv3", channels, self.channels_out, 1)
        self.bn3 = nn.BatchNorm2D(self.channels_out)
        self.downsample = downsample

    def forward(self, x: Any) -> Any:
        """`(B, 4 · channels, H / stride, W / stride)` of `(B, channels_in, H, W)`."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(y + shortcut)


def _downsample(make: BlockMaker, channels_in: int, channels_out: int, stride: int) -> Any:
    """The shortcut where it changes shape, else None.

    A block makes it before its own convolutions and registers it after them, as the official networks do: shared
    kernels are reserved in the order of making and handed out in the order of registration.
    """
    if stride == 1 and channels_in == channels_out:
        return None
    conv = make("downsample", channels_in, channels_out, 1, stride=stride)
    return nn.Sequential(conv, nn.BatchNorm2D(channels_out))


class ResNet(Layer):
    """The skeleton: a 7×7 stem, four stages of residual blocks, a linear classifier.

    Args:
        block: Makes a block, which knows its `channels_out`, from (maker, channels in, channels, stride).
        depths: Blocks in each stage.
        conv: Makes every convolution.
        classes: How many logits.
    """

    def __init__(
        self,
        block: Callable[[BlockMaker, int, int, int], Any],
        depths: tuple[int, int, int, int],
        conv: ConvMaker = plain_conv,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.conv1 = conv(Spot(0, 0, "stem"), 3, 64, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2D(64)
        self.maxpool = nn.MaxPool2D(3, 2, 1)
        channels = 64
        for stage, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(BlockMaker(conv, stage, index), channels, 64 << stage, stride))
                channels = blocks[-1].channels_out
            self.add_sublayer(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2D(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, image: Any) -> Any:
        """Logits `(B, classes)` of images `(B, 3, H, W)`."""
        x = self.maxpool(functional.relu(self.bn1(self.conv1(image))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def resnet18(conv: ConvMaker = plain_conv, classes: int = 1000, gate: Callable[[], Any] | None = None) -> ResNet:
    """ResNet-18; plain with 1000 classes it has 11,689,512 trainable parameters."""
    return ResNet(partial(BasicBlock, gate=gate), (2, 2, 2, 2), conv, classes)


def resnet50(conv: ConvMaker = plain_conv, classes: int = 1000) -> ResNet:
    """ResNet-50; plain with 1000 classes it has 25,557,032 trainable parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), conv, classes)


def resnet18_cifar(classes: int = CIFAR_CLASSES) -> ResNet:
    """ResNet-18 with 100 classes, the baseline of ResNet-18-NA: 11,237,412 parameters, running statistics included."""
    return resnet18(classes=classes)


def resnet18_na(classes: int = CIFAR_CLASSES) -> ResNet:
    """ResNet-18 with 100 classes and an NA gate in each of its eight blocks: 11,237,428 parameters."""
    return resnet18(classes=classes, gate=NA)
