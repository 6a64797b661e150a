"""What `dyx report` is asked about: runs, bundles and benchmark records, all on one page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dyx.bench.compare import KIND, Comparison
from dyx.bench.pool import SWEEP, read_record
from dyx.bench.scenario_result import KIND as SCENARIO
from dyx.bench.scenario_result import read_scenario_run
from dyx.bundle import MANIFEST, read_bundle
from dyx.errors import NothingToReport
from dyx.report.bundle import bundle_report
from dyx.report.comparison import by_batch, comparison_report
from dyx.report.page import Page, render
from dyx.report.run import run_report
from dyx.report.scenario import scenario_report
from dyx.runs import PREDICTIONS, RECORD, is_run, read_run

PAGE = "report.html"


def page_of(places: Sequence[Path]) -> str:
    """One page of one or more runs, bundles and benchmark records, in their order, as HTML that needs nothing else.

    Raises:
        NothingToReport: A place that is none of these.
        RunUnreadable, BundleError, RecordUnreadable: A run, bundle or record that is not as it was written.
        PackageMissing: matplotlib or jinja2.
    """
    found = [each for place in places for each in _found(place)]
    pages = [comparison_report(each) if isinstance(each, Comparison) else each for each in found]
    if len(pages) == 1:
        return render(pages[0])
    sweep = by_batch([each for each in found if isinstance(each, Comparison)])
    lead = f"{len(pages)} reports: {', '.join(place.name or str(place) for place in places)}."
    return render(Page("dyx report", lead, [sweep], pages))


def default_page(places: Sequence[Path]) -> Path:
    """Where a page goes that was given no place: into a run's folder, else into the current one.

    A bundle is hashed, sent and replaced whole: its page stands elsewhere, under its name.
    """
    if len(places) == 1 and is_run(places[0]):
        return places[0] / PAGE
    if len(places) == 1 and _is_bundle(places[0]):
        return Path(f"{places[0].resolve().name}-{PAGE}")
    return Path(PAGE)


def _found(place: Path) -> Sequence[Page | Comparison]:
    """What stands at a place: a record of `dyx bench` may hold several comparisons."""
    if is_run(place):
        run = read_run(place)
        pictures = run.path / PREDICTIONS
        return [run_report(run.record, pictures.read_bytes() if pictures.is_file() else None)]
    if _is_bundle(place):
        return [bundle_report(read_bundle(place))]
    if place.is_file():
        return _recorded(place)
    if place.is_dir():
        raise NothingToReport(place, f"the folder holds no {RECORD} and no {MANIFEST}")
    raise NothingToReport(place, "there is no such file or folder")


def _is_bundle(place: Path) -> bool:
    return (place / MANIFEST).is_file()


def _recorded(place: Path) -> Sequence[Page | Comparison]:
    """What a record of `dyx bench` holds."""
    kind = _kind(place)
    if kind == SCENARIO:
        return [scenario_report(read_scenario_run(place))]
    if kind in (KIND, SWEEP):
        return read_record(place)
    seen = f"kind {kind}" if kind else "no kind"
    raise NothingToReport(place, f"the file is JSON of {seen}, not {KIND} or {SCENARIO}")


def _kind(place: Path) -> str | None:
    """What a JSON file says that it is. Raises NothingToReport where it is no JSON."""
    try:
        entry: Any = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NothingToReport(place, f"the file is no JSON ({error})") from error
    return entry.get("kind") if isinstance(entry, Mapping) else None
