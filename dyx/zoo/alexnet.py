"""AlexNet for CIFAR-10 at 128 pixels: one skeleton with batch norm, dynamic convolutions, gates, or nothing added.

Source: the articles on dynamic convolution, ECA and NA in Paddle; state-dict keys are the sequential ones that they
save: `features.0.weight`, `features.1.conv.weight`, `features.8.routing.net.0.weight`, `classifier.6.bias` …
Parameters are counted as `paddle.summary` counts them, running statistics included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dyx.nn.dyconv import DYConv2D
from dyx.nn.eca import ECA
from dyx.nn.framework import Layer, nn
from dyx.nn.na import NA, NANet

EXPERTS = 2
ECA_KERNEL = {48: 3, 128: 3, 192: 5}
"""Channels → k of the gate behind them."""


def _batch_norm(channels: int) -> Any:
    return nn.BatchNorm2D(channels)


def _conv3x3(channels_in: int, channels_out: int) -> Any:
    return nn.Conv2D(channels_in, channels_out, 3, padding=1)


class AlexNet(Layer):
    """The skeleton: five convolutions, each with something added and ReLU, three max pools, three linear layers.

    Args:
        added: Builds what stands between a convolution and its ReLU from the number of channels; None for nothing.
        conv3x3: Builds each of the three 3×3 convolutions from (channels in, channels out).
        classes: How many logits.
    """

    def __init__(
        self,
        added: Callable[[int], Any] | None,
        conv3x3: Callable[[int, int], Any] = _conv3x3,
        classes: int = 10,
    ) -> None:
        super().__init__()

        def block(conv: Any, channels: int) -> tuple[Any, ...]:
            return (conv, nn.ReLU()) if added is None else (conv, added(channels), nn.ReLU())

        self.features = nn.Sequential(
            *block(nn.Conv2D(3, 48, 11, 4, 5), 48),
            nn.MaxPool2D(3, 2),
            *block(nn.Conv2D(48, 128, 5, padding=2), 128),
            nn.MaxPool2D(3, 2),
            *block(conv3x3(128, 192), 192),
            *block(conv3x3(192, 192), 192),
            *block(conv3x3(192, 128), 128),
            nn.MaxPool2D(3, 2),
        )
        self.classifier = nn.Sequential(
            *(nn.Linear(128 * 3 * 3, 2048), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(2048, 2048), nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(2048, classes),
        )

    def forward(self, image: Any) -> Any:
        """Logits `(B, classes)` of images `(B, 3, 128, 128)`."""
        return self.classifier(self.features(image).flatten(1))


def alexnet(classes: int = 10) -> AlexNet:
    """AlexNet with nothing added, the baseline of ECA and NA: 7,524,042 parameters."""
    return AlexNet(None, classes=classes)


def alexnet_bn(classes: int = 10) -> AlexNet:
    """AlexNet with batch norm, the baseline of AlexNet-DY: 7,526,794 parameters."""
    return AlexNet(_batch_norm, classes=classes)


def alexnet_dy(classes: int = 10) -> AlexNet:
    """AlexNet with batch norm whose three 3×3 convolutions are dynamic, two experts each: 8,324,368 parameters."""
    return AlexNet(
        _batch_norm,
        lambda channels_in, channels_out: DYConv2D(channels_in, channels_out, 3, padding=1, num_experts=EXPERTS),
        classes,
    )


def alexnet_eca(classes: int = 10) -> AlexNet:
    """AlexNet with efficient channel attention, k = 3, 3, 5, 5, 3: 7,524,061 parameters."""
    return AlexNet(lambda channels: ECA(channels, ECA_KERNEL[channels]), classes=classes)


def alexnet_na(classes: int = 10) -> AlexNet:
    """AlexNet with the articles' normalised attention: 7,524,052 parameters."""
    return AlexNet(lambda _: NA(), classes=classes)


def alexnet_nanet(classes: int = 10) -> AlexNet:
    """AlexNet with the normalised attention of its authors: 7,524,052 parameters."""
    return AlexNet(lambda _: NANet(), classes=classes)
