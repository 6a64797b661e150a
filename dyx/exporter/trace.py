"""What a forward pass shows: which dynamic layer sees what, and which static layers stand beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from dyx.errors import DyxError, ModelUnusable
from dyx.exporter.algebra import Affine
from dyx.exporter.rule import IMAGE_CHANNELS, STATIC, WIDE_KERNEL, Neighbour, Site
from dyx.nn.adapters import adapter_of, dynamic_layers
from dyx.nn.experts import Experts
from dyx.nn.framework import nn, paddle
from dyx.nn.geometry import Geometry, pair
from dyx.nn.reading import array_of, optional_array_of


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one layer on a traced forward; tensors are kept so that identities stay comparable."""

    path: str
    layer: Any
    inputs: tuple[Any, ...]
    output: Any

    @property
    def input(self) -> Any:
        """The first input, or None."""
        return self.inputs[0] if self.inputs else None


@dataclass(frozen=True)
class Trace:
    """Sites of a network, in the order of the forward, and what each dynamic layer was given.

    Attributes:
        sites: Where rules may fold.
        inputs: Path of a site, or of the layer before one, to the float64 inputs that it saw.
        uncalled: Paths of dynamic layers that the forward never reached.
        output_shape: Of the network, without the batch.
    """

    sites: tuple[Site, ...]
    inputs: dict[str, tuple[np.ndarray, ...]]
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
        if call.path in dynamic or _is_rewritable(call, calls):
            called.setdefault(call.path, call)
    links = confirmed(network, x, output, _links(called.values(), calls))
    sites = tuple(_site(call, links) for call in called.values())
    inputs = {path: _arrays(call) for path, call in called.items()}
    inputs |= {link.producer.path: _arrays(link.producer) for link in links if link.consumer.path in called}
    uncalled = tuple(path for path in dynamic if path not in called)
    return Trace(sites, inputs, uncalled, tuple(output.shape[1:]))


def _is_rewritable(call: Call, calls: Sequence[Call]) -> bool:
    """Whether a call is that of a static convolution which rules may rewrite: made once, a plain one, without hooks."""
    layer = call.layer
    if not _is_plain_conv(layer) or layer._forward_pre_hooks or layer._forward_post_hooks:
        return False
    return sum(other.layer is layer for other in calls) == 1


def _arrays(call: Call) -> tuple[np.ndarray, ...]:
    return tuple(tensor.numpy() for tensor in call.inputs)


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
        calls.append(Call(path, layer, inputs, output))

    return layer.register_forward_post_hook(note)


def _check_output(name: str, output: Any, batch: int, *, logits: bool) -> None:
    if not isinstance(output, paddle.Tensor):
        raise ModelUnusable(name, f"its forward returns a {type(output).__name__}, not one tensor")
    if logits and (len(output.shape) != 2 or output.shape[0] != batch):
        raise ModelUnusable(name, f"its forward returns shape {list(output.shape)}, not ({batch}, classes)")


@dataclass(frozen=True, eq=False)
class Link:
    """A call whose output another call takes as its input, the very tensor."""

    producer: Call
    consumer: Call


def _is_plain_conv(layer: Any) -> bool:
    """Whether a layer is a static convolution in one group, padded alike at both ends of an axis.

    Its stride is 1, unless it reads an image with a wide kernel.
    """
    if type(layer) is not nn.Conv2D or layer._padding_mode != "zeros" or layer._data_format != "NCHW":
        return False
    if set(layer._dilation) != {1} or layer._groups != 1 or not _is_numbers(layer._padding):
        return False
    reads_image = layer._in_channels <= IMAGE_CHANNELS and layer._kernel_size[1] >= WIDE_KERNEL
    return reads_image or (set(layer._stride) == {1} and max(layer._kernel_size) > 1)


def _is_numbers(padding: Any) -> bool:
    return isinstance(padding, int) or (len(padding) == 2 and all(isinstance(one, int) for one in padding))


def _read_plain_conv(layer: Any) -> Experts:
    """A plain convolution as one expert."""
    bias = optional_array_of(layer, "bias")
    geometry = Geometry(
        tuple(layer._kernel_size), tuple(layer._stride), pair(layer._padding), tuple(layer._dilation), 1
    )
    return Experts(array_of(layer, "weight")[None], None if bias is None else bias[None], geometry)


def _links(called: Iterable[Call], calls: Sequence[Call]) -> list[Link]:
    """What may stand beside each dynamic layer: a static layer before it, and a chain of them after it."""
    count = Counter(id(call.layer) for call in calls)
    once = [call for call in calls if count[id(call.layer)] == 1]
    links = []
    for site in called:
        if count[id(site.layer)] != 1:
            continue
        if adapter_of(site.layer) is not None:
            feeds = [call for call in once if call.output is site.input and _kind(call.layer) in _BEFORE]
            links += [Link(call, site) for call in feeds if not _follows_dynamic(call, calls)]
        producer, chain = site, _AFTER
        while chain and (consumer := _one([call for call in once if call.input is producer.output])):
            if _kind(consumer.layer) not in chain:
                break
            links.append(Link(producer, consumer))
            producer, chain = consumer, chain[_kind(consumer.layer)]
    return links


def _follows_dynamic(call: Call, calls: Sequence[Call]) -> bool:
    """Whether a static layer reads what a dynamic one makes: then it is that one's neighbour."""
    return any(call.input is made.output and adapter_of(made.layer) is not None for made in calls)


def _one(calls: list[Call]) -> Call | None:
    return calls[0] if len(calls) == 1 else None


_BEFORE = ("conv", "batch-norm")
"""What a rule may take that stands before a dynamic layer."""

_ACTIVATION: dict[str, Any] = {"relu": {"max-pool": {}}, "max-pool": {}}
_AFTER: dict[str, Any] = {"batch-norm": _ACTIVATION, **_ACTIVATION}
"""Chains of static layers that a rule may take with the layer before them."""


def _kind(layer: Any) -> str:
    """What a neighbour is called; "" for a layer that no rule takes."""
    if isinstance(layer, nn.BatchNorm2D):
        return "batch-norm" if layer._use_global_stats is not False else ""
    return {nn.Conv2D: "conv", nn.ReLU: "relu", nn.MaxPool2D: "max-pool"}.get(type(layer), "")


def _site(call: Call, links: Sequence[Link]) -> Site:
    adapter = adapter_of(call.layer)
    read = _read_plain_conv if adapter is None else adapter.read
    before = [link.producer for link in links if link.consumer is call]
    return Site(
        path=call.path,
        kind=STATIC if adapter is None else adapter.kind,
        class_name=type(call.layer).__name__,
        layer=read(call.layer),
        input_shape=tuple(call.input.shape[1:]),
        output_shape=tuple(call.output.shape[1:]),
        before=_neighbour(before[0]) if before else None,
        after=tuple(_neighbour(found) for found in _chain(call, links)),
    )


def _chain(call: Call, links: Sequence[Link]) -> Iterator[Call]:
    """The static layers after a call, as far as links lead."""
    following = {id(link.producer): link.consumer for link in links}
    while (found := following.get(id(call))) and _kind(found.layer) not in ("", "conv"):
        yield found
        call = found


def _neighbour(call: Call) -> Neighbour:
    kind = _kind(call.layer)
    return Neighbour(call.path, kind, call.layer, _affine(call.layer) if kind == "batch-norm" else None)


def confirmed(network: Any, x: Any, output: Any, links: Sequence[Link]) -> list[Link]:
    """The links whose consumer is the only one. All are tried at once; where that fails, each half on its own."""
    if not links or _only_consumers(network, x, output, links):
        return list(links)
    if len(links) == 1:
        return []
    half = len(links) // 2
    return [link for part in (links[:half], links[half:]) for link in confirmed(network, x, output, part)]


def _only_consumers(network: Any, x: Any, output: Any, links: Sequence[Link]) -> bool:
    """Whether nothing but its consumer reads what each producer makes.

    Layer hooks do not see functional consumers (`bn(y) + y.mean()`). So each producer hands out a decoy, and its
    consumer alone is given the real tensor back: the output stays what it was exactly if nobody else looked.
    """
    real: dict[int, Any] = {}

    def hand_out_decoy(_layer: Any, _inputs: Any, made: Any) -> Any:
        spread = float(made.abs().max()) + 1.0
        decoy = paddle.uniform(made.shape, made.dtype, -spread, spread)
        real[id(decoy)] = made
        decoys.append(decoy)  # kept alive, so that no other tensor gets its id
        return decoy

    def take_real(_layer: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(real.get(id(tensor), tensor) for tensor in inputs)

    decoys: list[Any] = []
    hooks = [link.producer.layer.register_forward_post_hook(hand_out_decoy) for link in links]
    hooks += [link.consumer.layer.register_forward_pre_hook(take_real) for link in links]
    with _hooks(iter(hooks)), paddle.no_grad():
        seen = network(x)
    return _same(seen, output)


def sole_reader(network: Any, x: Any, name: str) -> Call | None:
    """The call that alone reads the input of a network, of a layer that is called once only; None without such a call.

    Args:
        network: A Paddle Layer in eval mode.
        x: Its input, a tensor.
        name: What errors call the network.

    Raises:
        ModelUnusable: As `trace_sites`, for a network that gives logits.
    """
    calls, output = observed_calls(network, x, name)
    _check_output(name, output, len(x), logits=True)
    reader = _one([call for call in calls if any(tensor is x for tensor in call.inputs)])
    if reader is None or len(reader.inputs) != 1:
        return None
    # All others get a decoy, as between layers. A second call of the same layer would get x too, and be noticed.
    spread = float(x.abs().max()) + 1.0
    hook = reader.layer.register_forward_pre_hook(lambda _layer, _inputs: (x,))
    with _hooks(iter([hook])), paddle.no_grad():
        seen = network(paddle.uniform(x.shape, x.dtype, -spread, spread))
    return reader if _same(seen, output) else None


def _same(seen: Any, output: Any) -> bool:
    return bool(np.allclose(seen.numpy(), output.numpy(), rtol=1e-9, atol=1e-9))


def _affine(layer: Any) -> Affine:
    weight, bias = optional_array_of(layer, "weight"), optional_array_of(layer, "bias")
    return Affine.of_batch_norm(weight, bias, array_of(layer, "_mean"), array_of(layer, "_variance"), layer._epsilon)
