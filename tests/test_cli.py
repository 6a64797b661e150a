"""The command line: every mistake gets one clear sentence, what to do, and the right exit code."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dyx.bundle import read_bundle
from dyx.tuning import machine_of, tuned_batches

MODELS = ("alexnet-bn", "alexnet-dy")


def test_models_are_listed(run_dyx: Any) -> None:
    ran = run_dyx("models")
    assert ran.code == 0
    for words in ("alexnet-dy", "8.32M", "alexnet-bn", "7.53M", "128", "condconv8x-mobilenetv2-100", "102.07M"):
        assert words in ran.out
    listed = {entry["name"]: entry for entry in json.loads(run_dyx("models", "--json").out)}
    assert listed["alexnet-dy"]["parameters"] == 8_324_368
    assert listed["alexnet-dy"]["shape"] == [3, 128, 128]
    assert listed["kw1x-resnet18"]["top1"] == 74.77
    assert listed["kw1x-resnet18"]["top1_source"] == "KernelWarehouse's README, 300 epochs"
    assert listed["odconv2x-resnet18"]["top1"] is None


def test_plan_shows_rules_costs_and_reasons(run_dyx: Any) -> None:
    ran = run_dyx("plan", "alexnet-dy")
    assert ran.code == 0
    for words in (
        "features.4",
        "conv/winograd",
        "conv/direct: costs",
        "features.5",
        "features.7",
        "features.8",
        "dyconv/winograd",
        "dyconv/mix-outputs: costs",
        "features.9",
        "features.17",
        "MMAC",
        "batch dynamic, priced at 512 on onnxruntime, AVX-512 cores",
    ):
        assert words in ran.out
    plan = json.loads(run_dyx("plan", "--json", "--batch", "1", "--tune-backend", "openvino").out)
    assert (plan["batch"], plan["tune_backend"], len(plan["sites"])) == (1, "openvino", 4)
    assert plan["sites"][0]["rule"] == "conv/padded-map"
    assert "nothing to fold" in run_dyx("plan", "alexnet-bn", "--batch", "1").out
    plain = json.loads(run_dyx("plan", "alexnet-bn", "--json").out)
    assert {site["rule"] for site in plain["sites"]} == {"conv/winograd"}


def test_export_says_what_it_found_made_and_proved(run_dyx: Any, tmp_path: Path) -> None:
    ran = run_dyx("export", "alexnet-dy", "--out", tmp_path / "x", "--temperature", 2, "--tune-batch", 2)
    assert ran.code == 0
    for words in (
        "folding 3 × DYConv2D",
        "proving the onnx file on onnxruntime",
        "note: untrained",
        "note: temperature 2",
    ):
        assert words in ran.err
    assert "parity with the dynamic network in float64" in ran.out
    assert "float32 [batch, 3, 128, 128]" in ran.out


def test_export_prints_the_manifest_as_json(run_dyx: Any, tmp_path: Path) -> None:
    ran = run_dyx("export", "alexnet-bn", "--out", tmp_path / "x", "--format", "onnx", "--tune-batch", 2, "--json")
    manifest = json.loads(ran.out)
    assert manifest == {"bundle": str(tmp_path / "x"), **json.loads((tmp_path / "x" / "dyx.json").read_text())}


def test_check_passes_and_fails(run_dyx: Any, dy_bundle: Path, altered: Path) -> None:
    ran = run_dyx("check", dy_bundle)
    assert ran.code == 0
    for words in ("onnxruntime", "openvino", "paddle", "pass", "census: every promise kept", "passed:"):
        assert words in ran.out
    report = json.loads(run_dyx("check", dy_bundle, "--json", "--backend", "onnxruntime").out)
    assert report["passed"]
    assert report["skipped"] == {"openvino": "not asked for", "paddle": "not asked for"}
    spoil_references(altered)
    ran = run_dyx("check", altered, "--backend", "onnxruntime")
    assert ran.code == 1
    assert "MISS" in ran.out
    assert "is off by" in ran.out


def spoil_references(folder: Path) -> None:
    """Change the answers that a bundle must give, and its hash of them: only parity can notice."""
    from dyx.bundle import Samples, read_bundle, write_samples

    samples = read_bundle(folder).samples()
    write_samples(folder, Samples(samples.image, samples.logits * 1.01, samples.kind))
    rewrite_manifest(folder)


def rewrite_manifest(folder: Path, **changes: Any) -> None:
    """Another manifest, with hashes that agree."""
    from dyx.bundle import read_bundle, write_manifest

    manifest = read_bundle(folder, verify=False).manifest
    entries = {key: value for key, value in manifest.items() if key not in ("schema", "files")}
    (folder / "dyx.json").unlink()
    write_manifest(folder, entries | changes)


def test_check_fails_where_a_graph_breaks_a_promise(run_dyx: Any, altered: Path) -> None:
    from dyx.bundle import read_bundle

    rewrite_manifest(altered, plan={**read_bundle(altered).manifest["plan"], "batch": 4})
    ran = run_dyx("check", altered, "--backend", "onnxruntime")
    assert ran.code == 1
    assert "census: model.onnx: the batch is free, where the plan says 4" in ran.out


def test_check_proves_every_graph(run_dyx: Any, two_graphs: Path, tmp_path: Path) -> None:
    ran = run_dyx("check", two_graphs)
    assert ran.code == 0
    for backend in ("onnxruntime", "openvino", "paddle"):
        for name in (backend, f"{backend} small"):
            rows = [line.split() for line in ran.out.splitlines() if re.match(rf"\W*{name} +\d", line)]
            assert len(rows) == 4, name
            assert all("pass" in row for row in rows)
    report = json.loads(run_dyx("check", two_graphs, "--json", "--backend", "openvino").out)
    proved = {(verdict["backend"], verdict["artifact"]) for verdict in report["parity"]["verdicts"]}
    assert proved == {("openvino", "onnx"), ("openvino", "onnx small")}
    spoilt = shutil.copytree(two_graphs, tmp_path / "spoilt")
    weights = bytearray((spoilt / "small.pdiparams").read_bytes())
    middle = len(weights) // 8 * 4
    weights[middle : middle + 4096] = bytes(4096)
    (spoilt / "small.pdiparams").write_bytes(weights)
    rewrite_manifest(spoilt)
    report = json.loads(run_dyx("check", spoilt, "--json").out)
    missed = {verdict["artifact"] for verdict in report["parity"]["verdicts"] if not verdict["passed"]}
    assert (report["passed"], missed) == (False, {"paddle small"})


def test_check_takes_the_census_of_every_graph(run_dyx: Any, two_graphs: Path, tmp_path: Path) -> None:
    import onnx

    copied = shutil.copytree(two_graphs, tmp_path / "copy")
    model = onnx.load(copied / "small.onnx", load_external_data=False)
    model.graph.node[0].domain = "com.example"
    onnx.save(model, copied / "small.onnx")
    rewrite_manifest(copied)
    report = json.loads(run_dyx("check", copied, "--json", "--backend", "paddle").out)
    assert report["faults"] == ["small.onnx: operators of other domains: com.example"]
    assert not report["passed"]


def test_export_says_what_answers_small_batches(run_dyx: Any, two_graphs_class: str, tmp_path: Path) -> None:
    ran = run_dyx(
        "export", two_graphs_class, "--shape", "3,7,7", "--tune-batch", 64, "--format", "onnx", "--out", tmp_path / "x"
    )
    assert ran.code == 0
    start = json.loads((tmp_path / "x" / "dyx.json").read_text())["graphs"][-1]["from_batch"]
    assert f"folding once more, for batches below {start}" in ran.err
    assert "proving the onnx small file on onnxruntime" in ran.err
    assert f"batches below {start}: small.*, folded by dyconv/mix-outputs" in ran.out
    assert "folded by conv/winograd, dyconv/winograd" in ran.out
    assert {path.name for path in (tmp_path / "x").iterdir()} == {"dyx.json", "samples.npz", "model.onnx", "small.onnx"}


def test_export_makes_one_graph_when_told(run_dyx: Any, two_graphs_class: str, tmp_path: Path) -> None:
    asked = ("--shape", "3,7,7", "--tune-batch", 64, "--format", "onnx", "--one-graph")
    ran = run_dyx("export", two_graphs_class, *asked, "--out", tmp_path / "x")
    assert ran.code == 0
    assert "small" not in ran.out + ran.err
    (graph,) = json.loads((tmp_path / "x" / "dyx.json").read_text())["graphs"]
    assert (graph["stem"], graph["from_batch"], graph["chunk"]) == ("model", 1, 1024)
    assert {path.name for path in (tmp_path / "x").iterdir()} == {"dyx.json", "samples.npz", "model.onnx"}


def test_inspect_shows_every_graph(run_dyx: Any, two_graphs: Path) -> None:
    ran = run_dyx("inspect", two_graphs)
    for words in ("model.onnx opset", "small.onnx opset", "model.json", "small.json"):
        assert words in ran.out
    start = read_bundle(two_graphs).graphs[-1].from_batch
    assert f"small.* below {start}, model.* from {start} on, 1024 at a time on a CPU" in ran.out
    told = json.loads(run_dyx("inspect", two_graphs, "--json").out)
    macs = {graph["file"]: graph["macs"] for graph in told["graphs"]}
    assert 0 < macs["model.onnx"] < macs["small.onnx"]


def test_inspect_tells_of_a_frozen_batch(run_dyx: Any, two_graphs_class: str, tmp_path: Path) -> None:
    asked = ("--shape", "3,7,7", "--batch", 2, "--format", "onnx", "--out", tmp_path / "x")
    assert run_dyx("export", two_graphs_class, *asked).code == 0
    assert " batches      2 alone" in run_dyx("inspect", tmp_path / "x").out


def test_inspect_shows_everything(run_dyx: Any, dy_bundle: Path) -> None:
    ran = run_dyx("inspect", dy_bundle)
    assert ran.code == 0
    for words in (
        "float32 [batch, 3, 128, 128]",
        "dyconv/mix-outputs",
        "8,3",
        "MMAC/image",
        "model.pdiparams",
        "untrained",
    ):
        assert words in ran.out
    told = json.loads(run_dyx("inspect", dy_bundle, "--json").out)
    assert {graph["format"] for graph in told["graphs"]} == {"paddle", "onnx"}


def test_predict_prints_classes(run_dyx: Any, dy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # so that no long path is folded
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8)).save("a.png")
    ran = run_dyx("predict", dy_bundle, "a.png", "--top", 2, "--backend", "openvino")
    assert ran.code == 0
    assert "a.png" in ran.out
    (answer,) = json.loads(run_dyx("predict", dy_bundle, "a.png", "--json").out)
    assert len(answer["top"]) == 5
    assert abs(sum(top["score"] for top in answer["top"])) <= 1 + 1e-6
    assert all(
        top["label"] in ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
        for top in answer["top"]
    )


def test_network_that_takes_pixels_is_a_bundle_as_any_other(run_dyx: Any, tmp_path: Path) -> None:
    network, out = f"{Path(__file__).parent / 'data' / 'first_layers.py'}:Padded", tmp_path / "pixels"
    ran = run_dyx("export", network, "--shape", "3,14,14", "--tune-batch", 2, "--input", "uint8", "--out", out)
    assert ran.code == 0, ran.err
    assert "note: takes pixels: the normalisation is inside first.0" in ran.err
    assert "input uint8 [batch, 3, 14, 14]" in ran.out
    assert "image: uint8 [batch, 3, 14, 14]" in run_dyx("inspect", out).out
    ran = run_dyx("check", out)
    assert ran.code == 0 and "census: every promise kept" in ran.out
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    answers = {
        backend: json.loads(run_dyx("predict", out, tmp_path / "a.png", "--backend", backend, "--json").out)
        for backend in ("onnxruntime", "openvino", "paddle")
    }
    best = {backend: answer[0]["top"][0]["index"] for backend, answer in answers.items()}
    assert len(set(best.values())) == 1, best
    assert run_dyx("report", out, "--out", tmp_path / "page.html").code == 0
    assert "uint8 [batch, 3, 14, 14]" in (tmp_path / "page.html").read_text()


def test_eval_of_a_network_that_takes_pixels_agrees_with_its_twin(
    run_dyx: Any, pixel_bundle: Path, dy_bundle: Path
) -> None:
    ran = run_dyx("eval", pixel_bundle, "--data", "digits", "--against", dy_bundle, "--json")
    assert ran.code == 0, ran.err
    against = json.loads(ran.out)["against"]
    assert against["same_class"] == against["images"] > 300


def test_bench_compares_with_the_zoo_baseline_beside_the_bundle(run_dyx: Any, dy_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    options = ("--batch", 2, "--seconds", 0.3, "--backend", "onnxruntime", "--threads", 1, "--json", out)
    ran = run_dyx("bench", dy_bundle, *options)
    assert ran.code == 0
    for words in ("images/s", "alexnet-bn", "baseline", "paddle-eager"):
        assert words in ran.out
    rows = {(row["name"], row["backend"]): row for row in json.loads(out.read_text())["summary"]}
    ratio = rows["alexnet-dy", "onnxruntime"]["ratio"]
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    assert rows["alexnet-bn", "onnxruntime"]["baseline"]
    assert rows["alexnet-dy", "paddle-eager"]["calls"] >= 2


def test_bench_takes_any_bundle_as_baseline(run_dyx: Any, bundles: Path) -> None:
    options = ("--batch", 1, "--seconds", 0.2, "--backend", "onnxruntime", "--json", "-")
    told = json.loads(run_dyx("bench", bundles / "alexnet-bn", "--baseline", bundles / "alexnet-dy", *options).out)
    names = {(row["name"], row["baseline"]) for row in told["summary"] if row["backend"] == "onnxruntime"}
    assert names == {("alexnet-bn", False), ("alexnet-dy", True)}


BAD = [
    (("export", "alexnet-dyy"), 2, "there is no model named 'alexnet-dyy'", "did you mean 'alexnet-dy'"),
    (
        ("plan", "--fold", "dyconv/mixoutputs"),
        2,
        "no fold rule named 'dyconv/mixoutputs'",
        "did you mean 'dyconv/mix-outputs'",
    ),
    (("plan", "alexnet-bn", "--fold", "dyconv/mix-outputs"), 2, "matches no layer of alexnet-bn", "none"),
    (("export", "--batch", "0"), 2, "--batch is '0'", "from 1 up"),
    (("export", "--batch", "-3"), 2, "--batch is '-3'", "from 1 up"),
    (("export", "--batch", "many"), 2, "--batch is 'many'", "from 1 up"),
    (("export", "--shape", "3,128"), 2, "--shape is '3,128'", "three numbers"),
    (("export", "--opset", "22"), 2, "--opset is 22", "17 to 21"),
    (("export", "--opset", "16"), 2, "--opset is 16", "17 to 21"),
    (("export", "--format", "tensorrt"), 2, "no format named 'tensorrt'", "known: paddle, onnx"),
    (("export", "--tolerance", "0"), 2, "--tolerance is 0", "above 0"),
    (("export", "--out", "{tmp}/out", "--weights", "{tmp}/absent.pdparams"), 1, "there is no such file", ".pdparams"),
    (("export", "--out", "{tmp}/out", "--weights", "{tmp}/empty.pdparams"), 1, "the file is empty", ".safetensors"),
    (("export", "--out", "{tmp}/out", "--weights", "{tmp}/text.pdparams"), 1, "truncated or no pickle", ".safetensors"),
    (
        ("export", "--out", "{tmp}/out", "--weights", "{tmp}/evil.pdparams"),
        1,
        "it refers to posix.system",
        "nothing was run",
    ),
    (
        ("export", "--out", "{tmp}/out", "--weights", "{tmp}/nan.pdparams"),
        1,
        "holds NaN or infinite values in a (1 values)",
        "diverged",
    ),
    (
        ("export", "--out", "{tmp}/out", "--weights", "{tmp}/other.pdparams"),
        1,
        "missing: features.0.weight",
        "another network",
    ),
    (("export", "{tmp}/net.py:Net"), 2, "--shape is needed", "3,128,128"),
    (("export", "{tmp}/net.py:Nat", "--shape", "3,8,8"), 1, "has no 'Nat'", "Net"),
    (("export", "{tmp}/net.py:Needy", "--shape", "3,8,8"), 1, "it needs arguments: width", "without arguments"),
    (("export", "{tmp}/net.py:Plain", "--shape", "3,8,8"), 1, "Plain is no paddle.nn.Layer", ""),
    (("export", "--out", "{tmp}/out", "--labels", "{tmp}/absent.txt"), 2, "--labels is", "can be read"),
    (("export", "--out", "{tmp}/out", "--preprocess", "{tmp}/text.pdparams"), 2, "--preprocess is", "JSON"),
    (("export", "--out", "{bundle}"), 2, "exists already", "--force"),
    (("export", "--out", "{tmp}", "--force"), 2, "--force replaces nothing else", ""),
    (("check", "{tmp}/nowhere"), 1, "there is no such folder", "dyx export"),
    (("check", "{tmp}"), 1, "the folder holds no dyx.json", "dyx export"),
    (("check", "{bundle}", "--backend", "onnx"), 2, "no backend named 'onnx'", "did you mean 'onnxruntime'"),
    (("inspect", "{altered}"), 1, "model.onnx is missing", "export it again"),
    (("predict", "{bundle}", "{tmp}/text.pdparams"), 1, "cannot read image", "PNG"),
    (("predict", "{bundle}", "{tmp}/absent.png"), 1, "cannot read image", "PNG"),
    (("predict", "{bundle}", "{tmp}/x.png", "--top", "0"), 2, "--top is 0", "from 1 up"),
    (("predict", "{bundle}", "{tmp}/x.png", "--backend", "ov"), 2, "no backend named 'ov'", "known: onnxruntime"),
    (
        ("predict", "{bundle}", "{tmp}/x.png", "--device", "gpu", "--backend", "openvino"),
        1,
        "cannot use device 'gpu'",
        "--device cpu",
    ),
    (("bench", "{bundle}", "--batch", "0", "--backend", "onnxruntime"), 2, "--batch is '0'", "from 1 up"),
    (("bench", "{bundle}", "--batch", "-1", "--backend", "onnxruntime"), 2, "--batch is '-1'", "from 1 up"),
    (("bench", "{bundle}", "--seconds", "0", "--backend", "onnxruntime"), 2, "--seconds is 0", ""),
    (("export", "--fold", "dyconv/mean-attention"), 2, "--calibrate is needed", "for example --calibrate photos/"),
    (("export", "--calibrate", "{tmp}"), 2, "--calibrate is", "other rules are exact without"),
    (("plan", "--temperature", "0"), 2, "--temperature is 0", "a number above 0 for DYConv2D"),
    (("bench", "{bundle}", "--baseline", "alexnet-dn"), 2, "no bundle or model named 'alexnet-dn'", "did you mean"),
    (("bench", "{bundle}", "--json", "{tmp}/no/such.json"), 1, "cannot write", "there is no folder"),
    (("bench", "{tmp}/nowhere"), 1, "there is no such folder", "dyx export"),
]


@pytest.fixture
def places(tmp_path: Path, dy_bundle: Path, altered: Path) -> dict[str, str]:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("exit 1",)

    def save(name: str, content: Any) -> None:
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=4))

    (altered / "model.onnx").unlink()
    (tmp_path / "empty.pdparams").touch()
    (tmp_path / "text.pdparams").write_text("not a checkpoint")
    save("evil.pdparams", {"w": Evil()})
    save("nan.pdparams", {"a": np.float32([np.nan])})
    save("other.pdparams", {"a": np.float32([1])})
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    (tmp_path / "net.py").write_text(
        "from paddle import nn\n"
        "class Net(nn.Layer):\n    pass\n"
        "class Needy(nn.Layer):\n    def __init__(self, width):\n        super().__init__()\n"
        "class Plain:\n    pass\n"
    )
    return {"tmp": str(tmp_path), "bundle": str(dy_bundle), "altered": str(altered)}


@pytest.mark.parametrize(("arguments", "code", "words", "hint"), BAD, ids=[" ".join(row[0]) for row in BAD])
def test_mistakes_are_told(
    run_dyx: Any, places: dict[str, str], arguments: tuple[str, ...], code: int, words: str, hint: str
) -> None:
    ran = run_dyx(*(argument.format(**places) for argument in arguments))
    assert ran.code == code, ran.err
    assert "error:" in ran.err
    assert words in ran.err
    assert hint in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from dyx.cli import main
    from dyx.errors import UnknownName

    monkeypatch.setattr(sys, "argv", ["dyx", "--debug", "export", "alexnet-dyy"])
    with pytest.raises(UnknownName):
        main()


def test_wrong_use_is_exit_2(run_dyx: Any) -> None:
    assert run_dyx("export", "--no-such-option").code == 2
    assert run_dyx("exprot").code == 2
    assert run_dyx("bench", "--batch", "many").code == 2


def test_help_teaches_and_is_quick() -> None:
    """The promise is .4 s: of computing, since other processes may have the machine meanwhile."""
    durations = []
    for _ in range(5):
        started = _seconds_of_children()
        ran = subprocess.run([sys.executable, "-m", "dyx", "--help"], capture_output=True, text=True, check=True)
        durations.append(_seconds_of_children() - started)
    for command in ("models", "plan", "export", "check", "inspect", "predict", "bench", "dyx bench --batch 512"):
        assert command in ran.stdout
    assert min(durations) < 0.4


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("arguments", [("--help",), ("export", "--help"), ("models",), ("bench", "--help")])
def test_help_and_models_import_no_framework(arguments: tuple[str, ...]) -> None:
    script = (
        "import sys; sys.argv = ['dyx', *sys.argv[1:]]\n"
        "from dyx.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'paddle', 'onnx', 'onnxruntime', 'openvino', 'PIL', 'torch', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True)


def test_version(run_dyx: Any) -> None:
    import dyx

    assert run_dyx("--version").out.strip() == f"dyx {dyx.__version__}"


@pytest.mark.usefixtures("short_tuning")
def test_tuning_tells_what_it_measured(run_dyx: Any, two_graphs_class: str, tmp_path: Path) -> None:
    asked = ("--shape", "3,7,7", "--format", "onnx", "--fold", "conv/direct", "--tune", "--tune-batch", "1,64")
    ran = run_dyx("export", two_graphs_class, *asked, "--out", tmp_path / "x")
    assert ran.code == 0
    for words in ("measuring ", " candidates at batch 64", "profiling them at batch 1", "building a candidate: "):
        assert words in ran.err
    tuning = json.loads((tmp_path / "x" / "dyx.json").read_text())["tuning"]
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert f"tuned with {machine_of(tuning)}" in lines
    assert [str(each) in lines for each in tuned_batches(tuning)] == [True, True]
    assert str(tuned_batches(tuning)[0]) in " ".join(run_dyx("inspect", tmp_path / "x").out.split())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--tune-batch", "1,64"), "several are for --tune"),
        (("--tune-batch", "1,many"), "a number from 1 up"),
        (("--tune", "--format", "paddle"), "a backend that runs what is exported, paddle"),
        (("--tune", "--tune-backend", "tensorrt"), "tensorrt"),
    ],
)
def test_tuning_that_cannot_be_is_refused(
    run_dyx: Any, two_graphs_class: str, tmp_path: Path, given: tuple[str, ...], words: str
) -> None:
    ran = run_dyx("export", two_graphs_class, "--shape", "3,7,7", *given, "--out", tmp_path / "x")
    assert ran.code == 2 and words in ran.err and not (tmp_path / "x").exists()
