"""The reference models: a model is a row in a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dyx.preprocess import Preprocess
from dyx.registry import Registry

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Model:
    """One reference model.

    Attributes:
        name: As the command line takes it.
        builder: `"module:function"` that builds it.
        layers: Its layers, in words.
        parameters: Numbers in its state dict, running statistics included, as `paddle.summary` counts.
        shape: Input `(channels, height, width)`.
        labels: One per class.
        preprocess: From a picture to its input.
        baseline: The plain network that it is measured against, or None.
        paper: Where it comes from.
    """

    name: str
    builder: str
    layers: str
    parameters: int
    shape: tuple[int, int, int]
    labels: tuple[str, ...]
    preprocess: Preprocess
    baseline: str | None
    paper: str


MODELS: tuple[Model, ...] = (
    Model(
        name="alexnet-bn",
        builder="dyx.zoo.alexnet:alexnet_bn",
        layers="5 conv + BN, 3 linear",
        parameters=7_526_794,
        shape=(3, 128, 128),
        labels=CIFAR10,
        preprocess=Preprocess((128, 128)),
        baseline=None,
        paper="Krizhevsky et al., NIPS 2012",
    ),
    Model(
        name="alexnet-dy",
        builder="dyx.zoo.alexnet:alexnet_dy",
        layers="2 conv + 3 dynamic conv (K=2) + BN, 3 linear",
        parameters=8_324_368,
        shape=(3, 128, 128),
        labels=CIFAR10,
        preprocess=Preprocess((128, 128)),
        baseline="alexnet-bn",
        paper="Chen et al., CVPR 2020",
    ),
)

BUILDERS = Registry("model", {model.name: model.builder for model in MODELS})
_BY_NAME: Mapping[str, Model] = {model.name: model for model in MODELS}


def find_model(name: str) -> Model:
    """The row of a name. Raises UnknownName, with the nearest known one."""
    return _BY_NAME[BUILDERS.check(name)]


def build(name: str) -> Any:
    """A model by name, a Paddle Layer in eval mode with weights yet to be set. Raises UnknownName, PackageMissing."""
    network = BUILDERS.get(name)()
    network.eval()
    return network
