"""Who takes part in a benchmark, and what is made first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import dyx
from dyx.bundle import read_bundle
from dyx.errors import BundleMissing, PackageMissing, UnknownName
from dyx.lineup import EAGER, Lineup, Where, line_up
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
    assert read_bundle("bundles/alexnet-dy").model == "alexnet-dy"
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


def test_names_that_lead_nowhere(dy_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no backend named 'tensorrt'"):
        line_up([dy_bundle], None, Where(("tensorrt",)), print)
    with pytest.raises(UnknownName, match="no bundle or model named 'alexnet-bm'"):
        line_up([dy_bundle], "alexnet-bm", Where(), print)
    with pytest.raises(BundleMissing, match=r"holds no dyx\.json"):
        line_up([dy_bundle], str(tmp_path), Where(), print)
