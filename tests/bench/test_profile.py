"""`dyx bench --profile`: contenders profiled in processes of their own, and what is made of what they saw."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dyx.bench import Comparison, Contender, Match, Plan, bench, bundle_contender, pool, profile_tables, sweep
from dyx.bench.breakdown import LayerTime, broken_down
from dyx.bench.picture import PICTURE, write_picture
from dyx.bench.profile import LEAST_CALLS, profiled
from dyx.bench.profile_report import lines_beneath
from dyx.bundle import Bundle, read_bundle
from dyx.figures import LayerBar, layer_times
from dyx.preprocess import Preprocess
from dyx.runtime.profile import Node, Profile


@pytest.fixture(scope="module")
def seen(bundles: Path) -> Comparison:
    """A real bundle and its baseline on onnxruntime, timed and profiled."""
    sides = [
        bundle_contender(read_bundle(bundles / name), "onnxruntime", device="cpu", baseline=name == "alexnet-bn")
        for name in ("alexnet-dy", "alexnet-bn")
    ]
    (found,) = sweep([Match(sides, [], 2)], Plan(seconds=0.1, runs=2, profile=True))
    return found


def test_each_contender_is_profiled_once_after_all_runs(seen: Comparison) -> None:
    assert {turn.run for turn in seen.measurements[0].turns} == {0, 1}
    for measurement in seen.measurements:
        profile = measurement.profile
        assert profile is not None
        assert profile.notes == ()
        assert LEAST_CALLS <= len(profile.calls_ns) == len(profile.nodes[0].times_ns)
        assert len(profile.preprocess_ns) == 20
        assert all(time > 100_000 for time in profile.preprocess_ns), "a picture of 500 × 375 was decoded and resized"
    rules = {node.rule for node in seen.measurements[0].profile.nodes}  # type: ignore[union-attr]
    assert any(rule.startswith("dyconv/") for rule in rules)


def test_layers_of_a_network_that_takes_pixels_are_told_apart(pixel_bundle: Path) -> None:
    bundle = read_bundle(pixel_bundle)
    sides = [bundle_contender(bundle, backend, device="cpu") for backend in ("onnxruntime", "openvino", "paddle")]
    (found,) = sweep([Match(sides, [], 2)], Plan(seconds=0.05, profile=True))
    for measurement in found.measurements:
        profile = measurement.profile
        assert profile is not None and len(profile.preprocess_ns) == 20
        layers = {node.layer for node in profile.nodes}
        assert {"features.0", "classifier.6"} <= layers, measurement.contender.backend
        assert {node.rule.partition("/")[0] for node in profile.nodes if node.layer == "features.8"} == {"dyconv"}


def test_a_record_keeps_the_profile_and_its_figures(seen: Comparison) -> None:
    record = json.loads(json.dumps(seen.to_json()))
    again = Comparison.from_json(record)
    assert again.measurements == seen.measurements
    breakdown = record["breakdowns"][0]
    layers = breakdown["layers"]
    assert {layer["layer"] for layer in layers if layer["rule"]} >= {"features.8", "features.11", "features.14"}
    for layer in layers:
        assert layer["share"] == pytest.approx(layer["ms"] / breakdown["call_ms"])
    (both,) = pool([replace(seen, measurements=tuple(replace(one, profile=None) for one in seen.measurements)), again])
    assert both.measurements[0].profile == seen.measurements[0].profile


def test_without_the_option_nothing_is_profiled(tiny_bundle: Bundle) -> None:
    (found,) = sweep([Match([bundle_contender(tiny_bundle, "onnxruntime")], [], 1)], Plan(seconds=0.03))
    assert found.measurements[0].profile is None
    assert found.to_json()["breakdowns"] == [None]
    assert profile_tables([found]) == []


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_nodes_without_names_stand_alone_and_the_reader_is_told(tiny_bundle: Bundle, backend: str) -> None:
    found = profiled(bench([bundle_contender(tiny_bundle, backend)], batch=1, seconds=0.03))
    profile = found.measurements[0].profile
    assert profile is not None
    assert "export it again" in profile.notes[0]
    assert len(broken_down(profile).layers) == len(profile.nodes) > 1


ODD = """
from odd_openers import Odd
from dyx.runtime.profile import Profile


class Fragile(Odd):
    def _profile(self, image, calls):
        raise MemoryError("no room for a second session")


class Refusing(Odd):
    pass
"""


def test_a_profile_that_fails_costs_no_sample(openers: str, tmp_path: Path) -> None:
    (tmp_path / "openers" / "odd_profiles.py").write_text(ODD, encoding="utf-8")
    sides = [Contender(name, "odd", f"odd_profiles:{name}") for name in ("Fragile", "Refusing")]
    found = profiled(bench(sides, batch=1, seconds=0.03))
    fragile, refusing = (measurement.profile for measurement in found.measurements)
    assert fragile is not None
    assert refusing is not None
    assert "MemoryError: no room for a second session" in fragile.notes[0]
    assert refusing.notes == ("odd gives no time per node: it runs no graph of nodes",)
    assert len(refusing.preprocess_ns) == 20
    assert all(row.images_per_s > 0 for row in found.rows)
    assert not found.interrupted


def test_ctrl_c_keeps_what_was_profiled(tiny_bundle: Bundle) -> None:
    sides = [bundle_contender(tiny_bundle, "onnxruntime", name=name) for name in ("first", "second")]

    def progress(text: str, _share: float) -> None:
        if text.startswith("second: profiling"):
            raise KeyboardInterrupt

    found = profiled(bench(sides, batch=1, seconds=0.03), progress)
    assert [measurement.profile is not None for measurement in found.measurements] == [True, False]
    assert found.interrupted
    assert "interrupted: not every contender was profiled" in found.notes


def test_progress_of_a_profile_comes_after_that_of_the_runs(tiny_bundle: Bundle) -> None:
    told: list[tuple[str, float]] = []
    match = Match([bundle_contender(tiny_bundle, "onnxruntime")], [], 1)
    sweep([match], Plan(seconds=0.03, profile=True), lambda text, share: told.append((text, share)))
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert told[-1] == ("tiny: profiling on onnxruntime", 0.5)


def node(layer: str | None, kind: str, *times_ns: int, rule: str = "") -> Node:
    return Node(f"{layer}/{kind}", kind, layer, rule, times_ns)


PROFILE = Profile(
    calls_ns=(10_000_000, 20_000_000, 12_000_000),
    nodes=(
        node("a", "Conv", 1_000_000, 2_000_000, 3_000_000),
        node("b.c", "Conv", 4_000_000, 5_000_000, 4_000_000, rule="x/y"),
        node("a", "Relu", 1_000_000, 1_000_000, 1_000_000),
        node("b.c", "Conv", 500_000, 500_000, 500_000, rule="x/y"),
        node("b.c", "MatMul", 5_000, 5_000, 5_000, rule="x/y"),
    ),
    copies_ns={"in": (200_000, 400_000, 300_000), "out": (100_000, 100_000, 100_000)},
    preprocess_ns=(3_000_000, 1_000_000, 2_000_000),
    notes=("a note",),
)


def test_figures_by_hand() -> None:
    found = broken_down(PROFILE)
    assert (found.calls, found.call_ms, found.is_mean) == (3, 12.0, False)
    assert found.layers == (
        LayerTime("a", "", {"Conv": 1, "Relu": 1}, 3.0, 0.25),
        LayerTime("b.c", "x/y", {"Conv": 2, "MatMul": 1}, 4.505, pytest.approx(4.505 / 12)),  # type: ignore[arg-type]
    )
    # Per call 6.505, 8.505 and 8.505 in nodes; 0.3, 0.5 and 0.4 copied; 3.195, 10.995 and 3.095 are left.
    assert (found.nodes_ms, found.outside_ms) == (8.505, 3.195)
    assert found.copies_ms == {"in": 0.3, "out": 0.1}
    assert found.preprocess_ms == 2.0
    assert found.by_rule == {"": (1, 3.0), "x/y": (1, 4.505)}


def test_means_are_held_against_the_mean_call() -> None:
    found = broken_down(Profile((10_000_000, 20_000_000), (node("a", "Conv", 9_000_000),)))
    assert (found.is_mean, found.call_ms, found.nodes_ms, found.outside_ms) == (True, 15.0, 9.0, 6.0)


def test_a_profile_of_nothing_has_no_figures() -> None:
    found = broken_down(Profile(notes=("because",)))
    assert (found.layers, found.call_ms, found.outside_ms, found.preprocess_ms) == ((), None, None, None)


def test_lines_beneath_a_table(seen: Comparison) -> None:
    lines = lines_beneath(broken_down(PROFILE), seen.rows[0], 8)
    assert lines[0] == "By rule: x/y 4.50 ms (38%) in 1 layer, static layers 3.00 ms (25%) in 1 layer."
    assert lines[1].startswith("Inference: ")
    assert "2.00 ms for a JPEG of 500 × 375" in lines[2]
    assert "16.0 ms for 8 on one core" in lines[2]
    assert lines[3] == "Note: a note."
    on_gpu = replace(seen.rows[0], device_ms=1.5, percentiles_ms={"p50": 2.0})
    assert "copies and launches 0.50 ms" in " ".join(lines_beneath(broken_down(Profile()), on_gpu, 1))


def test_the_picture_is_a_photographs_work(tmp_path: Path) -> None:
    file = tmp_path / "picture.jpg"
    write_picture(file)
    with Image.open(file) as image:
        assert (image.format, image.size) == ("JPEG", PICTURE)
    assert 40_000 < file.stat().st_size < 400_000
    assert Preprocess((224, 224), short_side=256)(file).std() > 0.2


def test_command_prints_keeps_and_refuses(
    dy_bundle: Path, bundles: Path, tmp_path: Path, run_dyx: Callable[..., Any]
) -> None:
    record, page = tmp_path / "run.json", tmp_path / "page.html"
    places = (dy_bundle, "--baseline", bundles / "alexnet-bn", "--backend", "onnxruntime", "--device", "cpu")
    ran = run_dyx("bench", *places, "--batch", "2", "--seconds", "0.1", "--profile", "--json", record)
    assert ran.code == 0, ran.err
    assert "profile of alexnet-dy on onnxruntime, batch 2" in ran.out
    assert "profile of alexnet-bn on onnxruntime, batch 2" in ran.out
    row = next(line for line in ran.out.splitlines() if line.strip().startswith("features.8 "))
    assert "dyconv/" in row
    assert "Conv" in row
    for words in ("all nodes", "outside nodes", "call (median of ", "By rule: ", "Preprocessing: ", "it runs no graph"):
        assert words in ran.out, words
    again = run_dyx("bench", "--load", record)
    assert "profile of alexnet-dy on onnxruntime" in again.out
    assert run_dyx("report", record, "--out", page).code == 0
    assert "Time by layer" in page.read_text(encoding="utf-8")
    refused = run_dyx("bench", "--load", record, "--profile")
    assert refused.code == 2
    assert "--profile makes no sense beside --load: a record shows what was profiled when it was made" in refused.err
    refused = run_dyx("bench", dy_bundle, "--scenario", "offline", "--profile")
    assert refused.code == 2
    assert "--profile makes no sense beside --scenario" in refused.err


def test_a_figure_shows_the_layers_that_take_most() -> None:
    bars = [LayerBar(f"layer.{place}", "x/y" if place % 2 else "", float(place), 0.1) for place in range(40)]
    (axes,) = layer_times(bars, "net, odd").axes
    assert [patch.get_width() for patch in axes.patches] == [float(place) for place in range(24, 40)]  # type: ignore[attr-defined]
    assert len({patch.get_facecolor() for patch in axes.patches}) == 2
    words = [text.get_text() for text in axes.texts]
    assert "layer.39" in words
    assert "x/y   39.000 (10%)" in words
    assert "the longest 16 of 40" in axes.get_title(loc="left")
    assert layer_times([], "net").texts[0].get_text() == "No layer was told apart."
