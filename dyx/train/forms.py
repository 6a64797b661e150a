"""In which form each dynamic layer is trained: the one whose forward and backward pass measure fastest here.

All forms have the same value and the same gradients (`nn/per_sample.py`), so that this is a matter of speed alone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from dyx.errors import InvalidOption
from dyx.nn.adapters import dynamic_layers, set_form, training_forms
from dyx.nn.framework import paddle

_ROUNDS = 3
DEFINITION = "grouped"


@dataclass(frozen=True)
class FormChoice:
    """The form of one layer.

    Attributes:
        chosen: Its name.
        ms: Form → milliseconds of a forward and a backward pass, the median of a few; empty where none was measured.
        ratio: Speed relative to the definition; 1 for the definition itself, None where none was measured.
    """

    chosen: str
    ms: Mapping[str, float]
    ratio: float | None

    def to_json(self) -> dict[str, Any]:
        """The form kept in run.json."""
        return {**asdict(self), "ms": dict(self.ms)}


def has_choice(network: Any) -> bool:
    """Whether any layer of a network can be trained in more than one form."""
    return bool(_layers(network))


def fixed_form(network: Any, form: str) -> dict[str, FormChoice]:
    """The same form for every layer that can take it; the others keep their definition.

    Raises InvalidOption where the network has such layers, and none of them can.
    """
    known = _layers(network)
    forms = sorted({name for layer in known.values() for name in training_forms(layer)})
    if known and form not in forms:
        raise InvalidOption("--form", form, f"auto or one that its layers take: {', '.join(forms)}")
    return {
        path: FormChoice(form if form in training_forms(layer) else DEFINITION, {}, None)
        for path, layer in known.items()
    }


def fastest_forms(network: Any, images: Any) -> dict[str, FormChoice]:
    """Path of every layer that has a choice → the form that measured fastest, on a copy of the network.

    Args:
        network: In train mode; it stays as it is.
        images: A tensor `(B, 3, H, W)`, as many as a step sees or as is reasonable.
    """
    copied = copy.deepcopy(network)
    inputs = _inputs(copied, images)
    layers = _layers(copied)
    return {path: _fastest(layers[path], arguments) for path, arguments in inputs.items()}


def use_forms(network: Any, choices: Mapping[str, FormChoice]) -> None:
    """Let every layer compute by its chosen form."""
    layers = _layers(network)
    for path, choice in choices.items():
        set_form(layers[path], choice.chosen)


def _layers(network: Any) -> dict[str, Any]:
    """Path → layer, of those that can be trained in more than one form."""
    found = dynamic_layers(network).items()
    return {path: layer for path, (layer, _) in found if len(training_forms(layer)) > 1}


def _inputs(network: Any, images: Any) -> dict[str, tuple[Any, ...]]:
    """What each layer is given in a forward."""
    seen: dict[str, tuple[Any, ...]] = {}

    def noting(path: str) -> Any:
        return lambda _layer, inputs: seen.update({path: tuple(tensor.detach() for tensor in inputs)})

    hooks = [layer.register_forward_pre_hook(noting(path)) for path, layer in _layers(network).items()]
    with paddle.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return seen


def _fastest(layer: Any, inputs: tuple[Any, ...]) -> FormChoice:
    forms = training_forms(layer)
    times: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(1 + _ROUNDS):  # the first round warms up
        for form in forms:
            set_form(layer, form)
            times[form].append(_pass_ms(layer, inputs))
    ms = {form: median(measured[1:]) for form, measured in times.items()}
    chosen = min(forms, key=lambda form: ms[form])
    return FormChoice(chosen, ms, ms[DEFINITION] / ms[chosen])


def _pass_ms(layer: Any, inputs: tuple[Any, ...]) -> float:
    """One forward and one backward pass, to the input and to every parameter."""
    leaves = [tensor.clone().detach() for tensor in inputs]
    for leaf in leaves:
        leaf.stop_gradient = False
    begun = time.perf_counter()
    layer(*leaves).sum().backward()
    float(leaves[0].grad.flatten()[0])  # a GPU answers only when asked
    layer.clear_gradients()
    return (time.perf_counter() - begun) * 1e3
