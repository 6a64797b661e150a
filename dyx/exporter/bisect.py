"""How far the static network is from the dynamic one, layer by layer, and after a miss the first that differs."""

from __future__ import annotations

from typing import Any

import numpy as np

from dyx.exporter.trace import observed_calls
from dyx.nn.framework import paddle


def first_difference(static: Any, dynamic: Any, image: np.ndarray, allowed: float) -> str:
    """A sentence that names the first layer whose output differs by more than `allowed` of its max |y|.

    Args:
        static: The folded network in float32.
        dynamic: The dynamic network in float64.
        image: float32 inputs.
        allowed: Share of max |y|.
    """
    for path, error in layer_errors(static, dynamic, image).items():
        if not error <= allowed:
            return f"The first layer that differs is {path}: {error:.2e} of its max |y| in eager float32"
    return "Every layer of the static network agrees in eager float32; the conversion or its runtime differs"


def layer_errors(static: Any, dynamic: Any, image: np.ndarray) -> dict[str, float]:
    """Path → how far the static network's output is from the dynamic one's, as a share of max |y|, forward order.

    Args:
        static: The folded network in float32.
        dynamic: The dynamic network in float64.
        image: float32 inputs.
    """
    folded, errors = _outputs(static, image), {}
    for path, wanted in _outputs(dynamic, image.astype(np.float64)).items():
        got = folded.get(path)
        if got is None or got.shape != wanted.shape:
            continue  # inside a fold: what its batch norm gave is compared at the batch norm's own path
        errors[path] = float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), np.finfo(np.float64).tiny))
    return errors


def _outputs(network: Any, image: np.ndarray) -> dict[str, np.ndarray]:
    """Path → output in float64, of every layer that was called, in the order of the forward."""
    calls, logits = observed_calls(network, paddle.to_tensor(image), "the network")
    tensors = {call.path: call.output for call in calls if isinstance(call.output, paddle.Tensor)}
    return {path: tensor.numpy().astype(np.float64) for path, tensor in (tensors | {"logits": logits}).items()}
