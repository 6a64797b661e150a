"""What a page tells of profiles: the time of a call by layer, with the rule that made each."""

from __future__ import annotations

from dyx.bench.breakdown import Breakdown, broken_down
from dyx.bench.compare import Comparison
from dyx.bench.profile_report import HEADINGS, MEANING, cells_of, lines_beneath, title_of, totals_of
from dyx.bench.samples import Measurement
from dyx.bench.summary import Row
from dyx.figures import LayerBar, as_svg, layer_times
from dyx.report.page import Section, Table


def profile_section(comparison: Comparison) -> Section:
    """A figure and a table per contender that was profiled; holds nothing where none was. Raises PackageMissing."""
    found = [
        (row, seen, broken_down(seen.profile))
        for row, seen in zip(comparison.rows, comparison.measurements, strict=True)
        if seen.profile is not None
    ]
    text = [line for entry in found for line in _told(*entry, comparison.settings.batch)]
    told = [(seen, breakdown) for _, seen, breakdown in found if breakdown.layers]
    return Section(
        "Time by layer",
        [*text, MEANING] if found else [],
        [as_svg(layer_times(_bars(breakdown), _name(seen))) for seen, breakdown in told],
        tables=[_table(title_of(seen, comparison.settings.batch), breakdown) for seen, breakdown in told],
    )


def _name(seen: Measurement) -> str:
    return f"{seen.contender.name}, {seen.contender.backend}"


def _told(row: Row, seen: Measurement, found: Breakdown, batch: int) -> list[str]:
    """Each contender's lines in one paragraph, under its name."""
    return [f"{_name(seen)}: {' '.join(lines_beneath(found, row, batch))}"]


def _bars(found: Breakdown) -> list[LayerBar]:
    return [LayerBar(cells_of(each)[0], each.rule, each.ms, each.share) for each in found.layers]


def _table(title: str, found: Breakdown) -> Table:
    rows = [cells_of(each) for each in found.layers]
    rows += [
        (name, "", "", f"{ms:.3f}", f"{100 * ms / (found.call_ms or ms):.1f}") for name, ms in totals_of(found).items()
    ]
    return Table(title, HEADINGS, rows, HEADINGS[-2:], strong=len(rows) - 1)
