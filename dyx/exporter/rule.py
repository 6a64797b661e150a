"""The words of folding: sites, offers, refusals, rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import inf
from typing import TYPE_CHECKING, Any

from dyx.errors import InvalidOption
from dyx.exporter.algebra import Affine
from dyx.exporter.folded.constants import SharedConstants
from dyx.parity import TOLERANCE

if TYPE_CHECKING:
    import numpy as np

FLOAT_BYTES = 4
CPUS = ("AVX-512", "AVX2")
"""The kinds of CPU that plans are priced for; main graphs and single plans for the first."""
CHANNELS_LAST = ("openvino",)
"""Backends whose convolutions keep channels last; in a loop over samples such a one turns each sample twice."""
STATIC = "conv"
"""The kind of sites that are static convolutions."""
GATE = "gate"
"""The kind of sites that scale channels by what they hold."""
IMAGE_CHANNELS = 3
"""A layer that reads no more channels than these reads an image."""
WIDE_KERNEL = 7
"""From so many columns on a kernel that reads an image is wide: padding its map then takes time of its own."""
MEAN_ATTENTION = "mean-attention"
"""The strategy, of any kind, that fixes attention at its mean over calibration images."""


@dataclass(frozen=True)
class Target:
    """What a plan is made for.

    Attributes:
        batch: The batch size that the graph is frozen to, or None for a free one.
        tune_batch: The batch size that costs are counted at.
        backend: The backend that costs are priced for.
        formats: The formats that the one static network is exported to.
        tolerance: What parity will allow, as a share of max |y|; rules that round more refuse.
        cpu: The kind of CPU that costs are priced for, one of CPUS.
    """

    batch: int | None = None
    tune_batch: int = 512
    backend: str = "onnxruntime"
    formats: tuple[str, ...] = ("paddle", "onnx")
    tolerance: float = TOLERANCE
    cpu: str = CPUS[0]

    @property
    def priced_batch(self) -> int:
        """The batch size that offers are priced at."""
        return self.batch or self.tune_batch

    @property
    def machine(self) -> Machine:
        """What offers are priced with."""
        return MACHINES[self.backend][self.cpu]

    def price_s(self, cost: Cost) -> float:
        """The price of a cost, seconds per image of the batch that offers are priced at."""
        return self.machine.seconds(cost, self.priced_batch)


@dataclass(frozen=True)
class Neighbour:
    """A static layer beside a dynamic one, with nobody else listening in between.

    Attributes:
        path: As its network names it.
        kind: "conv", "batch-norm", "relu" or "max-pool".
        layer: The Paddle Layer, in float64.
        affine: What a batch norm computes, else None.
    """

    path: str
    kind: str
    layer: Any = None
    affine: Affine | None = None


@dataclass(frozen=True)
class Site:
    """A place where a rule may fold: a dynamic layer, and the static layers that it alone feeds or is fed by.

    A static convolution that rules may rewrite is a site too, of kind "conv".

    Attributes:
        path: Of the layer, as its network names it.
        kind: Kind of layer ("dyconv").
        class_name: Of the layer, for what is shown.
        layer: Its parameters at the final temperature, as the adapter of its class reads them.
        input_shape: `(C_in, *spatial)` seen on the traced forward.
        output_shape: `(C_out, *spatial)`.
        before: The convolution or batch norm whose output it alone consumes, or None.
        after: The static layers that follow, each the only consumer of the one before.
        mean_attention: What the layer mixed with, averaged over calibration images; None without them.
    """

    path: str
    kind: str
    class_name: str
    layer: Any
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    before: Neighbour | None = None
    after: tuple[Neighbour, ...] = ()
    mean_attention: tuple[np.ndarray, ...] | None = None

    @property
    def norm(self) -> tuple[str, ...]:
        """The path of the batch norm that follows at once, for `Offer.takes`; empty without one."""
        return (self.after[0].path,) if self.affine else ()

    @property
    def affine(self) -> Affine | None:
        """What the batch norm that follows at once computes, or None."""
        return self.after[0].affine if self.after else None


@dataclass(frozen=True)
class Cost:
    """What a fold costs.

    Attributes:
        macs: Multiply-accumulates per image.
        bytes: Moved per image, beside weights.
        weight_bytes: Of weights, which are read once for a batch.
        depthwise_macs: Those of `macs` that a convolution does with one input and several outputs in each group.
            Runtimes do such products neither as those of matrices nor by what they have for depthwise convolutions.
        scanned_macs: Those that depthwise convolutions of one sample after the other do.
        padded_macs: Those of a convolution with a wide kernel that pads the columns of an image itself.
        cached_bytes: Moved per image beside `bytes`, from and to a cache.
    """

    macs: int
    bytes: int
    weight_bytes: int = 0
    depthwise_macs: int = 0
    scanned_macs: int = 0
    padded_macs: int = 0
    cached_bytes: int = 0

    @classmethod
    def of_floats(cls, macs: int, floats: int, weights: int = 0, **apart: int) -> Cost:
        """The cost of moving so many floats per image, and so many weights for a batch; `apart`: other attributes."""
        return cls(int(macs), int(FLOAT_BYTES * floats), int(FLOAT_BYTES * weights), **apart)

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def bytes_at(self, batch: int) -> float:
        """Moved per image of a batch, weights included."""
        return self.bytes + self.weight_bytes / batch


@dataclass(frozen=True)
class Offer:
    """A rule can fold a site.

    Attributes:
        cost: What that costs.
        form: What is built, in words.
        build: Builds it: a Paddle Layer in the current default dtype. It is given the constants that the layers of
            one static network share.
        takes: Paths of the neighbours that it computes too.
        by_positions: Whether the layer can read and give maps with their positions first, `(H · W, B, C)`.
        widest: Floats per image of the widest tensor inside a transform or of a kernel per sample; 0 of other forms.
        computed_kernel: Whether that is a convolution whose kernel is no constant; it takes one row at a time.
        lossy: Whether it only approximates the layer. Such an offer is taken on request alone.
        note: What the user should hear of it, in words; "" for nothing.
    """

    cost: Cost
    form: str
    build: Callable[[SharedConstants], Any]
    takes: tuple[str, ...] = ()
    by_positions: bool = False
    widest: int = 0
    computed_kernel: bool = False
    lossy: bool = False
    note: str = ""


@dataclass(frozen=True)
class Refusal:
    """A rule cannot fold a site, and why.

    Attributes:
        reason: With the value seen.
        hint: What the user can do; "" for nothing.
    """

    reason: str
    hint: str = ""


@dataclass(frozen=True)
class FoldRule:
    """One way to fold one kind of layer.

    Attributes:
        id: `kind/strategy`, the same in the command line, manifests and errors.
        kind: The kind of layer that it governs.
        offer: An Offer or a Refusal for a site and a target.
    """

    id: str
    kind: str
    offer: Callable[[Site, Target], Offer | Refusal]


@dataclass(frozen=True)
class Machine:
    """How fast a backend computes and moves bytes, to price offers before anything is measured.

    `padding_slows` is how many times as long arithmetic takes where a wide kernel pads the columns of an image itself,
    `cache_gains` how many times as fast bytes move where one operator hands few enough of them to the next.
    """

    macs_per_s: float
    bytes_per_s: float
    depthwise_macs_per_s: float
    scanned_macs_per_s: float
    padding_slows: float = 1.0
    cache_gains: float = 4.0

    def seconds(self, cost: Cost, batch: int) -> float:
        """The price of a cost, per image of a batch."""
        dense = cost.macs - cost.depthwise_macs - cost.scanned_macs + (self.padding_slows - 1) * cost.padded_macs
        alone = cost.depthwise_macs / self.depthwise_macs_per_s + cost.scanned_macs / self.scanned_macs_per_s
        moved = cost.bytes_at(batch) + cost.cached_bytes / self.cache_gains
        return dense / self.macs_per_s + alone + moved / self.bytes_per_s


MACHINES = {
    "onnxruntime": {"AVX-512": Machine(153e9, 19e9, 10e9, 4.5e9), "AVX2": Machine(68e9, 18e9, 10e9, 4.5e9)},
    "openvino": {"AVX-512": Machine(157e9, 24e9, 2e9, 20e9, 1.3), "AVX2": Machine(68e9, 23e9, 2e9, 20e9, 1.3)},
    "paddle": {
        "AVX-512": Machine(155e9, 12e9, 2e9, inf, cache_gains=1.0),
        "AVX2": Machine(68e9, 11e9, 2e9, inf, cache_gains=1.0),
    },
}
"""Backend → kind of CPU → how fast, of two cores. AVX-512: fitted to what `--tune` measured, layer by layer, of
alexnet-dy and dy4x-resnet18; all figures but the first two to single layers on AVX2 cores. AVX2: what a product of
matrices reaches there, and bytes as much slower as memory is (18 instead of 19 GB/s). Paddle scans nothing."""


def check_target(target: Target) -> Target:
    """The target itself. Raises InvalidOption for a batch below 1 or a backend without a price list."""
    for option, value in (("--batch", target.batch), ("--tune-batch", target.tune_batch)):
        if value is not None and value < 1:
            raise InvalidOption(option, value, "a number from 1 up")
    if target.backend not in MACHINES:
        raise InvalidOption("--tune-backend", target.backend, f"one of {', '.join(MACHINES)}")
    return target
