"""Filling a network: from a checkpoint, or with seeded weights that exercise every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dyx.checkpoint import Checkpoint
from dyx.errors import CheckpointMismatch
from dyx.inputs import varied_images
from dyx.nn.adapters import dynamic_layers
from dyx.nn.condconv import CondRouting
from dyx.nn.framework import nn, paddle
from dyx.nn.reading import Scores
from dyx.zoo.foreign import count, look_alikes, mapped

_STRONG_HEADS = 4
"""So many layers of scores may vary as strongly as they ask for; more of them are calmed down."""


def load_weights(network: Any, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Put a checkpoint into a network, key by key, and tell in words what was mapped to make it fit.

    Raises CheckpointMismatch, which lists every key that is off; nothing is loaded then.
    """
    own: Mapping[str, Any] = network.state_dict()
    arrays, notes = mapped(network, checkpoint)
    missing = [key for key in own if key not in arrays]
    extra = [key for key in arrays if key not in own]
    misshapen = {
        key: f"{list(array.shape)}, wanted {list(own[key].shape)}"
        for key, array in arrays.items()
        if key in own and array.shape != tuple(own[key].shape)
    }
    if missing or extra or misshapen:
        alike = look_alikes(own, arrays)
        raise CheckpointMismatch(checkpoint.path, missing, extra, misshapen, alike, count(arrays))
    for key, tensor in own.items():
        tensor.set_value(arrays[key].astype(_numpy_dtype(tensor)))
    return notes


def _numpy_dtype(tensor: Any) -> str:
    return str(tensor.dtype).rpartition(".")[2]


def draw_weights(network: Any, shape: tuple[int, ...], seed: int) -> None:
    """Fill a network with seeded weights, strong routing and batch-norm statistics that fit what flows through.

    Weights as a constructor leaves them have near-uniform attention and trivial statistics: an export of such a
    network proves little and a benchmark of it flatters. One forward over varied inputs sets, layer by layer, the
    statistics of each batch norm and the scale and shift of each last routing layer.

    Args:
        network: A Paddle Layer; changed in place.
        shape: Of its input, `(channels, height, width)`.
        seed: Of everything drawn.
    """
    random = np.random.default_rng(seed)
    for key, tensor in network.state_dict().items():
        tensor.set_value(_drawn(key, tuple(tensor.shape), random).astype(_numpy_dtype(tensor)))
    hooks = [*_batch_norm_hooks(network, random), *_score_hooks(network, random)]
    network.eval()
    try:
        with paddle.no_grad():
            network(paddle.to_tensor(varied_images(shape, 32, random)))
    finally:
        for hook in hooks:
            hook.remove()


def _drawn(key: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """He-scaled kernels, small biases; batch norms get their statistics later."""
    if key.endswith("_variance"):
        return np.ones(shape)
    if len(shape) == 1 and key.endswith("weight"):
        return random.uniform(0.6, 1.4, shape)
    if len(shape) <= 1 or key.endswith("bias"):
        return random.normal(0, 0.2, shape)
    # Linear weights are (in, out); kernels (…, C_out, C_in, h, w), with experts in front.
    fan_in = shape[0] if len(shape) == 2 else int(np.prod(shape[-3:]))
    return random.normal(0, (2 / fan_in) ** 0.5, shape)


def _batch_norm_hooks(network: Any, random: np.random.Generator) -> list[Any]:
    """Before each batch norm: statistics of what arrives, shaken a little so that they are not the batch's own."""

    def measure(layer: Any, inputs: tuple[Any, ...]) -> None:
        x = inputs[0].numpy().astype(np.float64)
        axes = (0, *range(2, x.ndim))
        mean, variance = x.mean(axes), x.var(axes) + 1e-3
        mean += random.normal(0, 0.2, mean.shape) * np.sqrt(variance)
        variance *= random.uniform(0.7, 1.4, variance.shape)
        layer._mean.set_value(mean.astype(_numpy_dtype(layer._mean)))
        layer._variance.set_value(variance.astype(_numpy_dtype(layer._variance)))

    kinds = (nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D, nn.BatchNorm)
    return [layer.register_forward_pre_hook(measure) for layer in network.sublayers() if isinstance(layer, kinds)]


def _score_hooks(network: Any, random: np.random.Generator) -> list[Any]:
    """After each layer of scores: rescale it so that attention really varies over varied inputs."""
    heads = [head for layer, adapter in dynamic_layers(network).values() for head in adapter.scores(layer)]
    # A block's router serves several layers and belongs to none of them.
    heads += [Scores(layer.fc, 1.0, 0.5) for layer in network.sublayers() if isinstance(layer, CondRouting)]
    # Dozens of strongly varying layers in a row amplify rounding until float32 means nothing; training avoids that.
    calm = min(1.0, _STRONG_HEADS / max(len(heads), 1))
    return [head.layer.register_forward_post_hook(_spread(head, calm, random)) for head in heads]


def _spread(head: Scores, calm: float, random: np.random.Generator) -> Any:
    """A hook that gives scores the deviation and the centre that `head` asks for."""

    def rescale(layer: Any, _inputs: Any, output: Any) -> Any:
        scores = output.numpy().reshape(len(output), -1).astype(np.float64)
        found = _deviation(scores, competing=head.competing)
        scale = calm * head.deviation / found if found > 1e-6 else 1.0
        shift = np.zeros(scores.shape[1])
        if layer.bias is not None:
            shift = random.normal(0, head.centre, len(shift)) - scale * scores.mean(axis=0)
        for tensor, change in ((layer.weight, 0.0), (layer.bias, shift)):
            if tensor is not None:
                tensor.set_value((tensor.numpy() * scale + change).astype(_numpy_dtype(tensor)))
        added = paddle.to_tensor(shift.astype(_numpy_dtype(output)))
        return output * scale + added.reshape([1, -1, 1, 1][: output.ndim])

    return rescale


def _deviation(scores: np.ndarray, *, competing: bool) -> float:
    """Of scores `(B, n)` over inputs; of differences between scores where they compete."""
    if not competing:
        return float(scores.std(axis=0).mean())
    if scores.shape[1] == 1:
        return 0.0
    differences = (scores[:, :, None] - scores[:, None, :])[:, ~np.eye(scores.shape[1], dtype=bool)]
    return float(differences.std(axis=0).mean())
