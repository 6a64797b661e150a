"""What a forward pass shows: which dynamic layer sees what, and which batch norm alone consumes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from dyx.errors import DyxError, ModelUnusable
from dyx.exporter.algebra import Affine
from dyx.exporter.rule import Site
from dyx.nn.adapters import adapter_of, array_of, dynamic_layers
from dyx.nn.framework import nn, paddle


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one layer on a traced forward; tensors are kept so that identities stay comparable."""

    path: str
    layer: Any
    input: Any
    output: Any


@dataclass(frozen=True)
class Trace:
    """Sites of a network, in the order of the forward, and what each dynamic layer was given.

    Attributes:
        sites: Where rules may fold.
        inputs: Path of a site to the float64 input that its layer saw.
        uncalled: Paths of dynamic layers that the forward never reached.
        output_shape: Of the network, without the batch.
    """

    sites: tuple[Site, ...]
    inputs: dict[str, np.ndarray]
    uncalled: tuple[str, ...]
    output_shape: tuple[int, ...]


def trace_sites(network: Any, image: np.ndarray, name: str, *, logits: bool = True) -> Trace:
    """Trace one forward of a float64 network.

    Args:
        network: A Paddle Layer in float64 and eval mode, at its final temperature.
        image: float64 `(batch, channels, height, width)`.
        name: What errors call the network.
        logits: Whether the output must be `(batch, classes)`.

    Raises:
        ModelUnusable: The forward fails, or does not turn one image tensor into one tensor (of logits).
    """
    x = paddle.to_tensor(image)
    calls, output = observed_calls(network, x, name)
    _check_output(name, output, len(image), logits=logits)
    dynamic = dynamic_layers(network)
    called: dict[str, Call] = {}
    for call in calls:
        if call.path in dynamic:
            called.setdefault(call.path, call)
    sites = tuple(_site(network, x, call, calls, output) for call in called.values())
    inputs = {path: call.input.numpy() for path, call in called.items()}
    uncalled = tuple(path for path in dynamic if path not in called)
    return Trace(sites, inputs, uncalled, tuple(output.shape[1:]))


def observed_calls(network: Any, x: Any, name: str) -> tuple[list[Call], Any]:
    """Calls of leaf layers and dynamic layers in the order of the forward, and the network's output."""
    calls: list[Call] = []
    with _hooks(_watch(path, layer, calls) for path, layer in watched_layers(network)), paddle.no_grad():
        try:
            return calls, network(x)
        except DyxError:
            raise
        except Exception as error:  # the user's forward may raise anything
            reason = f"its forward raised {type(error).__name__} on float64 {list(x.shape)}: {error}"
            raise ModelUnusable(name, reason, "is --shape the shape that it was trained with?") from error


def watched_layers(network: Any) -> Iterator[tuple[str, Any]]:
    """Leaf layers and dynamic layers; what stands inside a dynamic layer is its own business."""
    inside = tuple(f"{path}." for path in dynamic_layers(network))
    for path, layer in network.named_sublayers():
        if not path.startswith(inside) and (adapter_of(layer) is not None or not layer.sublayers()):
            yield path, layer


@contextmanager
def _hooks(hooks: Iterator[Any]) -> Iterator[None]:
    placed = list(hooks)
    try:
        yield
    finally:
        for hook in placed:
            hook.remove()


def _watch(path: str, layer: Any, calls: list[Call]) -> Any:
    def note(_layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
        calls.append(Call(path, layer, inputs[0] if inputs else None, output))

    return layer.register_forward_post_hook(note)


def _check_output(name: str, output: Any, batch: int, *, logits: bool) -> None:
    if not isinstance(output, paddle.Tensor):
        raise ModelUnusable(name, f"its forward returns a {type(output).__name__}, not one tensor")
    if logits and (len(output.shape) != 2 or output.shape[0] != batch):
        raise ModelUnusable(name, f"its forward returns shape {list(output.shape)}, not ({batch}, classes)")


def _site(network: Any, x: Any, call: Call, calls: list[Call], output: Any) -> Site:
    adapter = adapter_of(call.layer)
    assert adapter is not None  # sites are made of dynamic layers only
    consumer = _batch_norm_after(network, x, call, calls, output)
    return Site(
        path=call.path,
        kind=adapter.kind,
        class_name=type(call.layer).__name__,
        layer=adapter.read(call.layer),
        input_shape=tuple(call.input.shape[1:]),
        output_shape=tuple(call.output.shape[1:]),
        batch_norm=consumer.path if consumer else None,
        affine=_affine(consumer.layer) if consumer else None,
    )


def _batch_norm_after(network: Any, x: Any, producer: Call, calls: list[Call], output: Any) -> Call | None:
    """The batch norm that alone consumes a layer's output; None where there is none."""
    candidates = [call for call in calls if call.input is producer.output and _is_fixed_batch_norm(call.layer)]
    if len(candidates) != 1:
        return None
    (consumer,) = candidates
    return consumer if _is_only_consumer(network, x, producer, consumer, output) else None


def _is_fixed_batch_norm(layer: Any) -> bool:
    """Whether a layer is a 2-D batch norm that uses its running statistics in eval mode."""
    return isinstance(layer, nn.BatchNorm2D) and layer._use_global_stats is not False


def _is_only_consumer(network: Any, x: Any, producer: Call, consumer: Call, output: Any) -> bool:
    """Whether nothing but `consumer` reads what `producer` makes.

    Layer hooks do not see functional consumers (`bn(y) + y.mean()`). So the producer hands out a decoy, and the
    consumer alone is given the real tensor back: the output stays what it was exactly if nobody else looked.
    """
    real: list[Any] = []

    def hand_out_decoy(_layer: Any, _inputs: Any, made: Any) -> Any:
        real.append(made)
        spread = float(made.abs().max()) + 1.0
        return paddle.uniform(made.shape, made.dtype, -spread, spread)

    hooks = (
        producer.layer.register_forward_post_hook(hand_out_decoy),
        consumer.layer.register_forward_pre_hook(lambda _layer, _inputs: (real[-1],)),
    )
    with _hooks(iter(hooks)), paddle.no_grad():
        seen = network(x)
    return bool(np.allclose(seen.numpy(), output.numpy(), rtol=1e-9, atol=1e-9))


def _affine(layer: Any) -> Affine:
    weight, bias = (array_of(layer, name) if getattr(layer, name) is not None else None for name in ("weight", "bias"))
    return Affine.of_batch_norm(weight, bias, array_of(layer, "_mean"), array_of(layer, "_variance"), layer._epsilon)
