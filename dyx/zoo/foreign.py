"""A checkpoint of torch in the names and layouts of a Paddle network.

What differs, and is told from the network that the checkpoint is for:

- A prefix that every key has, and the network's keys do not, goes: `module.`, `_orig_mod.`, `model.`, `backbone.`
- torch's `running_mean` and `running_var` are Paddle's `_mean` and `_variance`.
- The weight of a linear layer is `(out, in)` in torch and `(in, out)` in Paddle.
- timm keeps the kernels of a CondConv flat, `(E, C_out · C_in / groups · k · k)`.
- A linear layer of one side may be a 1×1 convolution on the other: shapes that differ in trailing ones are the same.

Layouts cannot be told from shapes, since a square weight fits both ways. So one verdict holds for a whole checkpoint:

1. It has `_mean` or `_variance`: Paddle's, and nothing is transposed.
2. It has `running_mean` or `running_var` where the network has Paddle's names: torch's.
3. Its file says so: a `.pdparams` is Paddle's, a `.pth` torch's, a `.safetensors` of what its metadata tell.
4. A `.safetensors` without metadata, of a network without batch norm: Paddle's if every shape fits as it is, and
   torch's otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from dyx.checkpoint import Checkpoint
from dyx.nn.framework import nn
from dyx.zoo import MODELS

Shape = tuple[int, ...]

_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
_STATISTICS = {"running_mean": "_mean", "running_var": "_variance"}


class Mapped(NamedTuple):
    """A checkpoint as a network wants it.

    Attributes:
        arrays: By the network's keys; what the network has no key for keeps the name that it has in the file.
        notes: What was changed, in words.
    """

    arrays: Mapping[str, np.ndarray]
    notes: tuple[str, ...]


def mapped(network: Any, checkpoint: Checkpoint) -> Mapped:
    """A checkpoint in the names and layouts of a Paddle network, whichever framework wrote it. See the module's text.

    Args:
        network: A Paddle Layer; only looked at.
        checkpoint: As it was read.
    """
    own: dict[str, Shape] = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    prefix = _prefix(checkpoint.arrays.keys()).removesuffix(_prefix(own.keys()))
    bare = {key: key.removeprefix(prefix) for key in checkpoint.arrays}
    wanted = own.keys() - bare.values()
    names = {key: name if name in own else _renamed(key, name, wanted) for key, name in bare.items()}
    arrays = {names[key]: array for key, array in checkpoint.arrays.items()}
    notes = [f"prefix {prefix!r} taken off every key"] if prefix else []
    if _is_torch(checkpoint, names, own):
        arrays, changes = _in_paddle_layout(network, arrays, own)
        notes += changes
    return Mapped(arrays, tuple(notes))


def look_alikes(own: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Names of the reference models that have just as many numbers as a checkpoint that does not fit a network.

    Args:
        own: The network's state dict.
        arrays: The checkpoint's, mapped.
    """
    numbers = count(arrays)
    if numbers == sum(int(np.prod(tensor.shape)) for tensor in own.values()):
        return ()  # as many as the network itself: the model that was asked for would be named
    return tuple(model.name for model in MODELS if model.parameters == numbers)


def count(arrays: Mapping[str, np.ndarray]) -> int:
    """How many numbers there are in all."""
    return sum(array.size for array in arrays.values())


def _prefix(keys: Collection[str]) -> str:
    """What every key begins with and a wrapper may have put there, such as `"module._orig_mod."`."""
    prefix = ""
    while keys and (more := next((p for p in _PREFIXES if all(key.startswith(prefix + p) for key in keys)), None)):
        prefix += more
    return prefix


def _renamed(key: str, bare: str, wanted: Collection[str]) -> str:
    """Paddle's name of a running statistic, where the network wants it; else the key as the file has it."""
    place, dot, last = bare.rpartition(".")
    name = f"{place}{dot}{_STATISTICS.get(last, last)}"
    return name if name in wanted else key


def _is_torch(checkpoint: Checkpoint, names: Mapping[str, str], own: Mapping[str, Shape]) -> bool:
    """The verdict of the module's text; `names` are the network's, by the file's."""
    if any(_last(key) in _STATISTICS.values() for key in names):
        return False
    if any(_last(name) in _STATISTICS.values() for name in names.values()):
        return True
    if checkpoint.framework:
        return checkpoint.framework == "torch"
    return any(array.shape != own.get(names[key], array.shape) for key, array in checkpoint.arrays.items())


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _in_paddle_layout(
    network: Any, arrays: Mapping[str, np.ndarray], own: Mapping[str, Shape]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Torch's arrays as the network's layers hold them, and what was done, in words."""
    layers = dict(network.named_sublayers(include_self=True))
    turned: dict[str, np.ndarray] = {}
    transposed = reshaped = 0
    for key, array in arrays.items():
        layer = layers.get(key.rpartition(".")[0])
        linear = isinstance(layer, nn.Linear) and len(_trimmed(array.shape, 2)) == 2
        flipped = array.reshape(array.shape[:2]).T.copy() if linear else array
        turned[key] = _reshaped(layer, flipped, own.get(key, array.shape))
        transposed += linear
        reshaped += turned[key].shape != flipped.shape
    counts = {"linear weights transposed": transposed, "arrays reshaped": reshaped}
    done = [f"{number} {what}" for what, number in counts.items() if number]
    return turned, [f"from torch's layout to Paddle's: {', '.join(done)}"] if done else []


def _reshaped(layer: Any, array: np.ndarray, shape: Shape) -> np.ndarray:
    """An array in a layer's shape, where the two are the same numbers in the same order; else as it is."""
    flat = type(layer).__name__ == "CondConv2D" and array.ndim == 2 and array.shape[0] == shape[0]
    if _trimmed(array.shape) == _trimmed(shape) or (flat and array.size == np.prod(shape)):
        return array.reshape(shape)
    return array


def _trimmed(shape: Shape, least: int = 0) -> Shape:
    """A shape without its trailing ones, but with `least` axes if it had them."""
    while len(shape) > least and shape[-1] == 1:
        shape = shape[:-1]
    return shape
