"""Pixels in place of normalised values as the input: the normalisation goes into the network.

A network that was trained on `(p / 255 - mean) / std` is given the pixels p. With `m = 255 · mean` and `d = 255 · std`,
one value per channel, its first convolution computes

    conv((p - m) / d, W) + b = conv(p - m, W / d) + b            whatever it pads: zeros are the mean on both sides
                             = conv(p, W / d) + b - Σ W · m / d  where it pads nothing

So nothing is divided at run time, and what is left is a cast and at most one subtraction. Where something else reads
the input too, pixels are normalised in front of the network: a subtraction and a product.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from dyx.exporter.apply import check_same, default_dtype, layer_at
from dyx.exporter.folded.constants import constant
from dyx.exporter.trace import Call, sole_reader
from dyx.nn.framework import nn, paddle
from dyx.nn.reading import array_of, optional_array_of
from dyx.preprocess import Preprocess

_SUBTRACT, _MULTIPLY = "subtract the mean", "multiply by the factor"


def taking_pixels(network: Any, preprocess: Preprocess, dtype: str) -> Any:
    """A copy of a network that takes pixels and normalises them in front of itself.

    Args:
        network: A Paddle Layer that takes what `preprocess` gives, `(batch, 3, H, W)`. Layers of the copy keep their
            paths; it takes pixels in uint8 or any other dtype.
        preprocess: Tells mean and std, in the order of the network's channels.
        dtype: Of the network's own parameters.
    """
    changed = copy.deepcopy(network)
    mean, std = (255 * np.array(values).reshape(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    # Buffers and a hook, not a layer in front: paths would change, and a Sequential would run one more at its end.
    for name, values in (("dyx_mean", mean), ("dyx_factor", 1 / std)):
        changed.register_buffer(name, paddle.to_tensor(values, dtype))
    changed.dyx_steps = (_SUBTRACT, _MULTIPLY)
    hook = changed.register_forward_pre_hook(_normalise)
    # Hooks that the network has of its own look at what it was trained on.
    changed._forward_pre_hooks.move_to_end(hook._hook_id, last=False)
    return changed


def _normalise(network: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a network that takes pixels does to them first."""
    x = inputs[0].astype(network.dyx_mean.dtype)
    if _SUBTRACT in network.dyx_steps:
        x = x - network.dyx_mean
    if _MULTIPLY in network.dyx_steps:
        x = x * network.dyx_factor
    return (x, *inputs[1:])


def fold_normalisation(network: Any, unfolded: Any, image: np.ndarray, name: str) -> tuple[Any, str]:
    """A network that takes pixels with as much of the normalisation as may be inside its first convolution.

    Args:
        network: As `taking_pixels` made it, in float64 and eval mode; it stays as it is.
        unfolded: What it was made from.
        image: Pixels in float64, `(batch, 3, H, W)`.
        name: What errors call the network.

    Returns:
        A copy, and what was done, in words.

    Raises:
        ModelUnusable: The forward fails.
        FoldDiffers: The copy does not compute what the network does.
    """
    folded, pixels = copy.deepcopy(network), paddle.to_tensor(image)
    (x,) = _normalise(network, (pixels,))
    reader = sole_reader(unfolded, x, name)
    if reader is None or not _is_ordinary(reader):
        return folded, "takes pixels, which are normalised in front: not one ordinary convolution alone reads them"
    _fold_into(layer_at(folded, reader.path), folded)
    with paddle.no_grad():
        check_same(reader.path, "the normalisation", folded(pixels).numpy(), network(pixels).numpy())
    return folded, f"takes pixels: the normalisation is inside {reader.path}"


def _is_ordinary(reader: Call) -> bool:
    """Whether a call is that of a static convolution in one group that pads with zeros, if at all."""
    layer = reader.layer
    if type(layer) is not nn.Conv2D or layer._forward_pre_hooks:  # a hook may make its weight anew in each call
        return False
    return bool(layer._groups == 1 and layer._padding_mode == "zeros" and layer._data_format == "NCHW")


def _fold_into(conv: Any, network: Any) -> None:
    """Put the factor into a convolution's weight, and the mean into its bias where nothing is padded."""
    mean, factor = (network._buffers[name].numpy() for name in ("dyx_mean", "dyx_factor"))
    weight, bias = array_of(conv, "weight") * factor, optional_array_of(conv, "bias")
    network.dyx_steps = (_SUBTRACT,)
    with default_dtype("float64"):
        constant(conv, "weight", weight)
        if not _pads(conv._padding):
            constant(conv, "bias", (0 if bias is None else bias) - (weight * mean).sum(axis=(1, 2, 3)))
            network.dyx_steps = ()


def _pads(padding: Any) -> bool:
    """Whether a padding as Paddle's layers keep it, a word, a number or numbers in lists, is anything but nothing."""
    return padding.upper() != "VALID" if isinstance(padding, str) else bool(np.any(padding))
