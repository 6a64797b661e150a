"""Folding without exporting: a layer or a network in, an ordinary Paddle Layer out."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from dyx.errors import InvalidOption, ModelUnusable
from dyx.exporter.apply import apply_plan
from dyx.exporter.join import join
from dyx.exporter.plan import AUTO, make_plan
from dyx.exporter.rule import Target, check_target
from dyx.exporter.trace import trace_sites
from dyx.inputs import varied_images
from dyx.nn.adapters import check_layers, dynamic_layers, set_temperature
from dyx.nn.framework import Layer, nn

_NOMINAL_SIZE = 14
_TRACED_IMAGES = 4


def fold(
    layer: Any,
    *,
    temperature: float | None = None,
    rule: str = AUTO,
    batch: int | None = None,
    shape: tuple[int, int, int] | None = None,
) -> Any:
    """The static network of a dynamic layer or network: an ordinary float32 Paddle Layer in eval mode.

    The layer given stays as it is. Every fold is checked in float64 against what it replaces.

    Args:
        layer: A dynamic layer, or a network that holds some.
        temperature: Of every dynamic layer; by default the one that training of its kind ends at.
        rule: A rule id, or "auto".
        batch: The batch size that the result is for, or None for any.
        shape: Of one input, `(C, H, W)`. A network needs it; a single layer is traced at its own channels and 14×14
            unless it is given.

    Raises:
        InvalidOption, UnknownName, ModelUnusable, LayerUnreadable, FoldRefused, FoldDiffers.
    """
    if not isinstance(layer, Layer):
        raise InvalidOption("layer", type(layer).__name__, "a paddle.nn.Layer")
    if temperature is not None and not temperature >= 0:
        raise InvalidOption("temperature", temperature, "a number from 0 up")
    target = check_target(replace(Target(), batch=batch))
    # Behind one more layer, so that a single dynamic layer has a path like any other.
    reference = nn.Sequential(copy.deepcopy(layer)).to(dtype="float64")
    reference.eval()
    check_layers(reference)
    set_temperature(reference, temperature)
    image = varied_images(shape or _own_shape(reference), _TRACED_IMAGES, np.random.default_rng(0))
    name, traced = type(layer).__name__, image.astype(np.float64)
    trace = trace_sites(reference, traced, name, logits=False)
    plan = join(make_plan(trace.sites, target, (rule,), name), reference, traced, name)
    return apply_plan(plan, reference, trace.inputs).to(dtype="float32")[0]


def _own_shape(reference: Any) -> tuple[int, int, int]:
    """The nominal input of a single dynamic layer. Raises ModelUnusable for anything else."""
    found = dynamic_layers(reference)
    if list(found) != ["0"]:
        kind = type(reference[0]).__name__
        raise ModelUnusable(kind, "it is a network, and its input shape is not known", "give shape=(C, H, W)")
    layer, adapter = found["0"]
    parameters = adapter.read(layer)
    if parameters.channels_in is None:
        raise ModelUnusable(type(layer).__name__, "it takes any number of channels", "give shape=(C, H, W)")
    side = max(_NOMINAL_SIZE, parameters.smallest_side)
    return parameters.channels_in, side, side
