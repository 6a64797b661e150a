"""From a plan to a static network: a new one; the dynamic one stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from dyx.errors import FoldDiffers
from dyx.exporter.plan import Decision, Plan
from dyx.nn.framework import nn, paddle

EXACT = 1e-9
"""What "the same" means in float64, as a share of max |y|."""


@contextmanager
def default_dtype(dtype: str) -> Iterator[None]:
    """Paddle's default dtype inside the block."""
    before = paddle.get_default_dtype()
    paddle.set_default_dtype(dtype)
    try:
        yield
    finally:
        paddle.set_default_dtype(before)


def apply_plan(plan: Plan, network: Any, inputs: Mapping[str, np.ndarray]) -> Any:
    """A new float32 network in which every site is folded and dropout is gone.

    Each new layer is first run in float64 beside the one it replaces, on the input that one saw.

    Args:
        plan: A decision per site.
        network: The dynamic network in float64 and eval mode.
        inputs: Path of a site to its float64 input.

    Raises:
        FoldDiffers: A new layer does not compute what it replaces.
    """
    static = copy.deepcopy(network)
    with default_dtype("float64"):
        for decision in plan.decisions:
            folded = build_checked(decision, network, inputs[decision.site.path])
            replace_layer(static, decision.site.path, folded)
            if decision.site.batch_norm:
                replace_layer(static, decision.site.batch_norm, nn.Identity())
    drop_dropout(static)
    static.eval()
    return static.to(dtype="float32")


def build_checked(decision: Decision, network: Any, image: np.ndarray) -> Any:
    """The folded layer of one decision in float64, compared with what it replaces. Raises FoldDiffers."""
    site = decision.site
    folded = decision.offer.build()
    folded.eval()
    with paddle.no_grad():
        # A computed kernel is one row's: compare row by row then.
        rows = [image[i : i + 1] for i in range(len(image))] if decision.offer.computed_kernel else [image]
        got = np.concatenate([folded(paddle.to_tensor(row)).numpy() for row in rows])
        wanted = _original(network, site.path, site.batch_norm)(paddle.to_tensor(image)).numpy()
    error = float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), np.finfo(np.float64).tiny))
    if not error <= EXACT:  # also when it is NaN
        raise FoldDiffers(site.path, decision.rule, error, EXACT)
    return folded


def _original(network: Any, path: str, batch_norm: str | None) -> Any:
    layer = layer_at(network, path)
    return nn.Sequential(layer, layer_at(network, batch_norm)) if batch_norm else layer


def layer_at(network: Any, path: str) -> Any:
    """The sublayer at a dotted path; the network itself at the empty one."""
    for name in filter(None, path.split(".")):
        network = network._sub_layers[name]
    return network


def replace_layer(network: Any, path: str, layer: Any) -> None:
    """Put another layer at a dotted path, in place."""
    parent, _, name = path.rpartition(".")
    owner = layer_at(network, parent)
    owner._sub_layers[name] = layer


def drop_dropout(network: Any) -> None:
    """Replace dropout that does nothing in eval mode by nothing at all, in place."""
    kinds = (nn.Dropout, nn.Dropout2D, nn.Dropout3D, nn.AlphaDropout)
    for path, layer in list(network.named_sublayers()):
        # In mode "downscale_in_infer" dropout scales its input in eval mode too: it stays.
        if isinstance(layer, kinds) and getattr(layer, "mode", "upscale_in_train") == "upscale_in_train":
            replace_layer(network, path, nn.Identity())
