"""What an export is made of: the network with its weights, its sites, and what folds them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dyx.checkpoint import Checkpoint, read_checkpoint
from dyx.errors import InvalidOption
from dyx.exporter.calibration import Calibration, mean_attentions, read_calibration
from dyx.exporter.graphs import PlannedGraph, plan_graphs
from dyx.exporter.join import join
from dyx.exporter.pixels import fold_normalisation, taking_pixels
from dyx.exporter.plan import Plan
from dyx.exporter.rule import Site
from dyx.exporter.settings import ExportSettings
from dyx.exporter.trace import Trace, trace_sites
from dyx.inputs import input_pool, pixel_pool
from dyx.nn.adapters import final_temperature, set_temperature
from dyx.paddle_package import paddle_package
from dyx.preprocess import PIXELS, Preprocess
from dyx.progress import Progress, silent
from dyx.runs import Sidecar, read_sidecar, weights_file
from dyx.zoo.eager import use_whole_cpu
from dyx.zoo.source import Source, load_source, load_trained
from dyx.zoo.weights import draw_weights, load_weights

_TRACED_SHARE = 16
"""One in so many images of the pool is traced, and at least two."""
TRACED_LEAST = 2
_FULL_POOL = 64
"""The usual batch size from which on the whole pool is used."""


@dataclass(frozen=True)
class Planned:
    """A network that was loaded, traced and planned.

    Attributes:
        source: The network as built, in float32, at the final temperature, with its weights; to take pixels it
            normalises them in front of itself.
        reference: The same in float64: what every artifact is compared with.
        network: What is folded: the reference, or where it takes pixels the same with the normalisation inside.
        checkpoint: Where its weights came from, or None for seeded ones.
        sidecar: What stands beside that checkpoint, or None.
        trace: Its sites.
        sites: The same with their mean attention, where there are calibration images.
        images: What was traced, float64 `(batch, channels, height, width)`.
        graphs: The graphs of the bundle to be, the main one last, and what folds each.
        temperatures: Kind of layer → the temperature that it is exported at.
        calibration: Images for rules that fix attention at its mean, or None.
        notes: What the user should hear, in words.
        tuning: What was measured to choose the graphs, as the manifest tells it; None where prices chose.
    """

    source: Source
    reference: Any
    network: Any
    checkpoint: Checkpoint | None
    sidecar: Sidecar | None
    trace: Trace
    sites: Sequence[Site]
    images: np.ndarray
    graphs: tuple[PlannedGraph, ...]
    temperatures: Mapping[str, float]
    calibration: Calibration | None
    notes: tuple[str, ...]
    tuning: Mapping[str, Any] | None = None

    @property
    def plan(self) -> Plan:
        """What folds the main graph."""
        return self.graphs[-1].plan

    def joined(self, plan: Plan) -> Plan:
        """A plan of this network with its joints."""
        return join(plan, self.network, self.images, self.source.name)


def plan(model: str = "alexnet-dy", *, progress: Progress = silent, **settings: Any) -> Planned:
    """Load a network, find its sites and choose a rule for each, without folding anything.

    Eager Paddle computes on all cores in this process from then on; see `use_whole_cpu`.

    Args:
        model: A name of `dyx models`, `file.py:Class` or `package.module:callable`.
        progress: Called with each step's name.
        settings: See ExportSettings.

    Raises:
        UsageError, CheckpointError, ModelUnusable, LayerUnreadable, FoldRefused, PackageMissing.
    """
    return make_planned(model, checked(settings), progress)


def checked(settings: dict[str, Any]) -> ExportSettings:
    """Settings as they may be. Raises UsageError, PackageMissing."""
    paddle_package()  # before anything else is found wanting: without Paddle nothing can be exported
    chosen = ExportSettings(**settings)
    chosen.check()
    return chosen


def make_planned(model: str, settings: ExportSettings, progress: Progress) -> Planned:
    """What `plan` gives, for settings that were checked."""
    use_whole_cpu()
    progress(f"building {model}")
    weights = None if settings.weights is None else weights_file(settings.weights)
    sidecar = None if weights is None else read_sidecar(weights)
    source = _source(model, settings, sidecar)
    checkpoint, notes = _fill(source, weights, settings.seed)
    trained_at = None if sidecar is None else sidecar.temperature
    temperatures = set_temperature(source.network, trained_at if settings.temperature is None else settings.temperature)
    notes += _heated(temperatures, trained_at)
    reference = copy.deepcopy(source.network).to(dtype="float64")
    reference.eval()
    progress("tracing")
    source = replace(source, dtype=settings.input)
    images, _ = proof_pool(source, settings.seed)
    traced = images[: max(len(images) // _TRACED_SHARE, TRACED_LEAST)].astype(np.float64)
    network = reference
    if settings.input == PIXELS:
        source, reference, network = _taking_pixels(source, reference, preprocess_of(source, settings), traced, notes)
    trace = trace_sites(network, traced, model)
    calibration = _calibration(source, settings, progress)
    sites = _calibrated(trace.sites, source.network, calibration)
    target = settings.target(source.tune_batch)
    graphs = plan_graphs(sites, target, settings.fold, model, single=settings.one_graph)
    notes += [f"{path} is never reached by the forward and stays as it is" for path in trace.uncalled]
    notes += dict.fromkeys(decision.offer.note for decision in graphs[-1].plan.decisions if decision.offer.note)
    found = (trace, sites, traced, graphs)
    planned = Planned(source, reference, network, checkpoint, sidecar, *found, temperatures, calibration, tuple(notes))
    return replace(planned, graphs=tuple(replace(graph, plan=planned.joined(graph.plan)) for graph in graphs))


def proof_pool(source: Source, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The inputs that prove a network; for one that is usually run at small batches fewer, and without extremes.

    Such a network is deep and slow. Inputs of many times the usual size saturate the attention of dozens of layers,
    each of which then multiplies activations: that is chaos in float32, and no two runtimes agree.
    """
    deep = source.tune_batch < _FULL_POOL
    share = 8 if deep else 1
    if source.dtype == PIXELS:
        return pixel_pool(source.shape, seed, share)
    return input_pool(source.shape, seed, share, extremes=not deep)


def _taking_pixels(
    source: Source, reference: Any, preprocess: Preprocess, image: np.ndarray, notes: list[str]
) -> tuple[Source, Any, Any]:
    """The source and its reference as they take pixels, and what is to be folded; a note tells of that."""
    taking = taking_pixels(reference, preprocess, "float64")
    network, note = fold_normalisation(taking, reference, image, source.name)
    notes.append(note)
    return replace(source, network=taking_pixels(source.network, preprocess, "float32")), taking, network


def _calibration(source: Source, settings: ExportSettings, progress: Progress) -> Calibration | None:
    if settings.calibrate is None:
        return None
    progress("averaging attention over the calibration images")
    preprocess = preprocess_of(source, settings)
    return read_calibration(Path(settings.calibrate), preprocess, source.shape, settings.seed, source.dtype)


def _calibrated(sites: Sequence[Site], network: Any, calibration: Calibration | None) -> Sequence[Site]:
    """The sites, with their mean attention where there are images to take it from."""
    if calibration is None:
        return sites
    means = mean_attentions(network, calibration.used)
    return [replace(site, mean_attention=means.get(site.path)) for site in sites]


def _source(model: str, settings: ExportSettings, sidecar: Sidecar | None) -> Source:
    if sidecar is None:
        return load_source(model, settings.shape, settings.seed)
    return load_trained(model, sidecar, settings.shape, settings.seed)


def _heated(temperatures: Mapping[str, float], trained_at: Mapping[str, float] | None) -> list[str]:
    """Notes where a temperature is not the one that training ends at, or not the one that the weights were saved at."""
    notes = []
    for kind, value in temperatures.items():
        saved, final = (trained_at or {}).get(kind), final_temperature(kind)
        if saved is not None and value != saved:
            notes.append(f"temperature {value:g}: these weights were saved at {saved:g}, where their accuracy was seen")
        elif value != final and saved is not None:
            notes.append(f"temperature {value:g}: training of kind {kind} was to go on down to {final:g}")
        elif value != final:
            notes.append(
                f"temperature {value:g}: networks of kind {kind} are trained down to {final:g}, where their accuracy is"
            )
    return notes


def _fill(source: Source, weights: Path | None, seed: int) -> tuple[Checkpoint | None, list[str]]:
    """Put weights into the network; what the user should hear of them."""
    if weights is None:
        draw_weights(source.network, source.shape, seed)
        return None, [f"untrained: weights drawn from seed {seed}; predictions mean nothing"]
    checkpoint = read_checkpoint(weights)
    mapped = load_weights(source.network, checkpoint)
    return checkpoint, [*checkpoint.notes, *mapped]


def preprocess_of(source: Source, settings: ExportSettings) -> Preprocess:
    """How pictures become inputs: as the user says, or as the network comes with. Raises InvalidOption."""
    given = settings.preprocess
    chosen = Preprocess.read(Path(given)) if isinstance(given, str | Path) else given or source.preprocess
    if chosen.size != source.shape[1:]:
        wanted = f"size {list(source.shape[1:])}, that of the network's input"
        raise InvalidOption("--preprocess", f"size {list(chosen.size)}", wanted)
    return chosen
