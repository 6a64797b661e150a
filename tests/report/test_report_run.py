"""The page of a run holds all of its record, nothing from elsewhere, and takes words for words."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dyx.errors import OutputUnwritable, PackageMissing
from dyx.report.page import Page, Section, Table, facts_table, render, told, write_page
from dyx.report.run import run_page, verdict

NASTY = "<b>&\"'</script>"
PNG = b"\x89PNG\r\n\x1a\n and the rest"
Read = Callable[[str], Any]


def record(epochs: int, **changed: Any) -> dict[str, Any]:
    history = [
        {
            "epoch": epoch,
            "loss": 2.125 / epoch,
            "accuracy": 1 - 0.6125 / epoch,
            "held_out_loss": 1.75 / epoch,
            "held_out_accuracy": 1 - 0.51234 / epoch - 0.2 * (epoch == epochs > 1),
            "learning_rate": 1e-3 / epoch,
            "temperature": {"dyconv": 31.0 - epoch / 4},
            "entropy": {"features.8": 1 - 0.1 / epoch, f"_conv{NASTY}": 0.4321},
            "images_per_s": 45.25 + epoch,
            "seconds": 33.5 + epoch,
        }
        for epoch in range(1, epochs + 1)
    ]
    best = max(history, key=lambda row: row["held_out_accuracy"], default=None)
    return {
        "schema": 1,
        "model": "alexnet-dy",
        "data": "digits",
        "seed": 4217,
        "shape": [3, 128, 96],
        "labels": ["cat", NASTY],
        "parameters": 8324368,
        "finished": epochs >= 10,
        "recipe": {"name": "digits", "epochs": 10, "batch": 64, "learning_rate": 0.00125, "flip": False, "clip": None},
        "preprocess": {"size": [128, 96], "mean": [0.485, 0.456], "std": [0.229], "order": "RGB", "short_side": 148},
        "forms": {"features.8": {"chosen": "columns", "ratio": 1.1234, "ms": {"grouped": 5.75, "columns": 5.125}}},
        "environment": {"cpu": {"model": NASTY, "cores": 2}, "gpus": [{"mib": 143771}], "packages": {"numpy": "2.4.6"}},
        "notes": [f"a note {NASTY}"],
        "history": history,
        "best": best and {key: best[key] for key in ("epoch", "held_out_accuracy")},
        "held_out_images_per_s": 120.375,
        **changed,
    }


@pytest.mark.parametrize("epochs", [0, 1, 2, 100])
def test_every_number_and_word_of_the_record_is_on_the_page(epochs: int, read: Read, leaves: Any) -> None:
    given = record(epochs)
    seen = read(run_page(given, None))
    cells = set(seen.cells)
    for name, value in leaves({**given, "schema": None, "finished": None, "notes": None}):
        wanted = f"{100 * value:.2f} %" if name.endswith("accuracy") else told(value)
        parts = {part for cell in cells for part in (cell, *re.split(r", | × |\N{NO-BREAK SPACE}|: ", cell))}
        assert wanted in parts, (name, value)
    assert f"a note {NASTY}" in seen.words


def test_table_of_epochs_has_a_row_each_and_marks_the_best(read: Read) -> None:
    given = record(12)
    seen = read(run_page(given, None))
    place = seen.cells.index("11\N{NO-BREAK SPACE}(best)")
    row = given["history"][10]
    assert seen.cells[place + 1 : place + 5] == [
        told(row["loss"]),
        f"{100 * row['accuracy']:.2f} %",
        told(row["held_out_loss"]),
        f"{100 * row['held_out_accuracy']:.2f} %",
    ]
    assert [attributes for tag, attributes in seen.tags if tag == "tr"].count({"class": "strong"}) == 1
    assert sum("(best)" in cell for cell in seen.cells) == 1


@pytest.mark.parametrize(
    ("epochs", "words"),
    [
        (0, "No epoch has ended yet: 0 of 10 epochs, not finished."),
        (1, "Best held-out accuracy 48.77 %, at epoch 1; 1 of 10 epochs, not finished."),
        (10, "Best held-out accuracy 94.31 %, at epoch 9; 10 of 10 epochs, finished."),
    ],
)
def test_verdict_tells_the_best_epoch_and_whether_it_is_finished(epochs: int, words: str, read: Read) -> None:
    assert verdict(record(epochs)) == words
    seen = read(run_page(record(epochs), None))
    assert words in seen.words
    assert "alexnet-dy on digits" in seen.words


@pytest.mark.parametrize("epochs", [0, 1, 100])
def test_page_needs_nothing_from_elsewhere(epochs: int, read: Read) -> None:
    html = run_page(record(epochs), PNG)
    seen = read(html)
    assert seen.open == []
    assert not seen.count("script")
    for attribute in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
        assert all(value.startswith(("#", "data:")) for value in seen.values(attribute)), attribute
    assert not re.search(r"https?://|src=[\"']?//|@import|url\((?!#)", html)
    assert "default-src 'none'" in "".join(seen.values("content"))


def test_page_is_one_that_phones_and_screen_readers_can_use(read: Read) -> None:
    seen = read(run_page(record(3), PNG))
    tags = dict(seen.tags)
    assert tags["html"]["lang"] == "en"
    assert "width=device-width, initial-scale=1" in seen.values("content")
    assert len(seen.values("id")) == len(set(seen.values("id")))
    assert set(seen.values("aria-labelledby")) <= set(seen.values("id"))
    assert seen.count("table") == seen.count("caption") == seen.count("thead")
    assert all(attributes["scope"] in ("row", "col") for tag, attributes in seen.tags if tag == "th")
    assert all(attributes["alt"] for tag, attributes in seen.tags if tag == "img")
    boxes = [attributes for tag, attributes in seen.tags if "scroll" in (attributes.get("class") or "").split()]
    assert len(boxes) == seen.count("table") + seen.count("img")
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in boxes)
    assert seen.count("h1") == 1


def test_words_of_the_record_are_never_markup(read: Read) -> None:
    given = record(2, model=NASTY, data=NASTY)
    html = run_page(given, None)
    seen = read(html)
    assert not seen.count("b") + seen.count("script")
    assert f"{NASTY} on {NASTY}" in seen.words
    assert f"2: cat, {NASTY}" in seen.cells
    assert f"_conv{NASTY}" in seen.cells
    assert f"_conv{NASTY}" in seen.words  # in the legend of a drawing, too
    assert "<b>" not in html


def test_pictures_stand_in_the_page_itself(read: Read) -> None:
    (source,) = read(run_page(record(1), PNG)).values("src")
    kind, _, coded = source.partition(",")
    assert (kind, base64.b64decode(coded)) == ("data:image/png;base64", PNG)
    assert not read(run_page(record(1), None)).count("img")


def test_sections_without_content_are_left_out() -> None:
    def headings(given: dict[str, Any], png: bytes | None) -> list[str]:
        return re.findall(r"<h2[^>]*>([^<]*)</h2>", run_page(given, png))

    assert headings(record(1), PNG) == [
        *("Learning curves", "Pictures", "Notes", "Epochs"),
        *("Recipe", "Training forms", "Network and data", "Environment"),
    ]
    few = record(0, forms={}, notes=[], best=None, history=None)
    assert headings(few, None) == ["Recipe", "Network and data", "Environment"]
    plain = record(1)
    plain["history"][0].update(temperature={}, entropy={})
    assert "entropy" not in run_page(plain, None)
    assert "temperature" not in run_page(plain, None)


def test_curves_take_the_colours_of_the_page_in_light_and_dark() -> None:
    html = run_page(record(3), None)
    assert html.count("<svg ") == 5
    style = html[html.index("<style>") : html.index("</style>")]
    light, dark = re.findall(r"--ink: (#\w+); --page: (#\w+)", style)
    assert light != dark
    assert style.index("prefers-color-scheme: dark") < style.index(dark[0])
    assert "color: var(--ink)" in style
    assert "background: var(--page)" in style
    drawings = "".join(re.findall(r"<svg .*?</svg>", html, flags=re.DOTALL))
    assert "fill: currentColor" in drawings
    assert not re.search(f"{light[0]}|{dark[0]}|#000000|#ffffff", drawings)


def test_facts_within_facts_have_both_names() -> None:
    facts = {"cpu": {"cores": 2}, "gpus": [{"name": "H200", "mib": 143771}], "none": [], "held_out_loss": True}
    assert facts_table("", facts).rows == [
        ("cpu cores", "2"),
        ("gpus 1 name", "H200"),
        ("gpus 1 mib", "143,771"),
        ("none", "–"),
        ("held-out loss", "yes"),
    ]
    assert told([0.123456, None, "x"]) == "0.1235, –, x"


def test_sections_serve_other_pages_too(read: Read) -> None:
    table = Table("of two", ("network", "images/s"), [("a", "1.5"), ("b", "2.5")], ("images/s",), strong=1)
    seen = read(render(Page("A bundle", "Proved.", [Section("Speed", ["Measured."], tables=[table])])))
    assert seen.cells == ["network", "images/s", "a", "1.5", "b", "2.5"]
    assert [attributes.get("class") for tag, attributes in seen.tags if tag == "td"] == ["number", "number"]
    assert {"A bundle", "Proved.", "Speed", "Measured."} <= set(seen.words)


def test_page_is_written_whole(tmp_path: Path) -> None:
    write_page("<p>größer</p>", tmp_path / "run.html")
    assert (tmp_path / "run.html").read_bytes() == "<p>größer</p>".encode()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.html"]
    with pytest.raises(OutputUnwritable):
        write_page("", tmp_path / "absent" / "run.html")


def test_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(PackageMissing, match="jinja2 is not installed") as caught:
        run_page(record(0), None)
    assert "dyx[plot]" in caught.value.hint
