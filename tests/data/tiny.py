"""A network that trains in seconds, as a user would have it in a file: dynamic, with batch norm and dropout."""

from __future__ import annotations

from typing import Any

from paddle import nn

from dyx.nn.dyconv import DYConv2D


class Tiny(nn.Layer):
    """Two convolutions, the second one dynamic, for pictures of 16 pixels and ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2D(3, 8, 3, stride=2, padding=1), nn.BatchNorm2D(8), nn.ReLU()),
            *(DYConv2D(8, 16, 3, stride=2, padding=1, num_experts=2), nn.BatchNorm2D(16), nn.ReLU()),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(16 * 16, 10))

    def forward(self, image: Any) -> Any:
        """Logits `(B, 10)` of images `(B, 3, 16, 16)`."""
        return self.classifier(self.features(image).flatten(1))
