"""From a static network to the files of Paddle Inference."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import dyx.exporter.folded
import dyx.exporter.pixels
import dyx.zoo
from dyx.bundle import PADDLE_PARAMETERS, PADDLE_PROGRAM
from dyx.errors import ConversionFailed
from dyx.exporter.naming import layers_noted
from dyx.nn.framework import Layer, paddle
from dyx.tensors import TensorSpec

_TRACED_AS_THEY_STAND = (dyx.exporter.folded, dyx.exporter.pixels, dyx.zoo)
"""Nothing here branches on a tensor or asks for the batch size, so Paddle need not rewrite the source of each layer,
which takes longer than the trace itself. The user's own classes are rewritten as ever."""


class _Frozen(Layer):
    """The network behind a `forward(self, image)`: Paddle's tracer finds the input by these very names."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Any) -> Any:
        """Logits of images."""
        return self.network(image)


def to_paddle(network: Any, image: TensorSpec, folder: Path) -> None:
    """Write `model.json` and `model.pdiparams` of a network into a folder; its operations name their layers.

    Args:
        network: A static Paddle Layer in eval mode.
        image: The input; a named dimension stays free.
        folder: Where to write.

    Raises:
        ConversionFailed: Paddle cannot trace the network, or wrote no file.
    """
    shape = [None if isinstance(size, str) else size for size in image.shape]
    spec = paddle.static.InputSpec(shape, image.dtype, image.name)
    frozen = _Frozen(network)
    frozen.eval()
    paddle.jit.ignore_module(list(_TRACED_AS_THEY_STAND))
    try:
        with contextlib.redirect_stdout(io.StringIO()), _quietly(), layers_noted(network):
            paddle.jit.save(frozen, str(folder / Path(PADDLE_PROGRAM).stem), input_spec=[spec])
    except Exception as error:  # whatever the network's own forward does under the tracer
        raise ConversionFailed("paddle.jit.save", _last_line(error), _hint(network)) from error
    absent = [name for name in (PADDLE_PROGRAM, PADDLE_PARAMETERS) if not (folder / name).is_file()]
    if absent:
        raise ConversionFailed("paddle.jit.save", f"it wrote no {' and no '.join(absent)}")


@contextlib.contextmanager
def _quietly() -> Any:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Paddle's own `zeros_like` asks for what its tracer then warns of.
            warnings.filterwarnings("ignore", message="Tensor do not have 'place' interface")
            yield
    finally:
        logging.disable(before)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"


def _hint(network: Any) -> str:
    """Layers that are neither Paddle's nor dyx's are the likely cause; name them."""
    own = {
        f"{path} ({type(layer).__name__})"
        for path, layer in network.named_sublayers()
        if not type(layer).__module__.startswith(("paddle.", "dyx."))
        and list(layer.parameters(include_sublayers=False))
    }
    if not own:
        return "the forward must be one that paddle.jit can trace with a free batch"
    return f"left as they stand: {', '.join(sorted(own))}; dyx.register_layer teaches dyx to fold a class"
