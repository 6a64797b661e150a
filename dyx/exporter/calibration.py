"""Calibration: images of the user's own, and what a network's attention is on average over them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dyx.errors import InvalidOption
from dyx.nn.framework import paddle
from dyx.nn.watching import watched_attention
from dyx.preprocess import NORMALISED, PIXELS, Preprocess, picture_files

if TYPE_CHECKING:
    from dyx.preprocess import Picture

_WANTED = "a folder of at least 2 pictures, or an .npz with one array of them: half calibrate, half are held out"
_CHUNK = 16


@dataclass(frozen=True)
class Calibration:
    """Calibration images as network inputs, `(n, 3, H, W)`: half to average over, half to measure on."""

    source: str
    used: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True)
class Approximation:
    """How far a lossy static network is from the dynamic one, on images that it was not made from.

    Attributes:
        source: Name of the folder or file of the images.
        used: Images that attention was averaged over.
        held_out: Images that the errors were measured on.
        max_abs_error: Largest difference between logits.
        relative_error: The same as a share of max |y|.
        top1_agreement: Share of held-out images whose class stays.
    """

    source: str
    used: int
    held_out: int
    max_abs_error: float
    relative_error: float
    top1_agreement: float

    def to_json(self) -> dict[str, Any]:
        """The form kept in `dyx.json`."""
        return asdict(self)

    def sentence(self) -> str:
        """What the user should hear."""
        return (
            f"lossy: on {self.held_out} held-out images of {self.source} logits are off by up to"
            f" {self.max_abs_error:.2g} ({self.relative_error:.1%} of max |y|), and"
            f" {self.top1_agreement:.1%} keep their class"
        )


def read_calibration(
    path: Path, preprocess: Preprocess, shape: tuple[int, ...], seed: int, dtype: str = NORMALISED
) -> Calibration:
    """The images of a folder, or of the one image array of an `.npz`, as inputs of a dtype: float32, or uint8 pixels.

    An array holds pictures, uint8 `(n, H, W)` or `(n, H, W, 3)`, or network inputs, floats `(n, 3, H, W)`; these only
    where inputs are floats.

    Raises:
        InvalidOption: Nothing usable there, or fewer than two images.
        ImageUnreadable: A picture that cannot be read.
    """
    prepare = preprocess.giving(dtype)
    images = _of_folder(path, prepare) if path.is_dir() else _of_array(path, prepare, shape, dtype)
    if len(images) < 2:
        raise InvalidOption("--calibrate", f"{path.name} with {len(images)} image{'' if len(images) else 's'}", _WANTED)
    order = np.random.default_rng(seed).permutation(len(images))
    half = len(images) // 2
    return Calibration(path.name, images[order[half:]], images[order[:half]])


def _of_folder(path: Path, prepare: Callable[[Picture], np.ndarray]) -> np.ndarray:
    files = picture_files(path)
    return np.stack([prepare(file) for file in files]) if files else np.empty((0, 3, 1, 1), np.float32)


def _of_array(path: Path, prepare: Callable[[Picture], np.ndarray], shape: tuple[int, ...], dtype: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files if content[key].ndim >= 3}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise InvalidOption("--calibrate", str(path), f"{_WANTED} ({error})") from error
    if len(arrays) != 1:
        raise InvalidOption("--calibrate", f"{path.name} with {len(arrays)} image arrays", _WANTED)
    (array,) = arrays.values()
    if array.dtype == np.uint8 and array.ndim in (3, 4):
        return np.stack([prepare(picture) for picture in array])
    if dtype == PIXELS or array.dtype.kind != "f" or array.shape[1:] != shape or not np.isfinite(array).all():
        seen = f"{path.name} with {array.dtype} {list(array.shape)}"
        floats = "" if dtype == PIXELS else f", or finite floats (n, {', '.join(map(str, shape))})"
        raise InvalidOption("--calibrate", seen, f"uint8 pictures{floats}")
    inputs: np.ndarray = array.astype(np.float32)
    return inputs


def mean_attentions(network: Any, images: np.ndarray) -> dict[str, tuple[np.ndarray, ...]]:
    """Path of each dynamic layer → what it mixes with, averaged over images, in float64.

    Args:
        network: The dynamic network, in float32 and eval mode.
        images: As it takes them, `(n, 3, H, W)`.
    """
    sums: dict[str, tuple[np.ndarray, ...]] = {}

    def add(path: str, attention: tuple[np.ndarray, ...]) -> None:
        found = [array.sum(axis=0) for array in attention]
        before = sums.get(path) or (0.0,) * len(found)
        sums[path] = tuple(old + new for old, new in zip(before, found, strict=True))

    with watched_attention(network, add), paddle.no_grad():
        for chunk in _chunks(images):
            network(paddle.to_tensor(chunk))
    return {path: tuple(array / len(images) for array in found) for path, found in sums.items()}


def approximation_of(static: Any, dynamic: Any, calibration: Calibration) -> Approximation:
    """How far a lossy static network is from the dynamic one on the held-out images; both in float32."""
    got, wanted = (_answers(network, calibration.held_out) for network in (static, dynamic))
    error = float(np.abs(got - wanted).max())
    return Approximation(
        source=calibration.source,
        used=len(calibration.used),
        held_out=len(calibration.held_out),
        max_abs_error=error,
        relative_error=error / max(float(np.abs(wanted).max()), 1e-30),
        top1_agreement=float((got.argmax(axis=1) == wanted.argmax(axis=1)).mean()),
    )


def _answers(network: Any, images: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        return np.concatenate([network(paddle.to_tensor(chunk)).numpy() for chunk in _chunks(images)])


def _chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    yield from (images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK))
