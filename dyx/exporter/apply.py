"""From a plan to a static network: a new one; the dynamic one stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from dyx.errors import FoldDiffers
from dyx.exporter.folded.constants import SharedConstants
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


def apply_plan(plan: Plan, network: Any, inputs: Mapping[str, tuple[np.ndarray, ...]]) -> Any:
    """A new float64 network in which every site is folded and dropout is gone.

    Each new layer is first run in float64 beside the one it replaces, on the input that one saw.

    Args:
        plan: A decision per site.
        network: The dynamic network in float64 and eval mode.
        inputs: Path of a site, or of the layer before it, to the float64 inputs that it saw.

    Raises:
        FoldDiffers: A new layer does not compute what it replaces.
    """
    static = copy.deepcopy(network)
    shared = SharedConstants(channels_last=plan.channels_last)
    with default_dtype("float64"):
        for decision in plan.decisions:
            replace_layer(static, decision.site.path, build_checked(decision, network, inputs, shared))
            for path in decision.offer.takes:
                replace_layer(static, path, nn.Identity())
    for giver, reader in plan.joined:
        layer_at(static, giver).gives_positions = layer_at(static, reader).reads_positions = True
    drop_dropout(static)
    static.eval()
    return static


def build_checked(
    decision: Decision, network: Any, inputs: Mapping[str, tuple[np.ndarray, ...]], shared: SharedConstants
) -> Any:
    """The folded layer of one decision in float64, compared with what it replaces. Raises FoldDiffers."""
    offer, run = decision.offer, _run(decision)
    folded = offer.build(shared)
    folded.eval()
    if offer.lossy:
        return folded
    seen = inputs[run[0]]
    with paddle.no_grad():
        # A computed kernel is one row's: compare row by row then.
        rows = [tuple(array[i : i + 1] for array in seen) for i in range(len(seen[0]))]
        got = np.concatenate([_run_layers([folded], row) for row in (rows if offer.computed_kernel else [seen])])
        wanted = _run_layers([layer_at(network, path) for path in run], seen)
    check_same(decision.site.path, decision.rule, got, wanted)
    return folded


def check_same(path: str, rule: str, got: np.ndarray, wanted: np.ndarray) -> None:
    """Raises FoldDiffers where what a rule built at a path gives, in float64, is not what was wanted."""
    error = float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), np.finfo(np.float64).tiny))
    if not error <= EXACT:  # also when it is NaN
        raise FoldDiffers(path, rule, error, EXACT)


def _run(decision: Decision) -> list[str]:
    """Paths of the layers that an offer computes, in the order of the forward."""
    site, takes = decision.site, decision.offer.takes
    before = [site.before.path] if site.before and site.before.path in takes else []
    return [*before, site.path, *(found.path for found in site.after if found.path in takes)]


def _run_layers(layers: Sequence[Any], inputs: tuple[np.ndarray, ...]) -> np.ndarray:
    """What layers give one after the other, the first for all inputs."""
    first, *others = layers
    y = first(*map(paddle.to_tensor, inputs))
    for layer in others:
        y = layer(y)
    found: np.ndarray = y.numpy()
    return found


def layer_at(network: Any, path: str) -> Any:
    """The sublayer at a dotted path; the network itself at the empty one."""
    for name in filter(None, path.split(".")):
        network = network._sub_layers[name]
    return network


def replace_layer(network: Any, path: str, layer: Any) -> None:
    """Put another layer in the place of the one at a dotted path, under whatever other names that one has too."""
    replaced = layer_at(network, path)
    for owner in network.sublayers(include_self=True):
        for name, found in owner._sub_layers.items():
            if found is replaced:
                owner._sub_layers[name] = layer


def drop_dropout(network: Any) -> None:
    """Replace dropout that does nothing in eval mode by nothing at all, in place."""
    kinds = (nn.Dropout, nn.Dropout2D, nn.Dropout3D, nn.AlphaDropout)
    for path, layer in list(network.named_sublayers()):
        # In mode "downscale_in_infer" dropout scales its input in eval mode too: it stays.
        if isinstance(layer, kinds) and getattr(layer, "mode", "upscale_in_train") == "upscale_in_train":
            replace_layer(network, path, nn.Identity())
