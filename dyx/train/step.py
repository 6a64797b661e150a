"""One step of training, by Paddle's own losses, optimisers and schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dyx.nn.framework import functional, paddle
from dyx.train.recipes import Recipe

_MOMENTUM = 0.9


@dataclass(frozen=True)
class Learner:
    """What learns.

    Attributes:
        network: A Paddle Layer.
        optimizer: Of its parameters.
        schedule: The optimiser's learning rate.
        per_step: Whether the learning rate changes with every step, or after each epoch.
        recipe: How.
        classes: How many logits.
        mixed: Whether the forward runs in bfloat16 where that is safe.
    """

    network: Any
    optimizer: Any
    schedule: Any
    per_step: bool
    recipe: Recipe
    classes: int
    mixed: bool = False


def make_learner(network: Any, recipe: Recipe, steps: int, classes: int, *, mixed: bool = False) -> Learner:
    """A network with the optimiser and the schedule of a recipe.

    Args:
        network: A Paddle Layer.
        recipe: How to train.
        steps: Per epoch.
        classes: How many logits.
        mixed: See Learner.
    """
    rates = paddle.optimizer.lr
    if recipe.milestones:
        schedule = rates.MultiStepDecay(recipe.learning_rate, list(recipe.milestones), gamma=0.1)
    else:
        schedule = rates.CosineAnnealingDecay(recipe.learning_rate, T_max=recipe.epochs * steps)
    kinds = {
        "sgd": paddle.optimizer.SGD,
        "momentum": partial(paddle.optimizer.Momentum, momentum=_MOMENTUM),
        "adam": paddle.optimizer.Adam,
    }
    optimizer = kinds[recipe.optimizer](
        learning_rate=schedule, parameters=network.parameters(), weight_decay=recipe.weight_decay
    )
    return Learner(network, optimizer, schedule, not recipe.milestones, recipe, classes, mixed)


def learn(learner: Learner, images: Any, classes: Any, seed: int) -> tuple[float, int]:
    """One step: forward, backward, update.

    Args:
        learner: What learns, in train mode.
        images: `(B, 3, H, W)`.
        classes: int64 `(B,)`.
        seed: Of dropout and mixup.

    Returns:
        The mean loss before the update, and how many pictures had their class best. A loss that is NaN or infinite
        updates nothing.
    """
    paddle.seed(seed)
    recipe = learner.recipe
    targets = functional.one_hot(classes, learner.classes).astype(images.dtype)
    if recipe.mixup:
        images, targets = mix_pairs(images, targets, recipe.mixup, seed)
    # Written out: Paddle's label_smooth takes its share in float32 whatever the targets are.
    targets = targets * (1 - recipe.label_smoothing) + recipe.label_smoothing / learner.classes
    with paddle.amp.auto_cast(learner.mixed, level="O1", dtype="bfloat16"):
        logits = learner.network(images)
    logits = logits.astype(targets.dtype)
    loss = functional.cross_entropy(logits, targets, soft_label=True)
    value = float(loss)
    if math.isfinite(value):
        loss.backward()
        learner.optimizer.step()
        learner.optimizer.clear_grad()
        if learner.per_step:
            learner.schedule.step()
    return value, int((logits.argmax(1) == classes).sum())


def mix_pairs(images: Any, targets: Any, alpha: float, seed: int) -> tuple[Any, Any]:
    """Each picture and its target mixed with another's: `λ x + (1 − λ) x'` with λ of Beta(α, α), one for the batch.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    random = np.random.default_rng(seed)
    share, partners = float(random.beta(alpha, alpha)), paddle.to_tensor(random.permutation(len(images)))
    return tuple(share * tensor + (1 - share) * tensor.index_select(partners) for tensor in (images, targets))
