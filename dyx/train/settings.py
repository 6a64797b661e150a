"""What a training run may be told, and what it then is: settings, the run they belong to, the recipe that results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dyx.errors import InvalidOption, OutputExists, RunDiffers
from dyx.runs import Run, is_run, read_run
from dyx.train.recipes import Recipe, find_recipe, usual_recipe

PRECISIONS = ("float32", "mixed")
AUTO = "auto"
_SEED = 42
_DATA = "digits"
_CHANGEABLE = ("epochs", "batch", "learning_rate", "mixup")
"""What of a recipe the command line may change."""


@dataclass(frozen=True)
class TrainSettings:
    """Settings of `dyx.train`, named as the command line's options; None is what the recipe or the run says.

    Attributes:
        data: `digits`, `cifar10:PATH`, `cifar100:PATH` or `folder:DIR`; digits by default.
        recipe: A name of RECIPES; by default the one of the model's article, or digits for digits.
        epochs: In place of the recipe's.
        batch: In place of the recipe's.
        learning_rate: In place of the recipe's.
        mixup: In place of the recipe's.
        seed: Of weights, order, augmentation and dropout; 42 by default.
        shape: Of the input, `(3, height, width)`; needed for a network that brings none.
        out: The run's folder; `runs/<model>` by default.
        resume: Go on with the run that is there.
        force: Replace the run that is there.
        form: What dynamic layers are computed by: "grouped", another training form, or "auto" for the fastest here.
        precision: "float32" or "mixed" (bfloat16 where it is safe).
        device: "cpu", "gpu" or "auto".
        threads: On a CPU; all usable cores by default.
        workers: Processes that prepare pictures; 0 prepares them beside the training.
        save_every: Seconds after which the state is kept within an epoch: what a kill costs at most.
        log_dir: Where VisualDL or TensorBoard finds the curves while they grow.
    """

    data: str | None = None
    recipe: str | None = None
    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    mixup: float | None = None
    seed: int | None = None
    shape: tuple[int, int, int] | None = None
    out: Path | str | None = None
    resume: bool = False
    force: bool = False
    form: str = AUTO
    precision: str | None = None
    device: str = "auto"
    threads: int | None = None
    workers: int = 0
    save_every: float = 60.0
    log_dir: Path | str | None = None

    def check(self) -> None:
        """Raises InvalidOption for the first setting that cannot be, before any work is done."""
        for name in ("epochs", "batch", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidOption(f"--{name}", value, "a number from 1 up")
        if not self.save_every >= 0:
            raise InvalidOption("--save-every", self.save_every, "a number of seconds from 0 up")
        if self.workers < 0:
            raise InvalidOption("--workers", self.workers, "a number from 0 up")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise InvalidOption("--learning-rate", self.learning_rate, "a number above 0")
        if self.mixup is not None and not 0 <= self.mixup < float("inf"):
            raise InvalidOption("--mixup", self.mixup, "a number from 0 up")
        if self.precision not in (None, *PRECISIONS):
            raise InvalidOption("--precision", self.precision, " or ".join(PRECISIONS))
        if self.seed is not None and self.seed < 0:
            raise InvalidOption("--seed", self.seed, "a number from 0 up")


@dataclass(frozen=True)
class Order:
    """A run as it will be: what a resumed one must equal.

    Attributes:
        model: A name of `dyx models`, `file.py:Class` or `package.module:callable`.
        data: As the user named it.
        recipe: With what was changed of it.
        seed: Of everything drawn.
        shape: Of the input, or None for the model's own.
        precision: "float32" or "mixed".
    """

    model: str
    data: str
    recipe: Recipe
    seed: int
    shape: tuple[int, int, int] | None
    precision: str

    def to_json(self) -> dict[str, Any]:
        """The form kept in run.json under `order`."""
        return {**asdict(self), "recipe": self.recipe.to_json()}


def folder_of(model: str, settings: TrainSettings) -> Path:
    """Where a run goes."""
    return Path(settings.out) if settings.out is not None else Path("runs") / model.rpartition(":")[2]


def check_folder(folder: Path, settings: TrainSettings) -> Run | None:
    """The run to go on with, or None for a new one.

    Raises OutputExists where something stands there already, RunUnreadable where there is nothing to resume.
    """
    if settings.resume:
        return read_run(folder)
    if is_run(folder) and not settings.force:
        raise OutputExists(folder, "--resume goes on with that run, --force begins anew")
    if folder.exists() and not is_run(folder):
        raise OutputExists(folder, "it is no training run, so that --force would not touch it either")
    return None


def order_of(model: str, settings: TrainSettings, begun: Run | None) -> Order:
    """What is to be trained. Raises RunDiffers where a run that was begun was told something else."""
    told: Mapping[str, Any] = begun.record["order"] if begun else {}
    data = settings.data or told.get("data") or _DATA
    name = settings.recipe or (told["recipe"]["name"] if told else None)
    recipe = find_recipe(name) if name else usual_recipe(model, data)
    seed = told.get("seed", _SEED) if settings.seed is None else settings.seed
    shape = settings.shape or (tuple(told["shape"]) if told.get("shape") else None)
    changed = _changed(recipe, settings, told.get("recipe", {}))
    order = Order(model, data, changed, seed, shape, settings.precision or told.get("precision", PRECISIONS[0]))
    if begun is not None:
        _check_same(begun, order)
    return order


def _changed(recipe: Recipe, settings: TrainSettings, told: Mapping[str, Any]) -> Recipe:
    """A recipe with what the user wants otherwise, or wanted when the run began."""
    given = {name: getattr(settings, name) for name in _CHANGEABLE}
    wanted = {name: told.get(name) if value is None else value for name, value in given.items()}
    return replace(recipe, **{name: value for name, value in wanted.items() if value is not None})


def _check_same(begun: Run, order: Order) -> None:
    """Raises RunDiffers, with every difference."""
    old, new = _flat(begun.record["order"]), _flat(json.loads(json.dumps(order.to_json())))
    differences = {key: (old.get(key), value) for key, value in new.items() if value != old.get(key)}
    if differences:
        raise RunDiffers(begun.path, differences)


def check_same_data(begun: Run, labels: Sequence[str], counts: Mapping[str, int]) -> None:
    """Raises RunDiffers where the data of a run have other classes or another number of pictures by now."""
    now = {"classes of the data": list(labels), "pictures of the data": dict(counts)}
    old = {"classes of the data": begun.record["labels"], "pictures of the data": begun.record["images"]}
    differences = {key: (old[key], value) for key, value in now.items() if value != old[key]}
    if differences:
        raise RunDiffers(begun.path, differences)


def _flat(order: Mapping[str, Any]) -> dict[str, Any]:
    recipe = {f"recipe's {key}": value for key, value in order["recipe"].items()}
    return {key: value for key, value in order.items() if key != "recipe"} | recipe
