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

from dyx.errors import InvalidOption, OutputUnwritable, PackageMissing
from dyx.figures import (
    BatchLine,
    CallTimes,
    ParityError,
    Speed,
    Track,
    as_png,
    as_svg,
    check_drawable,
    confusion,
    curve_panels,
    drift,
    latencies,
    learning_curves,
    parity_errors,
    picture_grid,
    ratios,
    save_figure,
    speeds,
    throughput,
    throughput_by_batch,
)
from dyx.figures.canvas import INK, LINES, WRONG

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
        ratios(SPEEDS),
        throughput(SPEEDS),
        speeds(SPEEDS),
        latencies([CallTimes(ODD, [1.0, 2.0, 2.5], {"p50": 2.0})], ODD),
        drift([track(ODD, 5)], ODD),
        throughput_by_batch([BatchLine(ODD, [1, 8], [10.0, 20.0])], ODD),
        parity_errors(ERRORS, 2e-5),
    ]


SPEEDS = [
    Speed("alexnet-bn", "onnxruntime", 1425.0, baseline=True),
    Speed(ODD, "onnxruntime", 969.0, 0.68, 0.67, 0.69),
    Speed("alexnet-bn", "paddle", 1310.0, baseline=True),
    Speed("alexnet-dy, paddle-eager", "paddle", 250.0, 0.19),
]
ERRORS = [
    ParityError("onnx on onnxruntime, batch 1", 1.5e-6, 2e-5, 0.0, passed=True),
    ParityError("onnx on onnxruntime, batch 7", 1.6e-6, 4e-5, 3e-7, passed=True),
    ParityError("paddle, batch 1", 3e-4, 2e-5, None, passed=False),
    ParityError("paddle, batch 2", None, None, None, passed=False),
]


def track(name: str, calls: int, dropped: int = 2) -> Track:
    at = [float(number) for number in range(calls)]
    return Track(name, at, [10 + number / 10 for number in at], [number >= dropped for number in range(calls)])


def words(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def points(axes: Any) -> list[list[tuple[float, float]]]:
    return [[tuple(point) for point in line.get_xydata()] for line in axes.get_lines()]


def test_ratios_stand_with_their_intervals_on_a_common_axis() -> None:
    (axes,) = ratios(SPEEDS[:2], SPEEDS).axes
    assert words(axes) == ["alexnet-bn", "baseline", ODD, "0.68 [0.67 0.69]"]
    baseline, interval, ratio = points(axes)
    assert [x for x, _ in baseline] == [1.0]
    assert [x for x, _ in interval] == [0.67, 0.69]
    assert [x for x, _ in ratio] == [0.68]
    low, high = axes.get_xlim()
    assert low < 0.19
    assert high > 1.0
    assert {x for segment in axes.collections[0].get_segments() for x, _ in segment} == {1.0}
    assert words(ratios(SPEEDS[2:]).axes[0])[2:] == ["alexnet-dy, paddle-eager", "0.19"]


def test_throughput_is_bars_from_zero() -> None:
    (axes,) = throughput(SPEEDS[:2], SPEEDS).axes
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(0, 1425.0), (0, 969.0)]
    assert words(axes) == ["alexnet-bn (baseline)", "1,425", ODD, "969"]
    assert axes.get_xlim()[1] > 1425
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()


def test_one_figure_answers_a_benchmark() -> None:
    assert titles(speeds(SPEEDS)) == [
        *("onnxruntime: × baseline", "paddle: × baseline", "onnxruntime: images/s", "paddle: images/s")
    ]
    assert titles(speeds(SPEEDS[:1])) == ["onnxruntime: images/s"]  # nothing was compared
    many = [Speed("a", f"group {number}", 1.0, 1.0) for number in range(4)]
    spec = speeds(many).axes[0].get_gridspec()
    assert (spec.nrows, spec.ncols, len(speeds(many).axes)) == (4, 3, 8)


def test_latencies_count_every_call_and_mark_percentiles() -> None:
    calls = [10.0, 10.5, 11.0, 19.0]
    marks = {"p50": 10.75, "p90": 16.6, "p95": None, "p99": None}
    (axes,) = latencies([CallTimes("a", calls, marks), CallTimes("b", [12.0], {})], "onnxruntime").axes
    first, second = (patch.get_data() for patch in axes.patches)
    for seen, given in ((first, calls), (second, [12.0])):
        counts, _ = np.histogram(given, seen.edges)
        assert counts.sum() == len(given)
        np.testing.assert_allclose((seen.baseline - seen.values) / 0.34, counts / counts.max(), atol=1e-9)
    drawn = {x for line in points(axes) if len({x for x, _ in line}) == 1 for x, _ in line}
    assert drawn == {10.75, 16.6}
    assert words(axes) == ["a", "p50 10.8", "b", ""]


@pytest.mark.parametrize(("longest", "scale"), [(25.0, "linear"), (100.0, "log")])
def test_wide_ranges_of_times_are_logarithmic(longest: float, scale: str) -> None:
    (axes,) = latencies([CallTimes("a", [10.0, longest])], "x").axes
    assert axes.get_xscale() == scale
    low, high = axes.get_xlim()
    assert low <= 10.0 and longest <= high
    assert sum(low <= tick <= high for tick in axes.get_xticks()) >= 2


def test_drift_tells_what_counts_from_what_went_before() -> None:
    (axes,) = drift([track("a", 6)], "onnxruntime").axes
    median, counted, before = points(axes)
    assert [y for _, y in median] == pytest.approx([10.35] * 2)
    assert counted == [(float(number), 10 + number / 10) for number in range(2, 6)]
    assert before == [(0.0, 10.0), (1.0, 10.1)]


def test_drift_of_many_calls_shows_means() -> None:
    (axes,) = drift([track("a", 1000, dropped=0)], "x").axes
    counted = np.array(points(axes)[1])
    assert len(counted) == 143  # means of 7, and of the last 6
    np.testing.assert_allclose(counted[0], [3.0, 10.3])
    np.testing.assert_allclose(counted[-1], [996.5, 10 + 99.65])


def test_throughput_by_batch_has_a_line_each() -> None:
    lines = [BatchLine("a", [1, 8, 512], [10.0, 60.0, 90.0]), BatchLine(ODD, [1, 512], [5.0, 50.0])]
    (axes,) = throughput_by_batch(lines, "openvino").axes
    assert points(axes) == [[(1, 10), (8, 60), (512, 90)], [(1, 5), (512, 50)]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", ODD]
    assert list(axes.get_xticks()) == [1, 8, 512]
    assert axes.get_ylim()[0] == 0


def test_parity_shows_error_limit_and_rows_alone() -> None:
    (axes,) = parity_errors(ERRORS, 2e-5).axes
    assert axes.get_xscale() == "log"
    across = [[x for x, _ in line] for line in points(axes)]
    assert across == [[2e-5], [1.5e-6], [4e-5], [3e-7], [1.6e-6], [2e-5], [3e-4]]
    assert {x for segment in axes.collections[0].get_segments() for x, _ in segment} == {2e-5}
    said = words(axes)
    assert said[:2] == ["onnx on onnxruntime, batch 1", "1.5e-06"]
    assert said[4:] == ["✗ paddle, batch 1", "3.0e-04", "✗ paddle, batch 2", "not finite"]
    assert axes.texts[4].get_color() == WRONG != axes.texts[0].get_color()
    low, high = axes.get_xlim()
    assert low < 3e-7
    assert high > 3e-4


@pytest.mark.parametrize("count", [1, 30])
def test_few_and_many_contenders_are_drawn(count: int) -> None:
    names = [f"kw{number}x-mobilenetv2-100 frozen, paddle-eager" for number in range(count)]
    rows = [Speed(name, "paddle", 10.0, 0.5, 0.4, 0.6) for name in names]
    drawn = [
        ratios(rows),
        throughput(rows),
        latencies([CallTimes(name, [1.0, 2.0]) for name in names], "paddle"),
        drift([track(name, 3) for name in names], "paddle"),
        throughput_by_batch([BatchLine(name, [1, 2], [1.0, 2.0]) for name in names], "paddle"),
        parity_errors([ParityError(name, 1e-6, 2e-5, 0.0, passed=True) for name in names], 2e-5),
    ]
    for figure in drawn:
        width, height = figure.get_size_inches()
        assert width == 3.4  # as wide as a phone: the page never shrinks its words
        assert height < 1.5 + 0.8 * count or height == 2.5
    shown = words(drawn[0].axes[0])
    assert len(set(shown)) == count + 1  # of long names, both ends stay
    assert all(len(name) <= 30 for name in shown)
    assert as_svg(drawn[0]).count("<text") >= 2 * count


def test_nothing_to_draw_is_told() -> None:
    for figure in (speeds([]), throughput([]), latencies([], ""), drift([], ""), throughput_by_batch([], "")):
        assert "measured" in figure.texts[0].get_text()
    assert ratios(SPEEDS[:1]).texts[0].get_text() == "Nothing was compared with a baseline."
    assert parity_errors([], 2e-5).texts[0].get_text() == "Nothing was proved."


def test_a_file_that_could_not_be_drawn_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    check_drawable(Path("x.SVG"))
    with pytest.raises(InvalidOption, match=r"x\.gif"):
        check_drawable(Path("x.gif"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PackageMissing):
        check_drawable(Path("x.png"))


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
            assert "fill: currentColor" in element.attrib["style"] or WRONG in element.attrib["style"]
        painted = set(re.findall(r"(?:fill|stroke): ?([^;\"]+)", text))
        assert not painted & {INK, "#000000", "black", "#ffffff", "white"}
        assert "currentColor" in painted


def test_line_colours_stand_out_from_light_and_dark() -> None:
    """WCAG asks for a contrast of 3 : 1 for graphics; the pages are white and #15171b."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in LINES:
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
