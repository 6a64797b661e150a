"""How networks are trained: a recipe is a row in a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dyx.errors import UnknownName
from dyx.zoo import BUILDERS, find_model
from dyx.zoo.data import CIFAR10, CIFAR10_GATES, CIFAR100


@dataclass(frozen=True)
class Augmentation:
    """What a training picture goes through, in this order; None and 0 leave a step out.

    Attributes:
        resize: The shorter side, as a share of the input's side.
        jitter: Brightness, contrast and saturation change by up to this share.
        crop: A random part of the picture, between these shares of its area, is resized to the input.
        flip: Left and right change places in half of the pictures.
        rotation: Up to this many degrees either way.
    """

    resize: float | None = None
    jitter: float = 0.0
    crop: tuple[float, float] | None = None
    flip: bool = False
    rotation: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    Attributes:
        name: As `--recipe` takes it.
        epochs: Times that every training picture is seen.
        batch: Pictures per step.
        optimizer: "sgd", "momentum" (0.9) or "adam".
        learning_rate: At the start.
        milestones: Epochs after which the learning rate falls to a tenth; empty for a cosine to 0, step by step.
        weight_decay: L2, on every parameter.
        label_smoothing: Share of every target that is spread evenly over the classes.
        augmentation: Of the training pictures.
        annealing: Share of the run over which temperature falls to its end; None for the epochs that each method says.
        mixup: Of the Beta distribution that pairs of pictures are mixed by; 0 for none.
        source: Where the figures come from.
    """

    name: str
    epochs: int
    batch: int
    optimizer: str
    learning_rate: float
    milestones: tuple[int, ...]
    weight_decay: float
    label_smoothing: float
    augmentation: Augmentation
    annealing: float | None = None
    mixup: float = 0.0
    source: str = ""

    def to_json(self) -> dict[str, Any]:
        """Every figure, as run.json keeps it."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


_PAIR = 130 / 128
"""Pictures are enlarged to 130 pixels before 128 of them are cut out."""

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "dyconv",
        epochs=100,
        batch=512,
        optimizer="sgd",
        learning_rate=0.1,
        milestones=(30, 60, 90),
        weight_decay=1e-5,
        label_smoothing=0.1,
        augmentation=Augmentation(resize=_PAIR, crop=(0.08, 1.0), flip=True),
        source="the article on dynamic convolution in Paddle",
    ),
    Recipe(
        "gates",
        epochs=50,
        batch=128,
        optimizer="adam",
        learning_rate=1e-3,
        milestones=(),
        weight_decay=1e-5,
        label_smoothing=0.1,
        augmentation=Augmentation(resize=_PAIR, jitter=0.2, crop=(0.6, 1.0), flip=True, rotation=20.0),
        source="the articles on ECA and NA in Paddle",
    ),
    Recipe(
        "digits",
        epochs=10,
        batch=32,
        optimizer="adam",
        learning_rate=3e-4,
        milestones=(),
        weight_decay=1e-5,
        label_smoothing=0.1,
        augmentation=Augmentation(),
        annealing=0.5,
        source="dyx: minutes on two cores",
    ),
    Recipe(
        "imagenet",
        epochs=100,
        batch=256,
        optimizer="momentum",
        learning_rate=0.1,
        milestones=(30, 60, 90),
        weight_decay=1e-4,
        label_smoothing=0.0,
        augmentation=Augmentation(crop=(0.08, 1.0), flip=True),
        source="the usual 100 epochs, as He et al., CVPR 2016",
    ),
)
"""Every recipe. Inputs of other sizes are enlarged in proportion."""

_OF_DATA = {CIFAR10: "dyconv", CIFAR10_GATES: "gates", CIFAR100: "gates"}


def find_recipe(name: str) -> Recipe:
    """The row of a name. Raises UnknownName."""
    known = {recipe.name: recipe for recipe in RECIPES}
    if name not in known:
        raise UnknownName("recipe", name, tuple(known))
    return known[name]


def usual_recipe(model: str, data: str) -> Recipe:
    """What a network is trained with on some data, unless told otherwise: digits have a recipe of their own."""
    if data == "digits":
        return find_recipe("digits")
    if model not in BUILDERS.names:
        return find_recipe("gates")
    return find_recipe(_OF_DATA.get(find_model(model).data, "imagenet"))
