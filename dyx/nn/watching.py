"""Looking at attention while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dyx.nn.adapters import dynamic_layers

if TYPE_CHECKING:
    import numpy as np

    Note = Callable[[str, tuple[np.ndarray, ...]], None]


@contextmanager
def watched_attention(network: Any, note: Note) -> Iterator[None]:
    """While it lasts, every forward tells what each dynamic layer mixes with.

    Args:
        network: A Paddle Layer.
        note: Called with a layer's path and its attention as float64 arrays, whose first axis is the batch.
    """
    hooks = [
        layer.register_forward_pre_hook(_telling(path, adapter.attention, note))
        for path, (layer, adapter) in dynamic_layers(network).items()
        if adapter.attention is not None
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _telling(path: str, attention: Callable[..., tuple[Any, ...]], note: Note) -> Any:
    def hook(layer: Any, inputs: tuple[Any, ...]) -> None:
        note(path, tuple(array.numpy().astype("float64") for array in attention(layer, *inputs)))

    return hook
