"""Recipes: temperature, learning rate and figures, epoch by epoch, as the articles and official codes have them."""

from __future__ import annotations

import pytest
from paddle import nn

from dyx.errors import UnknownName
from dyx.nn.dyconv import DYConv2D
from dyx.nn.dynamic_conv import DynamicConv2D
from dyx.nn.eca import ECA
from dyx.nn.odconv import ODConv2D
from dyx.train.recipes import RECIPES, find_recipe, usual_recipe
from dyx.train.step import make_learner
from dyx.train.temperature import anneal, annealed_layers
from dyx.zoo import MODELS
from dyx.zoo.kernelwarehouse import kernelwarehouse


def temperatures(layer: nn.Layer, epochs: int, steps: int = 4, over: float | None = None) -> list[float]:
    """The temperature of the last step of each epoch."""
    layers = annealed_layers(nn.Sequential(layer), over)
    return [next(iter(anneal(layers, epoch, steps - 1, steps).values())) for epoch in range(epochs)]


def test_articles_temperature_falls_by_three_after_each_epoch() -> None:
    found = temperatures(DYConv2D(8, 8, 3), 13)
    assert found == [30, 27, 24, 21, 18, 15, 12, 9, 6, 3, 1, 1, 1]


def test_reference_dynamic_convolution_starts_at_34_and_takes_twelve_values() -> None:
    found = temperatures(DynamicConv2D(8, 8, 3), 14)
    assert found == [34, 31, 28, 25, 22, 19, 16, 13, 10, 7, 4, 1, 1, 1]


def test_odconv_falls_step_by_step_over_ten_epochs() -> None:
    steps, layers = 5, annealed_layers(nn.Sequential(ODConv2D(8, 8, 3)))
    for epoch in range(12):
        for step in range(steps):
            behind, whole = epoch * steps + step + 1, 10 * steps
            wanted = 1 + max(0, 29 * (whole - behind) / whole)
            assert anneal(layers, epoch, step, steps)["odconv"] == pytest.approx(wanted, rel=1e-12)


def test_kernelwarehouse_falls_step_by_step_over_twenty_epochs_to_zero() -> None:
    steps, layers = 3, annealed_layers(kernelwarehouse("resnet18", "1d4x"))
    assert len(layers) == 19
    for epoch, step in ((0, 0), (9, 2), (19, 1), (19, 2), (25, 0)):
        behind, whole = epoch * steps + step + 1, 20 * steps
        wanted = max(0, (whole - behind) / whole)
        assert anneal(layers, epoch, step, steps)["kw"] == pytest.approx(wanted, abs=1e-12)


def test_temperature_reaches_the_layer() -> None:
    network = nn.Sequential(DYConv2D(8, 8, 3))
    anneal(annealed_layers(network), 4, 0, 10)
    assert network[0].routing.temperature == 18


def test_digits_spread_the_fall_over_half_of_the_run() -> None:
    recipe = find_recipe("digits")
    assert recipe.annealing is not None
    found = temperatures(DYConv2D(8, 8, 3), 10, over=recipe.annealing * 10)
    assert found == [30, 24, 18, 12, 6, 1, 1, 1, 1, 1]


def test_layers_without_temperature_are_left_alone() -> None:
    assert annealed_layers(nn.Sequential(ECA(8, 3), nn.Conv2D(8, 8, 3))) == ()


def rates(name: str, steps: int = 2) -> list[float]:
    """The learning rate of every step of a run."""
    recipe = find_recipe(name)
    learner = make_learner(nn.Linear(2, 2), recipe, steps, 2)
    found = []
    for _ in range(recipe.epochs):
        for _ in range(steps):
            found.append(learner.optimizer.get_lr())
            if learner.per_step:
                learner.schedule.step()
        if not learner.per_step:
            learner.schedule.step()
    return found


def test_dyconv_learning_rate_falls_to_a_tenth_at_30_60_and_90() -> None:
    by_epoch = rates("dyconv")[::2]
    wanted = [0.1] * 30 + [0.01] * 30 + [0.001] * 30 + [0.0001] * 10
    assert by_epoch == pytest.approx(wanted, rel=1e-12)


def test_gates_learning_rate_is_half_a_cosine_step_by_step() -> None:
    import math

    found = rates("gates")
    wanted = [1e-3 * (1 + math.cos(math.pi * step / 100)) / 2 for step in range(100)]
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_figures_of_the_articles() -> None:
    dy, gates = find_recipe("dyconv"), find_recipe("gates")
    assert (dy.epochs, dy.batch, dy.optimizer, dy.learning_rate) == (100, 512, "sgd", 0.1)
    assert (gates.epochs, gates.batch, gates.optimizer, gates.learning_rate) == (50, 128, "adam", 1e-3)
    assert {recipe.label_smoothing for recipe in (dy, gates)} == {0.1}
    assert {recipe.weight_decay for recipe in (dy, gates)} == {1e-5}
    assert dy.augmentation.crop == (0.08, 1.0) and dy.augmentation.flip
    assert gates.augmentation.crop == (0.6, 1.0) and gates.augmentation.rotation == 20
    assert gates.augmentation.jitter == 0.2 and gates.mixup == 0


@pytest.mark.parametrize(
    ("model", "data", "recipe"),
    [
        ("alexnet-dy", "cifar10:x", "dyconv"),
        ("alexnet-bn", "cifar10:x", "dyconv"),
        ("alexnet", "cifar10:x", "gates"),
        ("alexnet-eca", "cifar10:x", "gates"),
        ("alexnet-na", "cifar10:x", "gates"),
        ("resnet18-na", "cifar100:x", "gates"),
        ("kw1x-resnet18", "folder:x", "imagenet"),
        ("alexnet-dy", "digits", "digits"),
        ("mine.py:Net", "folder:x", "gates"),
    ],
)
def test_usual_recipe(model: str, data: str, recipe: str) -> None:
    assert usual_recipe(model, data).name == recipe


def test_every_model_has_a_recipe() -> None:
    assert {usual_recipe(model.name, "folder:x").name for model in MODELS} == {"dyconv", "gates", "imagenet"}
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)


def test_unknown_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="no recipe named 'digit'") as caught:
        find_recipe("digit")
    assert caught.value.nearest == "digits"
