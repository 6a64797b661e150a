"""One step of every recipe against a computation by hand in float64: loss, gradient, update."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle
import pytest
from paddle import nn

from dyx.train.recipes import RECIPES, Recipe
from dyx.train.step import Learner, learn, make_learner, mix_pairs

CLASSES, INPUTS, BATCH = 5, 12, 7


def tiny() -> nn.Layer:
    """One linear layer: small enough for a hand."""
    paddle.seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(INPUTS, CLASSES)).to(dtype="float64")


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.standard_normal((BATCH, 3, 2, 2)), random.integers(0, CLASSES, BATCH)


def smoothed(classes: np.ndarray, recipe: Recipe) -> np.ndarray:
    share = recipe.label_smoothing
    return (1 - share) * np.eye(CLASSES)[classes] + share / CLASSES


def loss_and_gradient(
    x: np.ndarray, targets: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean cross entropy and its gradient by weight and bias: `(softmax − target) / B` runs back through the layer."""
    logits = x @ weight + bias
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    shares = exponents / exponents.sum(1, keepdims=True)
    error = (shares - targets) / len(x)
    return float(-(targets * np.log(shares)).sum(1).mean()), x.T @ error, error.sum(0)


Update = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def updates(recipe: Recipe) -> Update:
    """The optimiser by hand, for one parameter; the weight decay is added to the gradient."""
    state: dict[str, np.ndarray] = {}

    def sgd(value: np.ndarray, gradient: np.ndarray, rate: float) -> np.ndarray:
        return value - rate * gradient

    def momentum(value: np.ndarray, gradient: np.ndarray, rate: float) -> np.ndarray:
        state["v"] = 0.9 * state.get("v", np.zeros_like(value)) + gradient
        return value - rate * state["v"]

    def adam(value: np.ndarray, gradient: np.ndarray, rate: float) -> np.ndarray:
        state["t"] = state.get("t", np.array(0)) + 1
        state["m"] = 0.9 * state.get("m", np.zeros_like(value)) + 0.1 * gradient
        state["v"] = 0.999 * state.get("v", np.zeros_like(value)) + 0.001 * gradient**2
        m, v = state["m"] / (1 - 0.9 ** state["t"]), state["v"] / (1 - 0.999 ** state["t"])
        return value - rate * m / (np.sqrt(v) + 1e-8)

    step = {"sgd": sgd, "momentum": momentum, "adam": adam}[recipe.optimizer]
    return lambda value, gradient, rate: step(value, gradient + recipe.weight_decay * value, rate)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_three_steps_equal_a_computation_by_hand(recipe: Recipe) -> None:
    network = tiny()
    learner = make_learner(network, recipe, 10, CLASSES)
    gradients: list[np.ndarray] = []
    for parameter in network.parameters():
        parameter.register_hook(lambda gradient: gradients.append(gradient.numpy()))
    values = [parameter.numpy() for parameter in network.parameters()]
    by_hand = [updates(recipe), updates(recipe)]
    for step in range(3):
        images, classes = batch(step)
        rate = learner.optimizer.get_lr()
        wanted, *slopes = loss_and_gradient(images.reshape(BATCH, -1), smoothed(classes, recipe), *values)
        got, correct = learn(learner, paddle.to_tensor(images), paddle.to_tensor(classes), seed=step)
        assert got == pytest.approx(wanted, rel=1e-9)
        logits = images.reshape(BATCH, -1) @ values[0] + values[1]
        assert correct == (logits.argmax(1) == classes).sum()
        found = {gradient.shape: gradient for gradient in gradients[-2:]}
        for slope in slopes:
            np.testing.assert_allclose(found[slope.shape], slope, rtol=1e-9, atol=1e-12)
        new = [change(value, slope, rate) for change, value, slope in zip(by_hand, values, slopes, strict=True)]
        for parameter, value, before in zip(network.parameters(), new, values, strict=True):
            # Paddle's optimisers keep learning rate, decay and betas in float32.
            np.testing.assert_allclose(parameter.numpy() - before, value - before, rtol=1e-5, atol=1e-10)
        values = [parameter.numpy() for parameter in network.parameters()]


def learner_of(recipe: Recipe, network: nn.Layer) -> Learner:
    return make_learner(network, recipe, 10, CLASSES)


def test_mixup_mixes_pictures_and_targets_by_the_same_share() -> None:
    images, classes = batch()
    targets = np.eye(CLASSES)[classes]
    mixed, mixed_targets = mix_pairs(paddle.to_tensor(images), paddle.to_tensor(targets), 0.4, seed=5)
    random = np.random.default_rng(5)
    share, partners = random.beta(0.4, 0.4), random.permutation(BATCH)
    np.testing.assert_allclose(mixed.numpy(), share * images + (1 - share) * images[partners], rtol=1e-12)
    np.testing.assert_allclose(mixed_targets.numpy(), share * targets + (1 - share) * targets[partners], rtol=1e-12)


def test_mixup_reaches_the_loss() -> None:
    from dataclasses import replace

    images, classes = batch()
    recipe = replace(RECIPES[0], mixup=0.4)
    network = tiny()
    values = [parameter.numpy() for parameter in network.parameters()]
    mixed, targets = mix_pairs(
        paddle.to_tensor(images), paddle.to_tensor(np.eye(CLASSES)[classes]), recipe.mixup, seed=5
    )
    smooth = (1 - recipe.label_smoothing) * targets.numpy() + recipe.label_smoothing / CLASSES
    wanted, *_ = loss_and_gradient(mixed.numpy().reshape(BATCH, -1), smooth, *values)
    got, _ = learn(learner_of(recipe, network), paddle.to_tensor(images), paddle.to_tensor(classes), seed=5)
    assert got == pytest.approx(wanted, rel=1e-9)


def test_a_loss_that_is_no_number_updates_nothing() -> None:
    network = tiny()
    images, classes = batch()
    images[0, 0, 0, 0] = np.nan
    before = [parameter.numpy().copy() for parameter in network.parameters()]
    loss, _ = learn(learner_of(RECIPES[0], network), paddle.to_tensor(images), paddle.to_tensor(classes), seed=0)
    assert np.isnan(loss)
    for parameter, value in zip(network.parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.numpy(), value)


def test_the_seed_decides_what_dropout_drops() -> None:
    def loss_of(seed: int) -> float:
        paddle.seed(1)
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(INPUTS, CLASSES)).to(dtype="float64")
        network.train()
        images, classes = batch()
        return learn(learner_of(RECIPES[0], network), paddle.to_tensor(images), paddle.to_tensor(classes), seed)[0]

    assert loss_of(7) == loss_of(7) != loss_of(8)


@pytest.mark.gpu
def test_mixed_precision_learns_nearly_the_same() -> None:
    if not paddle.is_compiled_with_cuda():
        pytest.skip("Paddle computes in bfloat16 on a GPU only, and this paddlepaddle finds none")
    images, classes = batch()
    tensors = paddle.to_tensor(images.astype(np.float32)), paddle.to_tensor(classes)
    losses = []
    for mixed in (False, True):
        paddle.seed(3)
        network = nn.Sequential(nn.Flatten(), nn.Linear(INPUTS, CLASSES))
        learner = make_learner(network, RECIPES[0], 10, CLASSES, mixed=mixed)
        losses.append(learn(learner, *tensors, seed=0)[0])
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)
    assert losses[1] != losses[0]
