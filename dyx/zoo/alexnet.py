"""AlexNet for CIFAR-10 at 128 pixels: plain with batch norm, and with dynamic 3×3 convolutions.

Source: the articles on dynamic convolution in Paddle; state-dict keys are the sequential ones that their notebook
saves (`features.0.weight`, `features.8.routing.net.0.weight`, `classifier.6.bias` …).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dyx.nn.dyconv import DYConv2D
from dyx.nn.framework import Layer, nn

EXPERTS = 2


class AlexNet(Layer):
    """The skeleton: five convolutions, each with batch norm and ReLU, three max pools, three linear layers.

    Args:
        conv3x3: Builds each of the three 3×3 convolutions from (channels in, channels out).
        classes: How many logits.
    """

    def __init__(self, conv3x3: Callable[[int, int], Any], classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(nn.Conv2D(3, 48, 11, 4, 5), 48),
            nn.MaxPool2D(3, 2),
            *_block(nn.Conv2D(48, 128, 5, padding=2), 128),
            nn.MaxPool2D(3, 2),
            *_block(conv3x3(128, 192), 192),
            *_block(conv3x3(192, 192), 192),
            *_block(conv3x3(192, 128), 128),
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


def alexnet_bn() -> AlexNet:
    """AlexNet with batch norm, the baseline of AlexNet-DY: 7,526,794 parameters, running statistics included."""
    return AlexNet(lambda channels_in, channels_out: nn.Conv2D(channels_in, channels_out, 3, padding=1))


def alexnet_dy() -> AlexNet:
    """AlexNet whose three 3×3 convolutions are dynamic, two experts each: 8,324,368 parameters."""
    return AlexNet(
        lambda channels_in, channels_out: DYConv2D(channels_in, channels_out, 3, padding=1, num_experts=EXPERTS)
    )


def _block(conv: Any, channels: int) -> tuple[Any, Any, Any]:
    return conv, nn.BatchNorm2D(channels), nn.ReLU()
