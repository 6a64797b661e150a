"""Figures show the numbers they were given, look right on any page, and are written whole or not at all."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from dyx import figures
from dyx.errors import InvalidOption, OutputUnwritable, PackageMissing
from dyx.figures import as_png, as_svg, confusion, curve_panels, learning_curves, picture_grid, save_figure

ODD = "_conv.<b>&$x$ \\frac{"


def history(epochs: int, **changed: Any) -> list[dict[str, Any]]:
    """A run that gets better until its last epoch but one."""
    return [
        {
            "epoch": epoch,
            "loss": 2 / epoch,
            "accuracy": 1 - 0.6 / epoch,
            "held_out_loss": 1.5 / epoch,
            "held_out_accuracy": 1 - 0.5 / epoch - 0.2 * (epoch == epochs > 1),
            "learning_rate": 1e-3 / epoch,
            "temperature": {"dyconv": 31.0 - epoch / 10, "odconv": 5.0},
            "entropy": {"features.8": 1 - 0.1 / epoch, ODD: 0.5},
            **changed,
        }
        for epoch in range(1, epochs + 1)
    ]


def titles(figure: Any) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def pixels(figure: Any) -> np.ndarray:
    import io

    return np.asarray(Image.open(io.BytesIO(as_png(figure))).convert("RGB"))


@pytest.mark.parametrize("epochs", [1, 2, 100])
def test_curves_hold_the_numbers_of_the_history(epochs: int) -> None:
    rows = history(epochs)
    loss, accuracy, rate, temperature, entropy = learning_curves(rows).axes
    for axes, keys in ((loss, ("held_out_loss", "loss")), (accuracy, ("held_out_accuracy", "accuracy"))):
        for line, key in zip(axes.get_lines(), keys, strict=False):
            np.testing.assert_array_equal(line.get_xydata(), [(row["epoch"], row[key]) for row in rows])
    assert list(rate.get_lines()[0].get_ydata()) == [row["learning_rate"] for row in rows]
    for axes, key in ((temperature, "temperature"), (entropy, "entropy")):
        drawn = [list(line.get_ydata()) for line in axes.get_lines()]
        assert drawn == [[row[key][name] for row in rows] for name in rows[0][key]]
        assert [text.get_text() for text in axes.get_legend().get_texts()] == list(rows[0][key])


def test_best_epoch_is_marked_and_named() -> None:
    accuracy = learning_curves(history(5)).axes[1]
    assert accuracy.get_title(loc="left") == "accuracy: best 87.50 % at epoch 4"
    np.testing.assert_array_equal(accuracy.get_lines()[-1].get_xydata(), [(4, 0.875)])
    assert titles(learning_curves(history(3, held_out_accuracy=None)))[1] == "accuracy"


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 100])
def test_epochs_are_whole_numbers_and_a_single_one_is_seen(epochs: int) -> None:
    for figure in (learning_curves(history(epochs)), *curve_panels(history(epochs))):
        figure.draw_without_rendering()
        for axes in figure.axes:
            low, high = axes.get_xlim()
            shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
            assert shown, epochs
            assert all(tick == round(tick) and 1 <= tick <= epochs for tick in shown)
            assert epochs > 30 or axes.get_lines()[0].get_marker() == "o"


def test_what_no_layer_has_is_left_out() -> None:
    names = ["loss", "accuracy: best 75.00 % at epoch 2", "learning rate"]
    assert titles(learning_curves(history(3, temperature={}, entropy={}))) == names
    assert [titles(figure)[0] for figure in curve_panels(history(3, temperature={}, entropy=None))] == names
    assert len(titles(learning_curves(history(3)))) == 5


def test_before_the_first_epoch_and_after_a_divergence_there_is_still_a_figure() -> None:
    assert learning_curves([]).texts[0].get_text() == "No epoch has ended yet."
    assert curve_panels([]) == []
    diverged = history(3, loss=float("nan"), held_out_loss=None)
    assert as_png(learning_curves(diverged)).startswith(b"\x89PNG")


def test_entropy_is_seen_between_nothing_and_one() -> None:
    axes = learning_curves(history(3, entropy={"layer": 0.99999})).axes[-1]
    low, high = axes.get_ylim()
    assert low <= 0 and 1 <= high < 1.1


def test_of_many_layers_some_are_named() -> None:
    entropy = {f"layer{number}": 0.5 + number / 100 for number in range(40)}
    axes = learning_curves(history(3, entropy=entropy)).axes[-1]
    assert len(axes.get_lines()) == 40
    named = [text.get_text() for text in axes.get_legend().get_texts()]
    assert (len(named), named[0], named[-1]) == (6, "layer0", "layer39")


@pytest.mark.parametrize(("count", "rows", "columns"), [(18, 3, 6), (7, 2, 6), (6, 1, 6), (1, 1, 1)])
def test_pictures_stand_in_rows_of_six(count: int, rows: int, columns: int) -> None:
    pictures = [np.full((8, 8, 3), number, np.uint8) for number in range(count)]
    figure = picture_grid(pictures, [f"{number} (0)" for number in range(count)], [True] * count)
    spec = figure.axes[0].get_gridspec()
    assert (spec.nrows, spec.ncols, len(figure.axes)) == (rows, columns, count)
    for axes, picture in zip(figure.axes, pictures, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), picture)
    assert [axes.get_title() for axes in figure.axes] == [f"{number} (0)" for number in range(count)]


def test_no_pictures_are_told() -> None:
    assert picture_grid([], [], []).texts[0].get_text() == "No pictures."


def test_wrong_pictures_stand_out_by_words_weight_and_frame() -> None:
    picture = Image.new("L", (8, 8), 128)
    right, wrong = picture_grid([picture, picture], ["7 (7)", f"1 ({ODD})"], [True, False]).axes
    assert (right.get_title(), right.title.get_fontweight()) == ("7 (7)", "normal")
    assert wrong.get_title().replace("\n", " ") == f"✗ 1 ({ODD})"
    assert wrong.title.get_fontweight() == "bold"
    assert wrong.title.get_color() != right.title.get_color()
    assert wrong.spines["left"].get_linewidth() > right.spines["left"].get_linewidth()


def test_small_pictures_keep_their_edges() -> None:
    """Black beside white: nothing in between may be invented."""
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, 0] = 255
    figure = picture_grid([picture], [""], [True])
    seen = pixels(figure)
    height, width = seen.shape[:2]
    inside = seen[height // 4 : -height // 5, width // 10 : -width // 10, 0]
    assert set(np.unique(inside)) == {0, 255}


def test_confusion_has_truth_in_rows() -> None:
    matrix = np.array([[5, 2], [0, 9]])
    (axes,) = confusion(matrix, ["a", ODD]).axes
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "5", (1, 0): "2", (0, 1): "0", (1, 1): "9"}
    np.testing.assert_allclose(axes.images[0].get_array(), [[5 / 7, 2 / 7], [0, 1]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "truth")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", ODD]


@pytest.mark.parametrize(("classes", "numbers", "named"), [(20, 400, True), (21, 0, True), (1000, 0, False)])
def test_confusion_of_many_classes_stays_readable(classes: int, numbers: int, named: bool) -> None:
    figure = confusion(np.zeros((classes, classes), int), [f"class {number}" for number in range(classes)])
    (axes,) = figure.axes
    assert len(axes.texts) == numbers
    assert as_png(figure).startswith(b"\x89PNG")
    assert ("class 3" in [label.get_text() for label in axes.get_xticklabels()]) is named
    assert len(axes.get_xticks()) <= 21


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("SVG", b"<?xml"), ("pdf", b"%PDF")])
def test_files_are_of_their_suffix_and_the_same_each_time(tmp_path: Path, suffix: str, start: bytes) -> None:
    paths = [tmp_path / f"{number}.{suffix}" for number in (1, 2)]
    for path in paths:
        save_figure(learning_curves(history(3)), path)
    assert paths[0].read_bytes().startswith(start)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert not re.search(rb"CreationDate|dc:date", paths[0].read_bytes())
    assert sorted(tmp_path.iterdir()) == paths


def test_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    figure = confusion(np.eye(2), ["a", "b"])
    with pytest.raises(InvalidOption, match=r"x\.gif', which is not one that ends in \.png, \.svg, \.pdf"):
        save_figure(figure, tmp_path / "x.gif")
    with pytest.raises(OutputUnwritable, match="cannot write"):
        save_figure(figure, tmp_path / "absent" / "x.png")
    assert list(tmp_path.iterdir()) == []


def everything() -> list[Any]:
    picture = np.zeros((8, 8, 3), np.uint8)
    return [
        *curve_panels(history(4)),
        learning_curves(history(4)),
        learning_curves([]),
        confusion(np.array([[5, 2], [0, 9]]), ["a", ODD]),
        picture_grid([picture] * 2, ["1 (1)", f"2 ({ODD})"], [True, False]),
    ]


def test_svgs_of_one_page_share_no_id_and_every_reference_resolves() -> None:
    page = [ElementTree.fromstring(as_svg(figure)) for figure in everything()]
    ids = [element.attrib["id"] for root in page for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids)) > 20
    for root in page:
        own = {element.get("id") for element in root.iter()}
        text = ElementTree.tostring(root, encoding="unicode")
        assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', text)) == own - {None}


def test_svg_takes_width_and_colours_of_the_page() -> None:
    for figure in everything():
        text = as_svg(figure)
        root = ElementTree.fromstring(text)
        assert text.startswith("<svg ")
        assert (root.get("width"), root.get("height")) == (None, None)
        assert len(root.attrib["viewBox"].split()) == 4
        assert (root.get("role"), root.get("aria-label")) == ("img", figure.get_label())
        assert "http" not in text
        for element in root.iter("text"):
            assert "fill: currentColor" in element.attrib["style"] or figures._WRONG in element.attrib["style"]
        painted = set(re.findall(r"(?:fill|stroke): ?([^;\"]+)", text))
        assert not painted & {figures._INK, "#000000", "black", "#ffffff", "white"}
        assert "currentColor" in painted


def test_line_colours_stand_out_from_light_and_dark() -> None:
    """WCAG asks for a contrast of 3 : 1 for graphics; the pages are white and #15171b."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in figures._LINES:
        assert 1.05 / (luminance(colour) + 0.05) > 3
        assert (luminance(colour) + 0.05) / (luminance("#15171b") + 0.05) > 3


def test_svg_keeps_words_as_words_and_is_the_same_each_time() -> None:
    panel = curve_panels(history(4))[-1]
    words = [element.text for element in ElementTree.fromstring(as_svg(panel)).iter("text")]
    assert ODD in words
    assert "attention entropy (1: equal attention)" in words
    assert "system-ui, sans-serif" in as_svg(panel)
    assert "DejaVu" not in as_svg(panel)
    assert as_svg(panel) == as_svg(panel) == as_svg(curve_panels(history(4))[-1])


def test_drawing_needs_no_display_and_leaves_no_global_state() -> None:
    script = (
        "import sys, numpy, matplotlib\n"
        # rcParams["backend"] would import pyplot to find one.
        "state = lambda: {key: repr(dict.__getitem__(matplotlib.rcParams, key)) for key in matplotlib.rcParams}\n"
        "before = state()\n"
        "from dyx.figures import *\n"
        "from dyx.figures import as_svg\n"
        "print(len(as_svg(confusion(numpy.eye(3), 'abc'))))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert state() == before\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, env={"PATH": ""})


def test_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PackageMissing, match="matplotlib is not installed") as caught:
        learning_curves(history(1))
    assert "dyx[plot]" in caught.value.hint
