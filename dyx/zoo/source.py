"""Networks by name: of the zoo, or of the user, from `file.py:Class` or `package.module:callable`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from dyx.errors import DyxError, InvalidOption, ModelUnusable, OptionNeeded
from dyx.nn.adapters import check_layers
from dyx.nn.framework import Layer, paddle
from dyx.preprocess import NORMALISED, Preprocess
from dyx.runs import Sidecar
from dyx.zoo import BUILDERS, build, find_model


@dataclass(frozen=True)
class Source:
    """A network that was built, in eval mode, and what is known of it.

    Attributes:
        name: As the user gave it.
        network: A Paddle Layer.
        shape: Of its input, `(channels, height, width)`.
        labels: One per class; empty where only the network can say how many classes it has.
        preprocess: From a picture to its input.
        tune_batch: The batch size that rules are priced at, unless told otherwise.
        dtype: Of its input: float32, normalised; or uint8, where the network was made to take pixels.
    """

    name: str
    network: Any
    shape: tuple[int, int, int]
    labels: tuple[str, ...]
    preprocess: Preprocess
    tune_batch: int
    dtype: str = NORMALISED


_LARGE = 128 * 128
"""Pixels from which on a user's network is taken for one that serves small batches, as ImageNet's are."""


def load_source(
    name: str, shape: tuple[int, int, int] | None = None, seed: int = 0, classes: int | None = None
) -> Source:
    """Build the network of a name.

    Args:
        name: A name of `dyx models`, `file.py:Class` or `package.module:callable`.
        shape: Of its input; needed for a user's network, and refused for a zoo model that takes its own only.
        seed: Of the user's own initialisation.
        classes: How many logits a zoo model has, by default one per class of its own data set; then it has no labels.

    Raises:
        UnknownName, InvalidOption, OptionNeeded, ModelUnusable, LayerUnreadable, PackageMissing.
    """
    if ":" not in name:
        return _from_zoo(name, shape, classes)
    if not name.rpartition(":")[2].isidentifier():
        raise InvalidOption("MODEL", name, "a name of `dyx models`, file.py:Class or package.module:callable")
    if shape is None:
        raise OptionNeeded("--shape", "a network of your own brings no input shape", "3,128,128")
    tune_batch = 8 if shape[1] * shape[2] > _LARGE else 512
    return Source(name, _from_user(name, seed), shape, (), Preprocess(shape[1:]), tune_batch)


def _from_zoo(name: str, shape: tuple[int, int, int] | None, classes: int | None) -> Source:
    BUILDERS.check(name)
    model = find_model(name)
    labels = model.labels if classes in (None, len(model.labels)) else ()
    if shape is None or shape == model.shape:
        network = build(name, classes)
        return Source(name, network, model.shape, labels, model.preprocess, model.data.tune_batch)
    if model.fixed_size:
        wanted = f"that of {name}, {','.join(map(str, model.shape))}"
        raise InvalidOption("--shape", ",".join(map(str, shape)), wanted)
    preprocess = replace(model.preprocess, size=shape[1:], short_side=None)
    return Source(name, build(name, classes), shape, labels, preprocess, model.data.tune_batch)


def load_trained(name: str, sidecar: Sidecar, shape: tuple[int, int, int] | None = None, seed: int = 0) -> Source:
    """Build the network that weights were trained in: for their classes and their pictures.

    Args:
        name: As for `load_source`.
        sidecar: What stands beside the weights.
        shape: In place of the one that they were trained at.
        seed: Of the user's own initialisation.

    Raises:
        As `load_source`.
    """
    source = load_source(name, shape or sidecar.shape, seed, len(sidecar.labels))
    preprocess = sidecar.preprocess
    if shape is not None and shape != sidecar.shape:
        preprocess = replace(preprocess, size=shape[1:], short_side=None)
    return replace(source, labels=sidecar.labels, preprocess=preprocess)


def _from_user(name: str, seed: int) -> Any:
    place, _, attribute = name.rpartition(":")
    with _importable(place):
        module = _imported(name, place)
        maker = _member(name, module, attribute)
        paddle.seed(seed)
        network = _called(name, maker)
    if not isinstance(network, Layer):
        raise ModelUnusable(name, f"{attribute} makes a {type(network).__name__}, not a paddle.nn.Layer")
    check_layers(network)
    network.eval()
    return network


@contextmanager
def _importable(place: str) -> Iterator[None]:
    """Let a file import its neighbours, and a module be found from where the user stands."""
    folder = str(Path(place).resolve().parent) if place.endswith(".py") else str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _imported(name: str, place: str) -> ModuleType:
    if place.endswith(".py") and not Path(place).is_file():
        raise ModelUnusable(name, f"there is no file {place}")
    try:
        return _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except DyxError:
        raise
    except Exception as error:  # the user's module may raise anything
        raise ModelUnusable(name, f"importing {place} raised {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> ModuleType:
    # A name of its own: a user's `json.py` must not stand in for the real one.
    spec = importlib.util.spec_from_file_location(f"dyx_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # a .py file always has both
    module = importlib.util.module_from_spec(spec)
    # Paddle's tracer looks classes up through sys.modules to read their source.
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def _member(name: str, module: ModuleType, attribute: str) -> Any:
    try:
        return getattr(module, attribute)
    except AttributeError:
        classes = [key for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, Layer)]
        raise ModelUnusable(
            name, f"{module.__name__} has no {attribute!r}", f"its networks and layers: {', '.join(classes) or 'none'}"
        ) from None


def _called(name: str, maker: Any) -> Any:
    if not callable(maker):
        raise ModelUnusable(name, f"it is a {type(maker).__name__}, not a class or function")
    if inspect.isclass(maker) and not issubclass(maker, Layer):
        raise ModelUnusable(name, f"{maker.__name__} is no paddle.nn.Layer")
    needed = [
        key
        for key, parameter in inspect.signature(maker).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        hint = "give a function without arguments that builds it, as file.py:function"
        raise ModelUnusable(name, f"it needs arguments: {', '.join(needed)}", hint)
    try:
        return maker()
    except DyxError:
        raise
    except Exception as error:  # the user's constructor may raise anything
        raise ModelUnusable(name, f"building it raised {type(error).__name__}: {error}") from error
