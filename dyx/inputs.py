"""Inputs that exercise a network: varied as real images are, and extreme as they may become."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

_POOL = {"normal": 14, "uniform": 8, "textured": 22, "constant": 4, "large": 7, "saturating": 8, "zeros": 1}
"""Kind of input → how many of it stand in the pool."""
_EXTREMES = ("large", "saturating")
_PIXEL_POOL = {"noise": 8, "contrast": 8, "textured": 24, "gradient": 14, "constant": 10}
"""The same for inputs that are pixels."""


def input_pool(
    shape: tuple[int, ...], seed: int, share: int = 1, *, extremes: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """One mixed pool of inputs that serves every batch size.

    Args:
        shape: Of one input, `(channels, height, width)`.
        seed: Of what is drawn.
        share: Every kind of input is thinned out to one in so many, and at least one.
        extremes: Whether inputs of many times the usual size are among them.

    Returns:
        float32 `(64, *shape)`, or as many as the share leaves, and the kind of each row.
    """
    counts = {kind: -(-count // share) for kind, count in _POOL.items() if extremes or kind not in _EXTREMES}
    random = np.random.default_rng(seed)
    makers: dict[str, Callable[[int], np.ndarray]] = {
        "normal": lambda n: random.standard_normal((n, *shape)),
        "uniform": lambda n: random.uniform(-1, 1, (n, *shape)),
        "textured": lambda n: varied_images(shape, n, random),
        "constant": lambda n: np.broadcast_to(random.uniform(-1, 1, (n, shape[0], 1, 1)), (n, *shape)),
        "large": lambda n: 100 * random.standard_normal((n, *shape)),
        "saturating": lambda n: 30 * varied_images(shape, n, random),
        "zeros": lambda n: np.zeros((n, *shape)),
    }
    images, kinds = _mixed(makers, counts, random)
    return images.astype(np.float32), kinds


def pixel_pool(shape: tuple[int, ...], seed: int, share: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The same for a network that takes pixels: noise and pictures, the extremes of each value among them.

    Args:
        shape: Of one input, `(channels, height, width)`.
        seed: Of what is drawn.
        share: Every kind of input is thinned out to one in so many, and at least one.

    Returns:
        uint8 `(64, *shape)`, or as many as the share leaves, and the kind of each row.
    """
    counts = {kind: -(-count // share) for kind, count in _PIXEL_POOL.items()}
    random = np.random.default_rng(seed)
    makers: dict[str, Callable[[int], np.ndarray]] = {
        "noise": lambda n: random.integers(0, 256, (n, *shape)),
        "contrast": lambda n: 255 * random.integers(0, 2, (n, *shape)),
        "textured": lambda n: 127.5 + 80 * varied_images(shape, n, random),
        "gradient": lambda n: _gradients(shape, n, random),
        "constant": lambda n: np.broadcast_to(_colours(shape[0], n, random)[:, :, None, None], (n, *shape)),
    }
    images, kinds = _mixed(makers, counts, random)
    return images.round().clip(0, 255).astype(np.uint8), kinds


def _mixed(
    makers: Mapping[str, Callable[[int], np.ndarray]], counts: Mapping[str, int], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """So many inputs of each kind and their kinds, mixed, so that every batch holds several kinds."""
    images = np.concatenate([makers[kind](count) for kind, count in counts.items()])
    kinds = np.repeat(list(counts), list(counts.values()))
    order = random.permutation(len(images))
    return images[order], kinds[order]


def _colours(channels: int, count: int, random: np.random.Generator) -> np.ndarray:
    """Black, white and any others, pixels `(count, channels)`."""
    extremes = np.repeat([[0], [255]], channels, axis=1)
    return np.concatenate([extremes, random.integers(0, 256, (count, channels))])[:count]


def _gradients(shape: tuple[int, ...], count: int, random: np.random.Generator) -> np.ndarray:
    """Pixels `(count, *shape)` that run from one value to another across the picture, in each channel its own way."""
    channels, height, width = shape
    low, down, right = random.uniform(-255, 255, (3, count, channels, 1, 1))
    ramps = down * np.linspace(0, 1, height)[:, None] + right * np.linspace(0, 1, width)
    return np.asarray(127.5 + low / 2 + ramps)


def varied_images(shape: tuple[int, ...], count: int, random: np.random.Generator) -> np.ndarray:
    """Inputs float32 `(count, *shape)` that differ in gain, offset and texture, as real images do."""
    channels, height, width = shape
    noise = random.standard_normal((count, channels, height, width))
    coarse = random.standard_normal((count, channels, -(-height // 16), -(-width // 16)))
    smooth = coarse.repeat(16, axis=2).repeat(16, axis=3)[:, :, :height, :width]
    gain = random.uniform(0.2, 2.0, (count, 1, 1, 1))
    offset = random.uniform(-0.5, 0.5, (count, channels, 1, 1))
    blend = random.uniform(0.0, 1.0, (count, 1, 1, 1))
    images: np.ndarray = (gain * (blend * noise + (1 - blend) * smooth) + offset).astype(np.float32)
    return images
