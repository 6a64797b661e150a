"""Who takes part in a benchmark, and what is made first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dyx
from dyx.bench import Comparison, Plan
from dyx.bench.limit import SIDE, arithmetic, open_limit, products
from dyx.bundle import MANIFEST, Graph, read_bundle
from dyx.census import take_census
from dyx.errors import BundleMissing, InvalidOption, PackageMissing, UnknownName, UnlikeTasks
from dyx.lineup import EAGER, Lineup, Where, check_batch, line_up, measure, peers
from dyx.registry import resolve
from dyx.runtime import BACKENDS


def who(lineup: Lineup) -> set[tuple[str, str, bool]]:
    return {(one.name, one.backend, one.baseline) for one in lineup.contenders}


def test_zoo_baseline_lies_beside_the_bundle(dy_bundle: Path) -> None:
    lineup = line_up([dy_bundle], None, Where(), print)
    wanted = {
        (model, backend, model == "alexnet-bn") for model in ("alexnet-dy", "alexnet-bn") for backend in BACKENDS.names
    }
    assert who(lineup) == wanted | {("alexnet-dy", EAGER, False)}
    eager = next(one for one in lineup.contenders if one.backend == EAGER)
    assert (eager.group, eager.reference) == ("paddle", True)
    assert lineup.skipped == ()


def test_missing_bundles_are_exported_first_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    heard: list[str] = []
    lineup = line_up([], None, Where(("onnxruntime",)), heard.append)
    assert any("alexnet-dy is not there: exporting it first" in text for text in heard)
    assert any("alexnet-bn is not there: exporting it first" in text for text in heard)
    ours, baseline = (read_bundle(f"bundles/{name}") for name in ("alexnet-dy", "alexnet-bn"))
    assert [graph.stem for graph in ours.graphs] == ["small", "medium", "model"]
    rules = {site["path"]: site["rule"] for site in ours.manifest["plan"]["sites"]}
    assert rules["features.4"] == "conv/winograd"
    assert baseline.graphs == (Graph(),), "a baseline is what one gets without dyx"
    assert {site["rule"] for site in baseline.manifest["plan"]["sites"]} == {"conv/direct"}
    assert len(lineup.contenders) == 3
    heard.clear()
    line_up([], None, Where(("onnxruntime",)), heard.append)
    assert heard == [], "what is there is taken as it is"


def test_missing_bundle_without_paddle(tmp_path: Path, dy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dyx.lineup.is_installed", lambda name: name == "onnxruntime")
    alone = shutil.copytree(dy_bundle, tmp_path / "alone" / "alexnet-dy")
    with pytest.raises(PackageMissing, match="paddlepaddle is not installed") as caught:
        line_up([alone], None, Where(("onnxruntime",)), print)
    assert "bundles/alexnet-bn is not there" in caught.value.hint


def test_backends_that_are_absent_and_formats_that_lack_are_skipped_with_the_reason(
    dy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dyx.export("alexnet-bn", out=tmp_path / "x", formats=("onnx",), tune_batch=2)
    monkeypatch.setattr("dyx.lineup.is_installed", lambda name: name != "openvino")
    lineup = line_up([dy_bundle], str(tmp_path / "x"), Where(), print)
    reasons = {(one.name, one.backend): one.reason for one in lineup.skipped}
    assert "dyx[openvino]" in reasons["alexnet-dy", "openvino"]
    assert "holds no paddle file" in reasons["alexnet-bn", "paddle"]
    monkeypatch.setattr("dyx.lineup.is_installed", lambda name: name == "onnxruntime")
    lineup = line_up([dy_bundle], None, Where(("onnxruntime",)), print)
    assert [(one.backend, "dyx[paddle]" in one.reason) for one in lineup.skipped] == [(EAGER, True)]


def test_gpu_leaves_openvino_out(dy_bundle: Path) -> None:
    lineup = line_up([dy_bundle], None, Where(device="gpu"), print)
    assert ("alexnet-dy", "openvino") in {(one.name, one.backend) for one in lineup.skipped}
    assert {one.arguments["device"] for one in lineup.contenders} == {"gpu"}


def test_network_without_a_baseline_and_one_compared_with_itself(bundles: Path) -> None:
    where = Where(("onnxruntime",))
    alone = line_up([bundles / "alexnet-bn"], None, where, print)
    assert who(alone) == {("alexnet-bn", "onnxruntime", False), ("alexnet-bn", EAGER, False)}
    itself = line_up([bundles / "alexnet-bn"], "alexnet-bn", where, print)
    assert who(itself) >= {("alexnet-bn", "onnxruntime", False), ("alexnet-bn", "onnxruntime", True)}


def test_baseline_named_among_the_others_takes_part_once(bundles: Path) -> None:
    lineup = line_up([bundles / "alexnet-dy", bundles / "alexnet-bn"], None, Where(("onnxruntime",)), print)
    sides = [(one.name, one.baseline) for one in lineup.contenders if one.backend == "onnxruntime"]
    assert sides == [("alexnet-dy", False), ("alexnet-bn", True)]


@pytest.fixture
def others(dy_bundle: Path, tmp_path: Path) -> Callable[..., Path]:
    """`others(shape, classes, batch)`: a bundle that says it takes and tells so much."""

    def made(shape: tuple[int, ...] = (3, 128, 128), classes: int = 10, batch: object = "batch") -> Path:
        place = tmp_path / f"{'x'.join(map(str, shape))}-{classes}-{batch}"
        shutil.copytree(dy_bundle, place)
        manifest = json.loads((place / MANIFEST).read_text())
        manifest["inputs"][0]["shape"] = [batch, *shape]
        manifest["outputs"][0]["shape"] = [batch, classes]
        (place / MANIFEST).write_text(json.dumps(manifest))
        return place

    return made


@pytest.mark.parametrize(("shape", "classes"), [((3, 64, 64), 10), ((3, 128, 128), 7)])
def test_bundles_of_different_tasks_are_refused_with_what_each_takes(
    dy_bundle: Path, others: Callable[..., Path], shape: tuple[int, ...], classes: int
) -> None:
    other, where = others(shape, classes), Where(("onnxruntime",))
    said = (
        f"{dy_bundle}: 3 × 128 × 128 in, 10 classes out; {other}: {' × '.join(map(str, shape))} in, {classes} classes"
    )
    for paths, baseline in (([dy_bundle, other], None), ([dy_bundle], str(other))):
        with pytest.raises(UnlikeTasks, match="bundles of different tasks cannot be compared") as caught:
            line_up(paths, baseline, where, print)
        assert said in str(caught.value)
        assert "--baseline" in caught.value.hint and caught.value.exit_code == 2


def test_a_zoo_baseline_of_another_task_is_passed_over_and_said(others: Callable[..., Path], bundles: Path) -> None:
    mine = others(classes=7)
    shutil.copytree(bundles / "alexnet-bn", mine.parent / "alexnet-bn")
    lineup = line_up([mine], None, Where(("onnxruntime",)), print)
    assert who(lineup) == {("alexnet-dy", "onnxruntime", False), ("alexnet-dy", EAGER, False)}
    (skipped,) = lineup.skipped
    assert (skipped.name, skipped.backend) == ("alexnet-bn", "onnxruntime")
    assert "another task (3 × 128 × 128 in, 10 classes out)" in skipped.reason and "--baseline" in skipped.reason


def test_the_eager_network_is_of_the_bundles_task(others: Callable[..., Path]) -> None:
    lineup = line_up([others(classes=7)], None, Where(("onnxruntime",)), print)
    eager = next(one for one in lineup.contenders if one.backend == EAGER)
    with resolve(eager.opener)(**eager.arguments) as runner:
        assert runner.run(np.zeros((2, 3, 128, 128), np.float32)).shape == (2, 7)
        assert runner.contract.output.shape == ("batch", 7)


def test_a_batch_that_a_bundle_is_not_frozen_to_is_refused(others: Callable[..., Path]) -> None:
    frozen = others(batch=4)
    contenders = line_up([frozen], None, Where(("onnxruntime",)), print).contenders
    check_batch(contenders, 4)
    check_batch(contenders, 2, filled_up=True)
    for batch, filled_up in ((2, False), (5, False), (5, True)):
        with pytest.raises(
            InvalidOption, match=f"--batch is {batch}, which is not the one that {frozen} is frozen to, 4"
        ):
            check_batch(contenders, batch, filled_up=filled_up)
    with pytest.raises(InvalidOption, match="--batch is 8"):
        measure([frozen], None, [Where(("onnxruntime",))], Plan((8,)), print)


def test_names_that_lead_nowhere(dy_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no backend named 'tensorrt'"):
        line_up([dy_bundle], None, Where(("tensorrt",)), print)
    with pytest.raises(UnknownName, match="no bundle or model named 'alexnet-bm'"):
        line_up([dy_bundle], "alexnet-bm", Where(), print)
    with pytest.raises(BundleMissing, match=r"holds no dyx\.json"):
        line_up([dy_bundle], str(tmp_path), Where(), print)


def test_peers_stand_beside_every_network(dy_bundle: Path) -> None:
    where = Where(("onnxruntime",), threads=1)
    full = peers(line_up([dy_bundle], None, where, print), where, 2, print)
    named = {one.name: one for one in full.contenders if one.backend == "onnxruntime"}
    own, frozen, limit = (named[name] for name in ("alexnet-dy (own defaults)", "alexnet-dy (frozen)", "matmul limit"))
    assert own.arguments == {**named["alexnet-dy"].arguments, "tuned": False}
    assert read_bundle(frozen.arguments["bundle"]).input.shape == (2, 3, 128, 128)
    macs = named["alexnet-dy"].macs
    assert macs is not None and macs > (named["alexnet-bn"].macs or 0) > 1e7
    assert limit.limit and limit.macs == limit.arguments["macs"] == macs and limit.arguments["threads"] == 1
    assert {one.group for one in full.contenders if one.backend == "onnxruntime"} == {"onnxruntime"}
    again = peers(line_up([dy_bundle], None, where, print), where, 2, print)
    assert [one.name for one in again.contenders] == [one.name for one in full.contenders]


def test_arithmetic_is_that_of_the_graph_which_takes_the_batch(two_graphs: Path) -> None:
    where, bundle = Where(("onnxruntime",)), read_bundle(two_graphs)
    wanted = {census.file: census.macs for census in take_census(bundle) if census.format == "onnx"}
    assert wanted["small.onnx"] != wanted["model.onnx"]
    for batch, file in ((1, "small.onnx"), (64, "model.onnx")):
        full = peers(line_up([two_graphs], None, where, print), where, batch, print)
        assert {one.macs for one in full.contenders if not one.reference} == {wanted[file]}


def test_peers_that_cannot_be_say_why(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = Where(("onnxruntime",))
    plain = peers(line_up([bundles / "alexnet-bn"], None, where, print), where, 2, print)
    reasons = {one.name: one.reason for one in plain.skipped}
    assert "only the zoo's dynamic networks" in reasons["alexnet-bn (frozen)"]
    monkeypatch.setattr("dyx.lineup.find_spec", lambda name: None if name == "onnx" else object())
    without = peers(line_up([bundles / "alexnet-bn"], None, where, print), where, 2, print)
    assert "the arithmetic of an ONNX file" in {one.name: one.reason for one in without.skipped}["matmul limit"]


def test_bundle_of_pixels_is_measured_beside_normalised_ones(pixel_bundle: Path, dy_bundle: Path) -> None:
    where = Where(("onnxruntime",), threads=1)
    ours = line_up([pixel_bundle], None, where, print)
    assert who(ours) == {
        *(("alexnet-dy (uint8)", "onnxruntime", False), ("alexnet-bn", "onnxruntime", True)),
        ("alexnet-dy", EAGER, False),
    }
    full = peers(ours, where, 2, print)
    names = {one.name for one in full.contenders}
    assert {"alexnet-dy (uint8) (own defaults)", "alexnet-dy (frozen)", "matmul limit"} <= names
    (found,) = measure([pixel_bundle], str(dy_bundle), [where], Plan((2,), seconds=0.03), print, with_peers=True)
    rows = {row.name: row for row in found.rows if row.backend == "onnxruntime"}
    for name in ("alexnet-dy (uint8)", "alexnet-dy (frozen)"):
        assert rows[name].ratio is not None, name
    assert {row.name for row in found.rows if row.backend == EAGER} == {"alexnet-dy"}


def test_peers_are_measured_and_told_as_shares_of_the_peak(dy_bundle: Path) -> None:
    (found,) = measure([dy_bundle], None, [Where(("onnxruntime",))], Plan((2,), seconds=0.03), print, with_peers=True)
    rows = {row.name: row for row in found.rows if row.backend == "onnxruntime"}
    assert rows["alexnet-dy (frozen)"].ratio is not None and rows["alexnet-dy (own defaults)"].ratio is not None
    limit = rows["matmul limit"]
    fastest = {
        seen.contender.name: min(call for turn in seen.turns for call in turn.calls_ns)
        for seen in found.measurements
        if seen.contender.backend == "onnxruntime"
    }
    assert limit.ratio is None and limit.peak_share is None
    of_limit = arithmetic(rows_macs(found, "matmul limit"), 2)
    for name in ("alexnet-dy", "alexnet-bn", "alexnet-dy (own defaults)"):
        share, macs = (
            rows[name].peak_share,
            next(seen.contender.macs for seen in found.measurements if seen.contender.name == name),
        )
        assert share is not None and macs is not None
        peak = limit.images_per_s / 2 * of_limit
        assert share == pytest.approx(rows[name].images_per_s * macs / peak)
        of_fastest_calls = 2 * macs / fastest[name] * fastest["matmul limit"] / of_limit
        assert share > 0 and of_fastest_calls < 3
    assert Comparison.from_json(found.to_json()).rows == found.rows


def rows_macs(found: Comparison, name: str) -> int:
    macs = next(seen.contender.macs for seen in found.measurements if seen.contender.name == name)
    assert macs is not None
    return macs


def test_the_limit_does_at_least_the_arithmetic_asked_for() -> None:
    assert (products(97_000_000, 1), products(97_000_000, 512)) == (1, 47)
    assert arithmetic(97_000_000, 512) == 47 * SIDE**3 >= 97_000_000 * 512
    with open_limit(SIDE**3, threads=1) as runner:
        assert runner.run(np.zeros((2, 3, 1, 1), np.float32)).shape == (2, 3, 1, 1)
        assert runner.threads == 1
