"""Pictures and their classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dyx.preprocess import open_picture

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


@dataclass(frozen=True)
class ImageSet:
    """Labelled pictures.

    Attributes:
        pictures: uint8 `(N, H, W, 3)`, or the paths of N files, which are opened when asked for.
        classes: int64 `(N,)`, from 0 up.
    """

    pictures: np.ndarray | tuple[Path, ...]
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    def picture(self, index: int) -> Image:
        """One picture in RGB. Raises ImageUnreadable."""
        return open_picture(self.pictures[index]).convert("RGB")


@dataclass(frozen=True)
class ImageData:
    """A data set: pictures to train on, and others that training never sees.

    Attributes:
        name: As the user gave it.
        labels: One per class.
        train: To train on.
        held_out: To measure on.
        notes: What the user should hear about it.
    """

    name: str
    labels: tuple[str, ...]
    train: ImageSet
    held_out: ImageSet
    notes: tuple[str, ...] = ()
