"""Dynamic layers by their class's name: a table of adapters, for dyx's own classes and for the user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dyx.errors import InvalidOption
from dyx.nn.condconv import CONDCONV
from dyx.nn.dyconv import DYCONV
from dyx.nn.dynamic_conv import DYNAMIC_CONV
from dyx.nn.eca import ECA_GATE
from dyx.nn.kernelwarehouse import KWLinear
from dyx.nn.kw_parameters import KW
from dyx.nn.na import NA_CONSTANT, NANET_GATE
from dyx.nn.odconv import ODCONV
from dyx.nn.per_sample import PerSampleConv
from dyx.nn.reading import LayerAdapter
from dyx.nn.se import SE_GATE

_ADAPTERS: dict[str, LayerAdapter] = {
    "CondConv2D": CONDCONV,
    "DYConv2D": DYCONV,
    "DynamicConv2D": DYNAMIC_CONV,
    "Dynamic_conv2d": DYNAMIC_CONV,
    "ECA": ECA_GATE,
    "ECALayer": ECA_GATE,
    "ECAModule": ECA_GATE,
    "eca_layer": ECA_GATE,
    "KWConv2D": KW,
    "KWLinear": KW,
    "NA": NA_CONSTANT,
    "NANet": NANET_GATE,
    "ODConv2D": ODCONV,
    "SqueezeExcite": SE_GATE,
}


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
        names = ((getattr(code, "__module__", ""), getattr(code, "__qualname__", "")) for code in functions)
        return adapter.kind, *names

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


def final_temperature(kind: str) -> float:
    """The temperature that training of a kind of layer ends at."""
    return next(adapter.final_temperature for adapter in _ADAPTERS.values() if adapter.kind == kind)


def set_temperature(network: Any, temperature: float | Mapping[str, float] | None = None) -> dict[str, float]:
    """Set the temperature of every dynamic layer in place.

    Args:
        network: A Paddle Layer.
        temperature: For all layers, or by kind; for a kind that it does not tell, and with None, the one that training
            of the kind ends at.

    Returns:
        Kind of layer → its temperature, for the kinds that have one.

    Raises:
        InvalidOption: Zero, where a kind divides by it.
    """
    chosen: dict[str, float] = {}
    told = temperature if isinstance(temperature, Mapping) else {}
    for layer, adapter in dynamic_layers(network).values():
        if adapter.set_temperature is None:
            continue
        value = told.get(adapter.kind, adapter.final_temperature)
        if isinstance(temperature, int | float):
            value = temperature
        if value == 0 < adapter.final_temperature:
            raise InvalidOption("--temperature", value, f"a number above 0 for {type(layer).__name__}")
        adapter.set_temperature(layer, value)
        chosen[adapter.kind] = value
    return chosen


def training_forms(layer: Any) -> tuple[str, ...]:
    """The forms in which a layer can be trained, the definition first; see `dyx.nn.per_sample`.

    Only layers of dyx's own have any, and of these not the gates: what a class of the same name does is its own affair.
    """
    conv = _convolution(layer)
    return conv.forms if isinstance(conv, PerSampleConv) else ()


def set_form(layer: Any, form: str) -> None:
    """Set the form that a layer's forward takes, in place; neither its value nor its gradients change.

    Raises:
        InvalidOption: The layer cannot take this form.
    """
    forms = training_forms(layer)
    if form not in forms:
        raise InvalidOption("form", form, f"one that {type(layer).__name__} takes: {', '.join(forms) or 'none'}")
    _convolution(layer).form = form


def _convolution(layer: Any) -> Any:
    """A layer itself, or the convolution inside a linear one."""
    return layer.conv if isinstance(layer, KWLinear) else layer
