"""Profiles as tables to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dyx.bench.breakdown import Breakdown, LayerTime, broken_down
from dyx.bench.compare import Comparison
from dyx.bench.picture import PICTURE
from dyx.bench.report import NOTHING, figure
from dyx.bench.samples import Measurement
from dyx.bench.summary import Row

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

OWN_FORWARD = "(network)"
UNTOLD = "(runtime)"
STATIC = "static layers"
HEADINGS = ("layer", "rule", "nodes", "ms", "%")
MEANING = (
    "ms: median over calls with the runtime's own profiler on, which slows them down; OpenVINO tells means alone."
    " Layers in the order in which they ran; one that is missing was fused into the one before it."
    f" {OWN_FORWARD}: operators of its own forward. Copies stand apart where they can be told apart: onnxruntime and"
    " OpenVINO read the input where it lies. Outside nodes: scheduling, the call from Python, and what is copied in it."
)
_KINDS_SHOWN = 2
_STANDS_OUT = 0.1


def profile_tables(comparisons: Sequence[Comparison]) -> list[RenderableType]:
    """A table per contender that was profiled, what its call is beside the nodes, and what the words mean."""
    from rich.text import Text

    parts: list[RenderableType] = []
    for comparison in comparisons:
        for row, seen in zip(comparison.rows, comparison.measurements, strict=True):
            if seen.profile is not None:
                found, batch = broken_down(seen.profile), comparison.settings.batch
                title = title_of(seen, batch)
                parts += ["", _table(title, found) if found.layers else Text(title, style="italic")]
                parts += [Text(line) for line in lines_beneath(found, row, batch)]
    return [*parts, "", Text(MEANING)] if parts else []


def title_of(seen: Measurement, batch: int) -> str:
    """Whose profile it is."""
    return f"profile of {seen.contender.name} on {seen.contender.backend}, batch {batch}"


def _table(title: str, found: Breakdown) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, title=Text(title), title_justify="left")
    for heading in HEADINGS:
        is_figure = heading in HEADINGS[-2:]
        table.add_column(heading, justify="right" if is_figure else "left", overflow="fold", no_wrap=is_figure)
    for each in found.layers:
        table.add_row(*map(Text, cells_of(each)), style="bold" if each.share >= _STANDS_OUT else None)
    table.add_section()
    for name, ms in totals_of(found).items():
        table.add_row(name, "", "", *map(Text, (f"{ms:.3f}", _percent(ms / (found.call_ms or ms)))))
    return table


def cells_of(each: LayerTime) -> tuple[str, str, str, str, str]:
    """One layer's row."""
    name = UNTOLD if each.layer is None else each.layer or OWN_FORWARD
    return name, each.rule or NOTHING, _kinds(each), f"{each.ms:.3f}", _percent(each.share)


def totals_of(found: Breakdown) -> dict[str, float]:
    """What stands beneath the layers → ms; the last one is the whole call."""
    parts = {
        "all nodes": found.nodes_ms,
        **{f"copy {way}": ms for way, ms in found.copies_ms.items()},
        "outside nodes": found.outside_ms,
        f"call ({'mean' if found.is_mean else 'median'} of {found.calls})": found.call_ms,
    }
    return {name: ms for name, ms in parts.items() if ms is not None}


def _kinds(each: LayerTime) -> str:
    """The kinds of node that take most, and how many others there are."""
    shown = [kind if count == 1 else f"{count} {kind}" for kind, count in each.kinds.items()][:_KINDS_SHOWN]
    others = sum([*each.kinds.values()][_KINDS_SHOWN:])
    return f"{', '.join(shown)}{f' +{others}' if others else ''}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def lines_beneath(found: Breakdown, row: Row, batch: int) -> list[str]:
    """Time by rule, the same calls without the profiler, preprocessing, and notes."""
    lines = []
    if found.layers:
        rules = sorted(found.by_rule.items(), key=lambda entry: -entry[1][1])
        lines.append(f"By rule: {', '.join(_rule(*entry, found.call_ms or 0.0) for entry in rules)}.")
    timed_ms = row.percentiles_ms["p50"]
    if timed_ms:
        lines.append(f"Inference: {figure(timed_ms)} ms (p50 of the timed calls, which no profiler slowed down).")
    if row.device_ms and timed_ms:
        copied = f"copies and launches {figure(timed_ms - row.device_ms)} ms"
        lines.append(f"Inference: {figure(row.device_ms)} ms on the device (p50 of its own events); {copied}.")
    if found.preprocess_ms is not None:
        whole = f", {figure(found.preprocess_ms * batch)} ms for {batch} on one core" if batch > 1 else ""
        size = " × ".join(map(str, PICTURE))
        lines.append(
            f"Preprocessing: {figure(found.preprocess_ms)} ms for a JPEG of {size} (read, decode, resize,"
            f" normalise){whole}; not part of a call."
        )
    return [*lines, *(f"Note: {note}." for note in found.notes)]


def _rule(rule: str, many: tuple[int, float], call_ms: float) -> str:
    layers, ms = many
    share = f" ({ms / call_ms:.0%})" if call_ms else ""
    return f"{rule or STATIC} {figure(ms)} ms{share} in {layers} layer{'s' * (layers != 1)}"
