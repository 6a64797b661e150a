"""The picture that preprocessing is timed on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dyx.errors import PackageMissing

PICTURE = (500, 375)
"""Width and height, as photographs of ImageNet have them."""
_QUALITY = 90
_COARSE = 25
_GRAIN = 6.0


def write_picture(file: Path) -> None:
    """Write a JPEG that is as much work as a photograph: soft seeded colours, with grain. Raises PackageMissing."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise PackageMissing("Pillow", "onnx") from error
    width, height = PICTURE
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // _COARSE, width // _COARSE, 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(coarse).resize(PICTURE, resample=Image.Resampling.BICUBIC), np.float32)
    pixels = np.clip(soft + rng.normal(0, _GRAIN, soft.shape), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, quality=_QUALITY)
