"""The data sets that the reference models are made for: input, classes, and the way from a picture."""

from __future__ import annotations

from dataclasses import dataclass

from dyx.preprocess import Preprocess


@dataclass(frozen=True)
class DataSet:
    """What a network of one data set sees.

    Attributes:
        name: In words.
        shape: Input `(channels, height, width)`.
        labels: One per class.
        preprocess: From a picture to the input.
        tune_batch: The batch size that its networks are priced at, unless told otherwise.
    """

    name: str
    shape: tuple[int, int, int]
    labels: tuple[str, ...]
    preprocess: Preprocess
    tune_batch: int


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100 = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
    lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
    pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
    shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
    television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()  # noqa: SIM905 - a hundred quoted words would hide the list
)

CIFAR10 = DataSet("CIFAR-10", (3, 128, 128), _CIFAR10, Preprocess((128, 128)), 512)
"""As the articles on dynamic convolution prepare it."""

CIFAR10_GATES = DataSet("CIFAR-10", (3, 128, 128), _CIFAR10, Preprocess((128, 128), _IMAGENET_MEAN, _IMAGENET_STD), 512)
"""As the articles on ECA and NA prepare it."""

CIFAR100 = DataSet("CIFAR-100", (3, 128, 128), _CIFAR100, Preprocess((128, 128), _IMAGENET_MEAN, _IMAGENET_STD), 64)

IMAGENET = DataSet(
    "ImageNet",
    (3, 224, 224),
    tuple(str(index) for index in range(1000)),
    Preprocess((224, 224), _IMAGENET_MEAN, _IMAGENET_STD, short_side=256),
    8,
)
"""Classes by number: the names are the data set's to give (`--labels`)."""
