"""Training: the articles' recipes, checkpoints that say their temperature, runs that go on after a kill."""

from dyx.train.loop import train
from dyx.train.recipes import RECIPES, Recipe
from dyx.train.settings import TrainSettings

__all__ = ["RECIPES", "Recipe", "TrainSettings", "train"]
