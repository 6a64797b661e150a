"""From a picture to the tensor that a network was trained on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dyx.errors import ImageUnreadable, InvalidOption, PackageMissing

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    Picture: TypeAlias = str | PathLike[str] | Image | np.ndarray

NORMALISED, PIXELS = "float32", "uint8"
"""The dtype of a network's input tells what it takes: normalised values, or pixels, which its graph normalises."""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm")
"""Files of a folder that are taken for pictures."""


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the network's input: `(pixel / 255 - mean) / std` after a resize.

    A network that takes pixels is given them after the resize; its graph does the rest.

    Attributes:
        size: `(height, width)` in pixels; pictures are resized to exactly that (Pillow, bilinear).
        short_side: Where given, the shorter side is resized to this many pixels instead, the other in proportion,
            and `size` is cropped from the centre: ImageNet's usual evaluation.
        mean: One value per channel, on the 0 to 1 scale, in the order of the network's channels.
        std: The same for the divisor.
        order: `"RGB"` or `"BGR"`, the order of the network's channels.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    order: str = "RGB"
    short_side: int | None = None

    def __call__(self, picture: Picture) -> np.ndarray:
        """The picture as float32 `(3, height, width)`, normalised. Raises ImageUnreadable."""
        import numpy as np

        mean, std = (np.array(values, dtype=np.float32).reshape(3, 1, 1) for values in (self.mean, self.std))
        normal: np.ndarray = (self.pixels(picture) / np.float32(255) - mean) / std
        return normal

    def pixels(self, picture: Picture) -> np.ndarray:
        """The picture as uint8 `(3, height, width)`, not normalised yet. Raises ImageUnreadable."""
        import numpy as np

        pixels = np.asarray(self._resized(picture))
        if self.order == "BGR":
            pixels = pixels[:, :, ::-1]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def giving(self, dtype: str) -> Callable[[Picture], np.ndarray]:
        """What makes a network's input of this dtype from a picture: normalised, or pixels as they are."""
        return self.pixels if dtype == PIXELS else self

    def _resized(self, picture: Picture) -> Image:
        height, width = self.size
        image = open_picture(picture).convert("RGB")
        if self.short_side is None:
            return self._resize(image, width, height)
        share = self.short_side / min(image.size)
        image = self._resize(image, *(max(round(side * share), self.short_side) for side in image.size))
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))

    def _resize(self, image: Image, width: int, height: int) -> Image:
        resized: Image = image.resize((width, height), resample=_pillow().Resampling.BILINEAR)
        return resized

    def to_json(self) -> dict[str, Any]:
        """The form kept in `dyx.json` and read by `--preprocess`."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], option: str = "preprocess") -> Preprocess:
        """The form that `to_json` writes; `size` may be one number. Raises InvalidOption."""
        try:
            return cls._parsed(dict(entry))
        except (TypeError, ValueError, KeyError) as error:
            wanted = 'an object like {"size": 128, "mean": [.5, .5, .5], "std": [.5, .5, .5], "order": "RGB"}'
            raise InvalidOption(option, entry, f"{wanted} ({error})") from error

    @classmethod
    def _parsed(cls, entry: dict[str, Any]) -> Preprocess:
        size = entry.pop("size")
        height, width = (size, size) if isinstance(size, int) else size
        mean, std = (tuple(map(float, entry.pop(key, (0.5, 0.5, 0.5)))) for key in ("mean", "std"))
        order = str(entry.pop("order", "RGB")).upper()
        short_side = entry.pop("short_side", None)
        if entry:
            raise ValueError(f"unknown keys {sorted(entry)}")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or order not in ("RGB", "BGR"):
            raise ValueError("mean and std take three numbers, std above 0; order is RGB or BGR")
        if height < 1 or width < 1:
            raise ValueError("size is at least 1")
        if short_side is not None and short_side < max(height, width):
            raise ValueError("short_side is at least as large as size, which is cropped from it")
        return cls((int(height), int(width)), mean, std, order, short_side)

    @classmethod
    def read(cls, path: Path) -> Preprocess:
        """What a JSON file says. Raises InvalidOption, with the reason, where it says nothing usable."""
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidOption("--preprocess", str(path), f"a JSON file that can be read ({error})") from error
        return cls.from_json(entry, "--preprocess")


def open_picture(picture: Picture) -> Image:
    """A picture as a Pillow image: from a path, a Pillow image or a uint8 `(H, W)` / `(H, W, 3)` array."""
    import numpy as np

    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if not isinstance(picture, str | PathLike):
        return picture
    return _from_file(fspath(picture))


def picture_files(folder: Path) -> list[Path]:
    """Every file of a folder and its subfolders that is taken for a picture, sorted; hidden ones are skipped."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    return sorted(path for path in found if not _is_hidden(path.relative_to(folder)) and path.is_file())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def check_picture(path: Path) -> None:
    """Open a file as a picture, its header alone where the format allows. Raises ImageUnreadable."""
    with _opened(fspath(path)) as image:
        image.verify()


def _from_file(path: str) -> Image:
    with _opened(path) as image:
        converted: Image = image.convert("RGB")
    return converted


@contextmanager
def _opened(path: str) -> Iterator[Image]:
    """An opened picture. Whatever goes wrong with it in the block raises ImageUnreadable."""
    pillow = _pillow()
    try:
        with warnings.catch_warnings():
            # Pillow only warns of a picture that would unpack to gigabytes: make it an error.
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with pillow.open(path) as image:
                yield image
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        raise ImageUnreadable(path, str(error)) from error


def _from_array(pixels: np.ndarray) -> Image:
    if pixels.dtype != "uint8" or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        seen = f"an array {pixels.dtype} {list(pixels.shape)}"
        raise ImageUnreadable(seen, "pixels are uint8 (H, W) or (H, W, 3)")
    image: Image = _pillow().fromarray(pixels)
    return image


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise PackageMissing("Pillow", "onnx") from error
    return Image
