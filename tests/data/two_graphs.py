"""A small network that is worth two graphs: its wide 3×3 convolutions are cheaper in a transform domain, if many share
the reading of the factors."""

from __future__ import annotations

from typing import Any

from paddle import nn

from dyx.nn.dyconv import DYConv2D


class TwoGraphs(nn.Layer):
    """A dynamic convolution and a static one, for pictures of 7 pixels and ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2D(3, 128, 1), nn.ReLU()),
            *(DYConv2D(128, 128, 3, padding=1, num_experts=2), nn.BatchNorm2D(128), nn.ReLU()),
            *(nn.Conv2D(128, 128, 3, padding=1), nn.ReLU()),
        )
        self.classifier = nn.Linear(128 * 49, 10)

    def forward(self, image: Any) -> Any:
        """Logits `(B, 10)` of images `(B, 3, 7, 7)`."""
        return self.classifier(self.features(image).flatten(1))
