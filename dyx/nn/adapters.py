"""Reading dynamic layers: a table from class names to adapters, for dyx's own classes and for the user's.

An adapter turns a layer into plain arrays and numbers, so that the rules that fold it never see whose class it was.
Nothing is guessed: a class is recognised by its name, then its attributes and shapes are checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dyx.errors import InvalidOption, LayerUnreadable

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Routing:
    """Softmax routing `softmax((fc2 · relu(fc1 · GAP(x) + b1) + b2) / T)`, as float64 arrays.

    Attributes:
        fc1_weight: `(h, C)`.
        fc1_bias: `(h,)`.
        fc2_weight: `(K, h)`.
        fc2_bias: `(K,)`.
        temperature: T.
    """

    fc1_weight: np.ndarray
    fc1_bias: np.ndarray
    fc2_weight: np.ndarray
    fc2_bias: np.ndarray
    temperature: float


@dataclass(frozen=True)
class DyConvParameters:
    """A K-expert convolution with softmax routing, as float64 arrays and its geometry.

    Attributes:
        weight: `(K, C_out, C_in / groups, *kernel)`.
        bias: `(K, C_out)`, or None.
        routing: Where the K weights come from.
        stride: One number per spatial axis.
        padding: One number per spatial axis, or a word that Paddle knows ("SAME", "VALID").
        dilation: One number per spatial axis.
        groups: Groups of the convolution.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    routing: Routing
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int

    @property
    def experts(self) -> int:
        """K."""
        return int(self.weight.shape[0])

    @property
    def channels_out(self) -> int:
        """C_out."""
        return int(self.weight.shape[1])

    @property
    def channels_in(self) -> int:
        """C_in."""
        return int(self.weight.shape[2]) * self.groups

    @property
    def kernel(self) -> tuple[int, ...]:
        """The kernel's spatial size."""
        return tuple(self.weight.shape[3:])

    def at(self, temperature: float) -> DyConvParameters:
        """The same layer at another temperature."""
        return replace(self, routing=replace(self.routing, temperature=temperature))


@dataclass(frozen=True)
class LayerAdapter:
    """How dyx reads a class of dynamic layer.

    Attributes:
        kind: The kind of layer, as rule ids name it ("dyconv").
        read: A layer's parameters. Raises LayerUnreadable where the layer is not what its name says.
        set_temperature: Sets a layer's temperature in place.
        scores: The sublayer whose output are the routing scores before the temperature: a 1×1 convolution or a
            linear layer with a bias.
    """

    kind: str
    read: Callable[[Any], DyConvParameters]
    set_temperature: Callable[[Any, float], None]
    scores: Callable[[Any], Any]


def read_dyconv(layer: Any) -> DyConvParameters:
    """The parameters of a `DYConv2D` written as the articles write it. Raises LayerUnreadable."""
    name = type(layer).__name__
    weight = array_of(layer, "weight")
    if weight.ndim < 4:
        raise LayerUnreadable(name, f"its weight has shape {list(weight.shape)}, not (K, C_out, C_in/groups, k, k)")
    axes = weight.ndim - 3
    parameters = DyConvParameters(
        weight=weight,
        bias=array_of(layer, "bias") if attribute(layer, "bias") is not None else None,
        routing=read_routing(attribute(layer, "routing"), name),
        stride=per_axis(layer, "stride", axes),
        padding=layer.padding if isinstance(attribute(layer, "padding"), str) else per_axis(layer, "padding", axes),
        dilation=per_axis(layer, "dilation", axes),
        groups=int(attribute(layer, "groups")),
    )
    check_shapes(parameters, name)
    return parameters


def read_routing(routing: Any, owner: str) -> Routing:
    """The parameters of a `RoutingAttention`: `.net` is conv 1×1, ReLU, conv 1×1. Raises LayerUnreadable."""
    net = list(attribute(routing, "net", owner))
    words = [type(layer).__name__ for layer in net]
    if words != ["Conv2D", "ReLU", "Conv2D"]:
        raise LayerUnreadable(owner, f"its routing.net is {', '.join(words)}, not Conv2D, ReLU, Conv2D")
    (fc1_weight, fc1_bias), (fc2_weight, fc2_bias) = (_linear(conv, owner) for conv in (net[0], net[2]))
    return Routing(fc1_weight, fc1_bias, fc2_weight, fc2_bias, float(attribute(routing, "temperature", owner)))


def _linear(conv: Any, owner: str) -> tuple[np.ndarray, np.ndarray]:
    """A 1×1 convolution as a matrix `(out, in)` and a bias `(out,)`, zero where it has none."""
    import numpy as np

    weight = array_of(conv, "weight")
    if weight.shape[2:] != (1, 1):
        raise LayerUnreadable(owner, f"its routing has a kernel of {list(weight.shape[2:])}, not 1×1")
    bias = array_of(conv, "bias") if conv.bias is not None else np.zeros(len(weight))
    return weight[:, :, 0, 0], bias


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


def per_axis(layer: Any, name: str, axes: int) -> tuple[int, ...]:
    """A geometry attribute as one number per spatial axis. Raises LayerUnreadable."""
    value = attribute(layer, name)
    numbers = (value,) * axes if isinstance(value, int) else value
    if not isinstance(numbers, tuple | list) or len(numbers) != axes or not all(isinstance(n, int) for n in numbers):
        raise LayerUnreadable(type(layer).__name__, f"its {name!r} is {value!r}, not a number or {axes} numbers")
    return tuple(numbers)


def check_shapes(parameters: DyConvParameters, name: str) -> None:
    """Raises LayerUnreadable where arrays of a layer do not fit each other."""
    experts, routing = parameters.experts, parameters.routing
    wanted = {
        "bias": (parameters.bias, (experts, parameters.channels_out)),
        "routing's first layer": (routing.fc1_weight, (len(routing.fc1_bias), parameters.channels_in)),
        "routing's last layer": (routing.fc2_weight, (experts, len(routing.fc1_bias))),
    }
    for what, (array, shape) in wanted.items():
        if array is not None and array.shape != shape:
            raise LayerUnreadable(
                name, f"its {what} has shape {list(array.shape)}, where {list(shape)} fits its weight"
            )
    if parameters.channels_out % parameters.groups:
        raise LayerUnreadable(
            name, f"its {parameters.channels_out} outputs do not divide into {parameters.groups} groups"
        )


def _set_dyconv_temperature(layer: Any, temperature: float) -> None:
    layer.routing.temperature = temperature


def _dyconv_scores(layer: Any) -> Any:
    return list(layer.routing.net)[-1]


DYCONV = LayerAdapter("dyconv", read_dyconv, _set_dyconv_temperature, _dyconv_scores)
"""The articles' dynamic convolution."""

_ADAPTERS: dict[str, LayerAdapter] = {"DYConv2D": DYCONV}


def register_layer(class_name: str, adapter: LayerAdapter, *, replace: bool = False) -> None:
    """Teach dyx a class of dynamic layer.

    Args:
        class_name: The class's bare name.
        adapter: How to read its layers.
        replace: Take the place of an adapter that is registered under this name, dyx's own included.

    Raises:
        InvalidOption: The name is taken and `replace` is false, or the adapter is none.
    """
    if not isinstance(adapter, LayerAdapter):
        raise InvalidOption("adapter", adapter, "a dyx.LayerAdapter")
    known = _ADAPTERS.get(class_name)
    if known is not None and not replace and not _same(known, adapter):
        raise InvalidOption("class_name", class_name, "a free name; replace=True takes a name that is registered")
    _ADAPTERS[class_name] = adapter


def _same(one: LayerAdapter, other: LayerAdapter) -> bool:
    """Whether two adapters come from the same code: a file that registers its own may be imported twice."""

    def origin(adapter: LayerAdapter) -> tuple[Any, ...]:
        functions = (adapter.read, adapter.set_temperature, adapter.scores)
        return adapter.kind, *((function.__module__, function.__qualname__) for function in functions)

    return origin(one) == origin(other)


def check_layers(network: Any) -> None:
    """Read every dynamic layer once. Raises LayerUnreadable for the first that is not what its name says."""
    for layer, adapter in dynamic_layers(network).values():
        adapter.read(layer)


def adapter_of(layer: Any) -> LayerAdapter | None:
    """The adapter of a layer's class, or None where the class is not in the table."""
    return _ADAPTERS.get(type(layer).__name__)


def dynamic_layers(network: Any) -> dict[str, tuple[Any, LayerAdapter]]:
    """Path → (layer, adapter) of every dynamic layer of a network, in order of the tree."""
    found = {}
    for path, layer in network.named_sublayers(include_self=True):
        adapter = adapter_of(layer)
        if adapter is not None:
            found[path] = (layer, adapter)
    return found


def set_temperature(network: Any, temperature: float) -> None:
    """Set the temperature of every dynamic layer in place."""
    for layer, adapter in dynamic_layers(network).values():
        adapter.set_temperature(layer, temperature)
