"""The page of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dyx.figures import as_svg, curve_panels
from dyx.report.page import NOTHING, Page, Photo, Section, Table, facts_table, flat, listed, percent, render, told

_PICTURES = "Held-out pictures: prediction and, in brackets, truth; a cross and a red frame where they differ"


def run_page(record: Mapping[str, Any], pictures_png: bytes | None) -> str:
    """The page of a run, as HTML that needs nothing else; see `run_report`. Raises PackageMissing."""
    return render(run_report(record, pictures_png))


def run_report(record: Mapping[str, Any], pictures_png: bytes | None) -> Page:
    """The page of a run.

    Args:
        record: What `run.json` holds; before the first epoch has ended its history is empty.
        pictures_png: Held-out pictures, as `dyx.figures.picture_grid` draws them; None leaves them out.

    Raises PackageMissing.
    """
    history = record.get("history") or []
    sections = (
        Section("Learning curves", drawings=[as_svg(figure) for figure in curve_panels(history)]),
        Section("Pictures", photos=[Photo(pictures_png, _PICTURES)] if pictures_png else []),
        Section("Notes", text=record.get("notes") or []),
        Section("Epochs", tables=[_epochs_table(history, record.get("best")), _entropy_table(history)]),
        Section("Recipe", tables=[facts_table("What was asked", record["recipe"])]),
        Section("Training forms", tables=[_forms_table(record.get("forms") or {})]),
        Section("Network and data", tables=[facts_table("What was trained, on what", _subject(record))]),
        Section("Environment", tables=[facts_table("The machine and its software", record["environment"])]),
    )
    return Page(f"{record['model']} on {record['data']}", verdict(record), sections)


def verdict(record: Mapping[str, Any]) -> str:
    """The run in a sentence: the best accuracy, how many epochs, whether it is finished."""
    done, asked = len(record.get("history") or []), record["recipe"].get("epochs")
    state = "finished" if record.get("finished") else "not finished"
    run = f"{told(done)} of {told(asked)} epochs, {state}."
    best = record.get("best")
    if not best:
        return f"No epoch has ended yet: {run}"
    return f"Best held-out accuracy {percent(best['held_out_accuracy'])}, at epoch {told(best['epoch'])}; {run}"


def _epochs_table(history: Sequence[Mapping[str, Any]], best: Mapping[str, Any] | None) -> Table:
    """A row per epoch; the best one stands out and says so."""
    rows = [dict(flat({"epoch": entry["epoch"], **entry, "entropy": None})) for entry in history]
    headings = [name for name in dict.fromkeys(name for row in rows for name in row) if _tells(name, rows)]
    places = [place for place, entry in enumerate(history) if best and entry["epoch"] == best["epoch"]]
    cells = [[_cell(name, row.get(name)) for name in headings] for row in rows]
    for place in places:
        cells[place][0] += "\N{NO-BREAK SPACE}(best)"
    return Table(f"Figures of each epoch ({len(rows)})", headings, cells, headings[1:], places[0] if places else None)


def _tells(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a column holds anything: where no layer has a temperature, it is empty throughout."""
    return any(row.get(name) not in (None, {}) for row in rows)


def _cell(name: str, value: Any) -> str:
    return percent(value) if name.endswith("accuracy") else told(value)


def _entropy_table(history: Sequence[Mapping[str, Any]]) -> Table:
    """A column per dynamic layer; without rows where no epoch has any."""
    layers = list(dict.fromkeys(layer for entry in history for layer in entry.get("entropy") or ()))
    rows = [
        (told(entry["epoch"]), *(told((entry.get("entropy") or {}).get(layer)) for layer in layers))
        for entry in history
        if layers
    ]
    caption = "Attention entropy of each dynamic layer; 1: all experts have equal attention"
    return Table(caption, ("epoch", *layers), rows, layers)


def _forms_table(forms: Mapping[str, Mapping[str, Any]]) -> Table:
    """Which form each dynamic layer was trained in, and what each form took."""
    names = list(dict.fromkeys(name for form in forms.values() for name in form.get("ms") or ()))
    timed = [f"{name} ms" for name in names]
    rows = [
        (
            layer,
            told(form["chosen"]),
            told(form.get("ratio")),
            *(told((form.get("ms") or {}).get(name)) for name in names),
        )
        for layer, form in forms.items()
    ]
    caption = "The form that each dynamic layer was trained in; ratio: its speed relative to the definition"
    return Table(caption, ("layer", "chosen", "ratio", *timed), rows, ("ratio", *timed))


def _subject(record: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a run that stand nowhere else on its page."""
    return {
        **{key: record.get(key) for key in ("model", "parameters", "data", "seed", "held_out_images_per_s")},
        "input": " × ".join(map(str, record.get("shape") or ())) or NOTHING,
        "classes": listed([str(label) for label in record.get("labels") or []]),
        "preprocess": record.get("preprocess"),
    }
