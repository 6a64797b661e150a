"""Filling a network: from a checkpoint, or with seeded weights that exercise every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dyx.checkpoint import Checkpoint
from dyx.errors import CheckpointMismatch
from dyx.inputs import varied_images
from dyx.nn.adapters import dynamic_layers
from dyx.nn.framework import nn, paddle

_SCORE_DEVIATION = 1.5
"""Of score differences between experts: attention then spreads over about .03 … .97."""


def load_weights(network: Any, checkpoint: Checkpoint) -> None:
    """Put a checkpoint into a network, key by key. Raises CheckpointMismatch, which lists every key that is off."""
    own: Mapping[str, Any] = network.state_dict()
    arrays = checkpoint.arrays
    missing = [key for key in own if key not in arrays]
    extra = [key for key in arrays if key not in own]
    misshapen = {
        key: f"{list(array.shape)}, wanted {list(own[key].shape)}"
        for key, array in arrays.items()
        if key in own and array.shape != tuple(own[key].shape)
    }
    if missing or extra or misshapen:
        raise CheckpointMismatch(checkpoint.path, missing, extra, misshapen)
    for key, tensor in own.items():
        tensor.set_value(arrays[key].astype(_numpy_dtype(tensor)))


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
    hooks = [*_batch_norm_hooks(network, random), *_routing_hooks(network)]
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


def _routing_hooks(network: Any) -> list[Any]:
    """After each layer of routing scores: rescale it so that experts really compete over varied inputs."""

    def spread(layer: Any, _inputs: Any, output: Any) -> Any:
        scores = output.numpy().reshape(len(output), -1).astype(np.float64)
        relative = scores - scores.mean(axis=1, keepdims=True)
        differences = (relative[:, :, None] - relative[:, None, :])[:, ~np.eye(scores.shape[1], dtype=bool)]
        scale = _SCORE_DEVIATION / max(differences.std(axis=0).mean(), 1e-6) if differences.size else 1.0
        shift = -scale * scores.mean(axis=0)
        for tensor, change in ((layer.weight, 0.0), (layer.bias, shift)):
            value = tensor.numpy() * scale + change
            tensor.set_value(value.astype(_numpy_dtype(tensor)))
        return output * scale + paddle.to_tensor(shift.astype(_numpy_dtype(output))).reshape(
            [1, -1, 1, 1][: output.ndim]
        )

    return [
        adapter.scores(layer).register_forward_post_hook(spread) for layer, adapter in dynamic_layers(network).values()
    ]
