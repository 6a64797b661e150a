"""The 1,797 scans of handwritten digits that scikit-learn brings, 8×8 pixels in 17 grey levels."""

from __future__ import annotations

from typing import Any

import numpy as np

from dyx.datasets.images import ImageData, ImageSet
from dyx.errors import PackageMissing

_HELD_OUT = 360


def read_digits(_place: str = "") -> ImageData:
    """1,437 scans to train on and 360 held out, always the same ones. Raises PackageMissing."""
    scans = _load()
    grey = (scans.images / 16 * 255).astype(np.uint8)
    pictures, classes = grey[..., np.newaxis].repeat(3, axis=-1), scans.target.astype(np.int64)
    order = np.random.RandomState(0).permutation(len(classes))
    train, held_out = order[:-_HELD_OUT], order[-_HELD_OUT:]
    return ImageData(
        "digits",
        tuple(map(str, range(10))),
        ImageSet(pictures[train], classes[train]),
        ImageSet(pictures[held_out], classes[held_out]),
    )


def _load() -> Any:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise PackageMissing("scikit-learn", "train") from error
    return load_digits()
