"""What it takes to read a layer: the adapter, and attributes and parameters that must be there.

An adapter turns a layer into plain arrays and numbers, so that the rules that fold it never see whose class it was.
Nothing is guessed: a class is recognised by its name, then its attributes and shapes are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dyx.errors import LayerUnreadable

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Scores:
    """A sublayer whose outputs become attention, and how they vary once weights are drawn instead of trained.

    Attributes:
        layer: A 1×1 convolution or a linear layer, with a bias or without.
        deviation: Standard deviation of a score over varied inputs.
        centre: Standard deviation of the scores' means; ignored where the layer has no bias.
        competing: Whether a softmax follows, so that only differences between scores count.
    """

    layer: Any
    deviation: float
    centre: float = 0.0
    competing: bool = False


class LayerParameters(Protocol):
    """What every layer is read into, whatever else its kind holds."""

    @property
    def experts(self) -> int | None:
        """How many kernels are mixed; None where none are."""

    @property
    def channels_in(self) -> int | None:
        """Channels of the input; None where any number will do."""

    @property
    def smallest_side(self) -> int:
        """The side of the smallest map that the layer can see."""


@dataclass(frozen=True)
class LayerAdapter:
    """How dyx reads a class of dynamic layer.

    Attributes:
        kind: The kind of layer, as rule ids name it ("dyconv").
        read: A layer's parameters. Raises LayerUnreadable where the layer is not what its name says.
        scores: The sublayers that make the scores, with the spread that drawn weights should have.
        set_temperature: Sets a layer's temperature in place; None where the kind has none.
        final_temperature: The temperature that training ends at, where accuracy is.
        attention: From a layer and its inputs to what it mixes with: arrays whose first axis is the batch. None where
            a mean attention makes no sense.
    """

    kind: str
    read: Callable[[Any], LayerParameters]
    scores: Callable[[Any], Sequence[Scores]]
    set_temperature: Callable[[Any, float], None] | None = None
    final_temperature: float = 1.0
    attention: Callable[..., tuple[Any, ...]] | None = None


def attribute(layer: Any, name: str, owner: str = "") -> Any:
    """An attribute of a layer. Raises LayerUnreadable where it is absent."""
    try:
        return getattr(layer, name)
    except AttributeError:
        raise LayerUnreadable(owner or type(layer).__name__, f"it has no attribute {name!r}") from None


def array_of(layer: Any, name: str) -> np.ndarray:
    """A parameter as float64. Raises LayerUnreadable where it is absent or no tensor."""
    import numpy as np

    tensor = attribute(layer, name)
    try:
        return np.asarray(tensor.numpy(), dtype=np.float64)
    except AttributeError:
        raise LayerUnreadable(type(layer).__name__, f"its {name!r} is a {type(tensor).__name__}, no tensor") from None


def optional_array_of(layer: Any, name: str) -> np.ndarray | None:
    """A parameter as float64, or None where the layer says None. Raises LayerUnreadable."""
    return None if attribute(layer, name) is None else array_of(layer, name)


def matrix_of(conv: Any, owner: str) -> tuple[np.ndarray, np.ndarray]:
    """A 1×1 convolution as a matrix `(out, in)` and a bias `(out,)`, zero where it has none. Raises LayerUnreadable."""
    import numpy as np

    weight, bias = array_of(conv, "weight"), optional_array_of(conv, "bias")
    if weight.shape[2:] != (1, 1):
        raise LayerUnreadable(owner, f"its routing has a kernel of {list(weight.shape[2:])}, not 1×1")
    return weight[:, :, 0, 0], np.zeros(len(weight)) if bias is None else bias
