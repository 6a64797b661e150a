"""Labelled pictures, to train on and to evaluate exported bundles with; none of it needs Paddle."""

from __future__ import annotations

from dyx.datasets.images import ImageData, ImageSet
from dyx.errors import InvalidOption
from dyx.registry import Registry

__all__ = ["SOURCES", "ImageData", "ImageSet", "read_data"]

SOURCES = Registry(
    "data set",
    {
        "digits": "dyx.datasets.digits:read_digits",
        "cifar10": "dyx.datasets.cifar:read_cifar10",
        "cifar100": "dyx.datasets.cifar:read_cifar100",
        "folder": "dyx.datasets.class_folders:read_class_folders",
    },
)
"""What may stand before the colon; each function takes what stands behind it."""

PLACES = {
    "cifar10": "cifar10:PATH, with the path of cifar-10-python.tar.gz",
    "cifar100": "cifar100:PATH, with the path of cifar-100-python.tar.gz",
    "folder": "folder:DIR, with a folder that holds one folder per class",
}
"""What must stand behind the colon; data sets that are not here take nothing."""


def read_data(text: str) -> ImageData:
    """The pictures that `digits`, `cifar10:PATH`, `cifar100:PATH` or `folder:DIR` names.

    Raises:
        UnknownName: No data set has that name.
        InvalidOption: A path is missing, or there is one too many.
        DataUnusable: There is nothing usable there.
        PackageMissing: scikit-learn for the digits, Pillow for a folder.
    """
    kind, colon, place = text.partition(":")
    reader = SOURCES.get(kind)
    if kind in PLACES and not place:
        raise InvalidOption("--data", text, PLACES[kind])
    if kind not in PLACES and colon:
        raise InvalidOption("--data", text, f"{kind} alone: it takes no path")
    data: ImageData = reader(place)
    return data
