"""`--tune` on a real network: what is measured is what is chosen, whatever prices say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import dyx
from dyx.bench import compare
from dyx.bundle import Bundle, read_bundle
from dyx.checks import check
from dyx.errors import BenchFailed, InvalidOption, PackageMissing, UnknownName
from dyx.exporter import settings, trial, tune
from dyx.exporter.rule import CPUS, MACHINES, Machine
from dyx.exporter.settings import ExportSettings
from dyx.exporter.trial import Speed
from dyx.tuning import tuned_batches

FEWER = ("conv/direct",)
"""Half as many candidates: the static convolution is folded in one way."""
SHAPE = (3, 7, 7)


pytestmark = pytest.mark.usefixtures("short_tuning")


@pytest.fixture
def tuned(two_graphs_class: str) -> Callable[..., Bundle]:
    """The small network of two graphs, tuned and exported to a folder, with other options where some are given."""
    usual = {"shape": SHAPE, "formats": ("onnx",), "tune": True, "tune_batch": (1, 64)}
    return lambda out, **options: dyx.export(two_graphs_class, out=out, **{**usual, **options})


def rules_of(plan: Mapping[str, Any]) -> dict[str, str]:
    return {site["path"]: site["rule"] for site in plan["sites"]}


def test_what_was_chosen_is_what_was_measured(tuned_bundle: Bundle) -> None:
    tuning = tuned_bundle.manifest["tuning"]
    chosen, candidates = tuning["chosen"], tuning["candidates"]
    assert len(chosen) == len(tuned_bundle.graphs)
    for graph, told in zip(tuned_bundle.graphs, chosen, strict=True):
        assert {key: told[key] for key in ("stem", "from_batch", "chunk")} == asdict(graph)
        assert rules_of(tuned_bundle.of_graph(graph).manifest["plan"]) == candidates[told["candidate"]]
    assert rules_of(tuned_bundle.manifest["plan"]) == candidates[chosen[-1]["candidate"]]
    assert [each.batch for each in tuned_batches(tuning)] == [1, 64]
    by_stem = {told["stem"]: told["candidate"] for told in chosen}
    assert [each.candidate for each in tuned_batches(tuning)] == [
        by_stem[tuned_bundle.graph_for(batch).stem] for batch in (1, 64)
    ]


def test_every_strategy_took_part_at_every_batch_size(tuned_bundle: Bundle) -> None:
    tuning = tuned_bundle.manifest["tuning"]
    assert tuning["batches"] == [1, 64] and not tuning["failed"]
    tried = {rule for name in tuning["tried"]["64"] for rule in tuning["candidates"][name].values()}
    assert tried >= {"dyconv/winograd", "dyconv/mix-outputs", "dyconv/mix-inputs", "dyconv/aggregate-kernel"}
    for layers in tuning["layers"].values():
        assert set(layers) >= {"features.2"}
        assert all(0 < seconds < 1 for seconds in layers["features.2"].values())


def test_reasons_are_measured_times(tuned_bundle: Bundle) -> None:
    (site,) = (site for site in tuned_bundle.manifest["plan"]["sites"] if site["path"] == "features.2")
    told = [why for why in site["passed_over"].values() if why.startswith("measured ")]
    assert told and all(" µs per image against " in why and why.endswith("at batch 64") for why in told)


def test_the_bundle_is_whole_and_proven(tuned_bundle: Bundle) -> None:
    assert check(read_bundle(tuned_bundle.path), backends=("onnxruntime",)).passed
    names = {path.name for path in tuned_bundle.path.iterdir()}
    assert names <= {"dyx.json", "samples.npz", "model.onnx", "small.onnx"}, "no candidate is left"
    environment = tuned_bundle.manifest["tuning"]["environment"]
    assert environment["cpu"]["usable_cores"] == len(os.sched_getaffinity(0)) and "command" not in environment


def test_wrong_prices_are_outvoted(
    tuned: Callable[..., Bundle], two_graphs_class: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where moving bytes is said to be for nothing and arithmetic dear, tiles are priced lowest; another measures best.

    What is measured is told here, not seen: a busy machine may see anything.
    """
    monkeypatch.setitem(MACHINES, "onnxruntime", dict.fromkeys(CPUS, Machine(1e9, 1e15, 1e9, 1e9)))
    priced = dyx.plan(two_graphs_class, shape=SHAPE, tune_batch=64, fold=FEWER)
    assert {decision.site.path: decision.rule for decision in priced.plan.decisions}["features.2"] == "dyconv/winograd"

    def told(comparison: compare.Comparison) -> dict[str, Speed]:
        return {
            row.name: Speed(200, 2.0, 1.9, 2.1) if row.name == "mix-outputs for 64" else Speed(100)
            for row in comparison.rows
        }

    monkeypatch.setattr(tune, "speeds", told)
    monkeypatch.setattr("dyx.exporter.candidates.HOPELESS", 1e9)
    found = tuned(tmp_path / "x", tune_batch=64, fold=FEWER)
    (each,) = tuned_batches(found.manifest["tuning"])
    assert (each.candidate, each.ratio) == ("mix-outputs for 64", 2.0)
    assert rules_of(found.manifest["plan"])["features.2"] == "dyconv/mix-outputs"


@pytest.mark.slow
def test_three_graphs_where_three_candidates_measure_fastest(
    tuned: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is measured is told: another candidate is fastest from each batch size on. Prices chose two of them."""
    fastest = {1: "priced for 1", 8: "mix-inputs for 8", 64: "priced for 64"}

    def told(comparison: compare.Comparison) -> dict[str, Speed]:
        best = fastest[max(size for size in fastest if size <= comparison.settings.batch)]
        return {
            row.name: Speed(200, 2.0, 1.9, 2.1) if row.name == best else Speed(100, 0.5, 0.4, 0.6)
            for row in comparison.rows
        }

    monkeypatch.setattr(tune, "speeds", told)
    monkeypatch.setattr("dyx.exporter.candidates.HOPELESS", 1e9)
    found = tuned(tmp_path / "x", tune_batch=(1, 8, 64), fold=FEWER)
    assert [(graph.stem, graph.from_batch) for graph in found.graphs] == [("small", 1), ("medium", 8), ("model", 64)]
    rules = [rules_of(found.of_graph(graph).manifest["plan"])["features.2"] for graph in found.graphs]
    assert rules == ["dyconv/mix-outputs", "dyconv/mix-inputs", "dyconv/winograd"]
    assert [each.candidate for each in tuned_batches(found.manifest["tuning"])] == list(fastest.values())
    assert {path.name for path in found.path.glob("*.onnx")} == {"small.onnx", "medium.onnx", "model.onnx"}
    report = check(read_bundle(found.path), backends=("onnxruntime",))
    assert report.passed
    assert {verdict.artifact for verdict in report.parity.verdicts} == {"onnx", "onnx medium", "onnx small"}


@pytest.mark.slow
def test_a_frozen_batch_is_tuned_alone(tuned: Callable[..., Bundle], tmp_path: Path) -> None:
    found = tuned(tmp_path / "x", batch=4, tune_batch=None)
    assert found.manifest["tuning"]["batches"] == [4]
    (graph,) = found.graphs
    assert graph.chunk is None and found.input.shape[0] == 4


def test_a_batch_that_cannot_be_measured_says_so(
    tuned: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies at the large batch, as it does out of memory: the small one is tuned alone."""
    real = trial.bench

    def dying(contenders: Any, *, batch: int, seconds: float) -> compare.Comparison:
        if batch == 64:
            raise BenchFailed("winograd for 64 on onnxruntime", "its process was ended by SIGKILL (out of memory?)")
        return real(contenders, batch=batch, seconds=seconds)

    monkeypatch.setattr(trial, "bench", dying)
    found = tuned(tmp_path / "x", fold=FEWER)
    assert "SIGKILL" in found.manifest["tuning"]["failed"]["64"]
    assert list(found.manifest["tuning"]["speeds"]) == ["1"]
    with pytest.raises(BenchFailed, match="SIGKILL"):
        tuned(tmp_path / "y", tune_batch=64, fold=FEWER)
    assert not (tmp_path / "y").exists()


def test_ctrl_c_leaves_nothing(tuned: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = trial.bench

    def stopped(contenders: Any, *, batch: int, seconds: float) -> compare.Comparison:
        return real(contenders, batch=batch, seconds=seconds).noted("interrupted: as Ctrl-C does")

    monkeypatch.setattr(trial, "bench", stopped)
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "x", fold=FEWER)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("speed", "gain"),
    [
        (Speed(100, 1.3, 1.2, 1.4), 1.3),
        (Speed(100, 0.7, 0.6, 0.8), 0.7),
        (Speed(100, 1.3, 0.9, 1.7), 1.0),
        (Speed(100, 0.9, 0.7, 1.1), 1.0),
        (Speed(100, 1.3, 1.2, 1.4, stable=False), 1.0),
        (Speed(100, 0.7, 0.6, 0.8, stable=False), 0.7),
        (Speed(100, 1.3), 1.0),
    ],
)
def test_only_what_is_sure_counts_as_faster(speed: Speed, gain: float) -> None:
    assert speed.gain == gain


@pytest.mark.parametrize(
    ("options", "usual", "batches"),
    [
        ({}, 512, (512,)),
        ({"tune": True}, 512, (1, 8, 64, 512)),
        ({"tune": True}, 32, (1, 8, 32)),
        ({"tune": True}, 8, (1, 8)),
        ({"tune": True, "tune_batch": (64, 1, 64)}, 8, (1, 64)),
        ({"tune_batch": 2}, 512, (2,)),
        ({"tune": True, "batch": 4}, 512, (4,)),
    ],
)
def test_batch_sizes_that_count(options: dict[str, Any], usual: int, batches: tuple[int, ...]) -> None:
    chosen = ExportSettings(**options)
    assert chosen.tune_batches(usual) == batches
    assert chosen.target(usual).priced_batch == batches[-1]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"tune_batch": (1, 64)}, InvalidOption, "several are for --tune"),
        ({"tune": True, "tune_batch": (0, 64)}, InvalidOption, "from 1 up"),
        ({"tune": True, "formats": ("paddle",)}, InvalidOption, "runs what is exported, paddle"),
        ({"tune": True, "tune_backend": "tensorrt"}, (UnknownName, InvalidOption), "tensorrt"),
    ],
)
def test_what_cannot_be_tuned_is_refused(options: dict[str, Any], error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        ExportSettings(**options).check()


def test_a_backend_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise PackageMissing("openvino", "openvino")

    monkeypatch.setattr(settings, "require_backend", missing)
    with pytest.raises(PackageMissing, match="openvino"):
        ExportSettings(tune=True, tune_backend="openvino").check()


def test_the_manifest_is_plain_json(tuned_bundle: Bundle) -> None:
    told = json.loads((tuned_bundle.path / "dyx.json").read_text())["tuning"]
    assert set(told) >= {"backend", "batches", "candidates", "tried", "speeds", "layers", "chosen", "environment"}
    assert told["seconds"] == 0.2, "that of `tuned_bundle`"
    assert tune.PIECES_FROM == 64 and not told["chunks"], "batches up to that are taken whole"
