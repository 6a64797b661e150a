"""The main job on real input: the trained checkpoint, the user's own classes, and exports that are killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import dyx
from dyx.bundle import MANIFEST, read_bundle, sha256
from dyx.environment import usable_cores
from dyx.errors import CheckpointMismatch, ConversionFailed, InvalidOption, OutputExists, ParityMissed, UnknownName

NOTEBOOK = Path(__file__).parents[1] / "data" / "notebook_alexnet.py"
BACKENDS = ("onnxruntime", "openvino", "paddle")


@pytest.fixture(scope="module")
def trained(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "bundle"
    dyx.export("alexnet-dy", weights=checkpoint, out=out)
    return out


def dynamic_logits(checkpoint: Path, images: np.ndarray, dtype: str = "float64") -> np.ndarray:
    """The per-sample definition in eager Paddle, at temperature 1."""
    import paddle

    from dyx.checkpoint import read_checkpoint
    from dyx.zoo import build
    from dyx.zoo.weights import load_weights

    network = build("alexnet-dy")
    load_weights(network, read_checkpoint(checkpoint))
    network = network.to(dtype=dtype)
    with paddle.no_grad():
        chunks = np.split(images.astype(dtype), range(30, len(images), 30))
        return np.concatenate([network(paddle.to_tensor(chunk)).numpy() for chunk in chunks])


def test_eager_paddle_gets_the_whole_cpu_before_it_computes(
    two_graphs_class: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left alone it computes on one core, and takes every large tensor from the system anew."""
    seen: list[Any] = []
    monkeypatch.setattr("paddle.base.core.set_num_threads", seen.append)
    monkeypatch.setattr("dyx.zoo.eager.keep_freed_memory", lambda: seen.append("kept"))
    dyx.plan(two_graphs_class, shape=(3, 7, 7), progress=seen.append)
    assert seen[:2] == [usable_cores(), "kept"] and seen[2].startswith("building")


@pytest.mark.parametrize("backend", BACKENDS)
def test_trained_network_keeps_every_class_of_the_held_out_digits(
    trained: Path, checkpoint: Path, digits: Any, backend: str
) -> None:
    wanted = dynamic_logits(checkpoint, digits.images)
    assert (wanted.argmax(1) == digits.classes).sum() == 357
    with dyx.open(trained, backend=backend) as runner:
        got = runner.run(digits.images)
    assert np.abs(got - wanted).max() < 5e-6 * np.abs(wanted).max()
    np.testing.assert_array_equal(got.argmax(1), wanted.argmax(1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_agree_and_rows_do_not_lean_on_each_other(
    trained: Path, checkpoint: Path, digits: Any, backend: str
) -> None:
    images = np.resize(digits.images, (512, *digits.images.shape[1:]))
    wanted = np.resize(dynamic_logits(checkpoint, digits.images), (512, 10))
    limit = 5e-6 * np.abs(wanted).max()
    with dyx.open(trained, backend=backend) as runner:
        alone = np.concatenate([runner.run(images[i : i + 1]) for i in range(64)])
        for batch in (1, 2, 7, 64, 512):
            got = runner.run(images[:batch])
            assert np.abs(got - wanted[:batch]).max() < limit, batch
            assert np.abs(got[:64] - alone[:batch]).max() < limit, batch


def test_predict_on_png_files_gives_the_same_classes(
    trained: Path, checkpoint: Path, digits: Any, tmp_path: Path, run_dyx: Any
) -> None:
    files = []
    for index, picture in enumerate(digits.pictures):
        files.append(str(tmp_path / f"{index:03}.png"))
        Image.fromarray(picture).save(files[-1])
    ran = run_dyx("predict", trained, *files, "--top", 2, "--json")
    assert ran.code == 0
    answers = json.loads(ran.out)
    assert [answer["file"] for answer in answers] == files
    best = [answer["top"][0] for answer in answers]
    wanted = dynamic_logits(checkpoint, digits.images, "float32").argmax(1)
    assert [top["index"] for top in best] == wanted.tolist()
    assert sum(top["index"] == digit for top, digit in zip(best, digits.classes, strict=True)) == 357
    assert best[0].keys() == {"index", "label", "score"}


def test_manifest_of_the_trained_export(trained: Path, checkpoint: Path) -> None:
    manifest = read_bundle(trained).manifest
    assert manifest["weights"] == {"file": checkpoint.name, "sha256": sha256(checkpoint)}
    assert manifest["temperature"] == {"dyconv": 1.0}
    assert manifest["notes"] == []
    plan = manifest["plan"]
    assert [(site["path"], site["rule"]) for site in plan["sites"]] == [
        ("features.4", "conv/winograd"),
        *((f"features.{place}", "dyconv/winograd") for place in (8, 11, 14)),
    ]
    taken = ((5, 6, 7), (9, 10), (12, 13), (15, 16, 17))
    assert [site["takes"] for site in plan["sites"]] == [[f"features.{place}" for place in found] for found in taken]
    assert plan["joined"] == [[f"features.{one}", f"features.{other}"] for one, other in ((4, 8), (8, 11), (11, 14))]
    verdicts = manifest["parity"]["verdicts"]
    assert {(v["artifact"], v["batch"]) for v in verdicts} == {
        *((artifact, batch) for artifact in ("onnx", "paddle") for batch in (1, 2, 7, 64, 512)),
        *((f"{artifact} small", batch) for artifact in ("onnx", "paddle") for batch in (1, 2, 7)),
        *((f"{artifact} medium", batch) for artifact in ("onnx", "paddle") for batch in (1, 2, 7, 8)),
    }
    small, medium, main = manifest["graphs"]
    assert (medium["from_batch"], main["from_batch"], medium["plan"]["tune_cpu"]) == (8, 16, "AVX2")
    assert [site["takes"] for site in small["plan"]["sites"]] == [[f"features.{i}"] for i in (9, 12, 15)]
    assert main["plan"] == manifest["plan"]
    assert max(v["relative_error"] for v in verdicts) < 5e-6
    assert max(v["row_drift"] for v in verdicts) < 5e-6


def test_users_own_classes_export_to_the_same_logits(
    trained: Path, checkpoint: Path, digits: Any, tmp_path: Path
) -> None:
    """The notebook's network says 30 by default; dyx exports it at 1 and says which layers it found."""
    bundle = dyx.export(
        f"{NOTEBOOK}:AlexNet_DY", weights=checkpoint, shape=(3, 128, 128), out=tmp_path / "own", tune_batch=8
    )
    layers = [site["layer"] for site in bundle.manifest["plan"]["sites"] if site["rule"].startswith("dyconv/")]
    assert layers == ["DYConv2D"] * 3
    assert bundle.labels == tuple("0123456789")
    for backend in BACKENDS:
        with dyx.open(bundle, backend=backend) as own, dyx.open(trained, backend=backend) as zoo:
            np.testing.assert_allclose(own.run(digits.images), zoo.run(digits.images), atol=1e-5)


def test_users_own_classes_export_without_a_checkpoint(tmp_path: Path) -> None:
    bundle = dyx.export(f"{NOTEBOOK}:AlexNet_DY", shape=(3, 128, 128), out=tmp_path / "own", tune_batch=2)
    assert bundle.manifest["weights"] == "untrained"
    assert any("untrained" in note for note in bundle.manifest["notes"])


def test_temperature_matters_and_is_recorded(checkpoint: Path, digits: Any, tmp_path: Path) -> None:
    bundle = dyx.export(weights=checkpoint, temperature=30, out=tmp_path / "hot", tune_batch=2)
    with dyx.open(bundle) as runner:
        assert (runner.run(digits.images).argmax(1) == digits.classes).sum() == 164
    assert bundle.manifest["temperature"] == {"dyconv": 30}
    assert any(
        "temperature 30: networks of kind dyconv are trained down to 1" in note for note in bundle.manifest["notes"]
    )


@pytest.mark.parametrize("opset", [17, 19, 21])
def test_onnx_file_keeps_its_promises(tmp_path: Path, opset: int) -> None:
    dyx.export(out=tmp_path / "x", formats=("onnx",), opset=opset, tune_batch=2)
    model = onnx.load(tmp_path / "x" / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    (image,), (logits,) = model.graph.input, model.graph.output
    dimensions = [size.dim_param or size.dim_value for size in image.type.tensor_type.shape.dim]
    assert (image.name, dimensions) == ("image", ["batch", 3, 128, 128])
    dimensions = [size.dim_param or size.dim_value for size in logits.type.tensor_type.shape.dim]
    assert (logits.name, dimensions) == ("logits", ["batch", 10])
    words = {node.op_type for node in model.graph.node}
    assert not words & {"Constant", "Identity", "Dropout", "BatchNormalization"}
    used = {name for node in model.graph.node for name in node.input} | {"logits"}
    assert all(set(node.output) & used for node in model.graph.node), "no dead node"
    constants = {tensor.name for tensor in model.graph.initializer}
    assert constants <= used
    assert all(node.input[1] in constants for node in model.graph.node if node.op_type == "Conv")
    assert {path.name for path in (tmp_path / "x").iterdir()} == {"dyx.json", "model.onnx", "samples.npz"}


def test_frozen_batch(tmp_path: Path) -> None:
    bundle = dyx.export(out=tmp_path / "x", batch=4)
    assert bundle.input.shape == (4, 3, 128, 128)
    images = np.random.default_rng(0).standard_normal((4, 3, 128, 128)).astype(np.float32)
    for backend in BACKENDS:
        with dyx.open(bundle, backend=backend) as runner:
            assert runner.run(images).shape == (4, 10)
            with pytest.raises(dyx.DyxError, match=r"wanted float32 \[4, 3, 128, 128\]"):
                runner.run(images[:2])
            pictures = list(np.random.default_rng(1).integers(0, 255, (6, 20, 20, 3), dtype=np.uint8))
            one_by_one = [runner.predict([picture])[0][0] for picture in pictures]
            assert [scores[0].index for scores in runner.predict(pictures)] == [best.index for best in one_by_one]
    assert dyx.check(str(bundle.path)).passed


@pytest.mark.parametrize(
    ("dynamic", "static", "joined"),
    [
        ("dyconv/mix-outputs", "conv/direct", 0),
        ("dyconv/mix-inputs", "conv/direct", 0),
        ("dyconv/aggregate-kernel", "conv/winograd", 0),
        ("dyconv/winograd", "conv/direct", 2),
        ("dyconv/winograd", "conv/padded-map", 2),
        ("dyconv/winograd", "conv/winograd", 3),
    ],
)
@pytest.mark.parametrize("batch", [None, 1])
def test_every_rule_exports_with_parity(
    tmp_path: Path, dynamic: str, static: str, joined: int, batch: int | None
) -> None:
    bundle = dyx.export(out=tmp_path / "x", fold=(dynamic, static), batch=batch, tune_batch=8)
    fitting = {"conv/direct": [0, 4], "conv/padded-map": [0], "conv/winograd": [4]}[static]
    rules = {site["path"]: site["rule"] for site in bundle.manifest["plan"]["sites"]}
    assert rules == {f"features.{place}": static if place in fitting else dynamic for place in (*fitting, 8, 11, 14)}
    assert len(bundle.manifest["plan"]["joined"]) == joined
    assert bundle.manifest["parity"]["passed"]


def test_labels_and_preprocess_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(f"digit {i}" for i in range(10)) + "\n")
    (tmp_path / "prep.json").write_text('{"size": 128, "mean": [0.1, 0.2, 0.3], "std": [1, 1, 2], "order": "bgr"}')
    bundle = dyx.export(
        "alexnet-bn",
        out=tmp_path / "x",
        labels=str(tmp_path / "labels.txt"),
        preprocess=tmp_path / "prep.json",
        formats=("onnx",),
        tune_batch=2,
    )
    assert bundle.labels[7] == "digit 7"
    assert bundle.preprocess.order == "BGR"
    assert bundle.preprocess.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("error", "words", "settings"),
    [
        (UnknownName, "there is no format named 'onxx'", {"formats": ("onxx",)}),
        (InvalidOption, "--opset is 22, which is not a number from 17 to 21", {"opset": 22}),
        (InvalidOption, "--batch is 0", {"batch": 0}),
        (InvalidOption, "--temperature is -1", {"temperature": -1}),
        (InvalidOption, "--temperature is nan", {"temperature": float("nan")}),
        (InvalidOption, "--labels is '3 labels', which is not 10 labels", {"labels": ("a", "b", "c")}),
        (
            InvalidOption,
            "--preprocess is 'size .32, 32.', which is not size .128, 128., that of the network",
            {"preprocess": dyx.preprocess.Preprocess((32, 32))},
        ),
        (InvalidOption, "--shape is '1,28,28', which is not 3,height,width", {"shape": (1, 28, 28)}),
    ],
)
def test_settings_that_cannot_be_used_leave_nothing(
    tmp_path: Path, error: Any, words: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(error, match=words):
        dyx.export("alexnet-dy", out=tmp_path / "x", **settings)
    assert list(tmp_path.iterdir()) == []


def test_existing_bundle_stays_unless_forced(bundles: Path, altered: Path) -> None:
    before = {path.name: sha256(path) for path in altered.iterdir()}
    steps: list[str] = []
    with pytest.raises(OutputExists, match="exists already"):
        dyx.export(out=altered, progress=steps.append)
    assert steps == [], "said before any work is done"
    assert {path.name: sha256(path) for path in altered.iterdir()} == before
    dyx.export("alexnet-bn", out=altered, force=True, tune_batch=2)
    assert read_bundle(altered).model == "alexnet-bn"


def test_force_replaces_nothing_but_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidOption, match="--force replaces nothing else"):
        dyx.export(out=tmp_path / "home", force=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"


def test_checkpoint_of_another_network_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match=r"not in the network: .*features\.8\.routing"):
        dyx.export("alexnet-bn", weights=checkpoint, out=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def drifting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold that is exact in float64 and goes wrong when it becomes float32: only parity can see it."""
    from dyx.exporter.folded.experts import MixOutputs

    exact = MixOutputs.forward

    def forward(self: Any, x: Any, attention: Any = None) -> Any:
        y = exact(self, x, attention)
        return y * 1.01 if "float32" in str(x.dtype) and y.shape[1] == 128 else y

    monkeypatch.setattr(MixOutputs, "forward", forward)


@pytest.mark.usefixtures("drifting")
def test_parity_miss_says_where_and_leaves_what_was_there(altered: Path) -> None:
    before = {path.name: sha256(path) for path in altered.iterdir()}
    with pytest.raises(ParityMissed, match="parity missed: paddle on paddle at batch 1 is off by"):
        dyx.export(out=altered, force=True, fold=("dyconv/mix-outputs",), tune_batch=2)
    assert {path.name: sha256(path) for path in altered.iterdir()} == before
    assert [path.name for path in altered.parent.iterdir()] == ["altered"]


@pytest.mark.usefixtures("drifting")
def test_first_layer_that_differs_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParityMissed) as caught:
        dyx.export(out=tmp_path / "x", fold=("dyconv/mix-outputs",), tune_batch=2)
    assert "paddle on paddle at batch 1 is off by" in str(caught.value)
    assert "The first layer that differs is features.15" in str(caught.value)
    assert "--tolerance" in caught.value.hint
    assert caught.value.passing > 1e-4
    assert list(tmp_path.iterdir()) == []


def test_unrecognised_dynamic_layer_is_named_when_tracing_fails(tmp_path: Path) -> None:
    source = NOTEBOOK.read_text().replace("DYConv2D", "MyOwnConv")
    (tmp_path / "own.py").write_text(source)
    with pytest.raises(ConversionFailed, match=r"paddle\.jit\.save failed") as caught:
        dyx.export(f"{tmp_path / 'own.py'}:AlexNet_DY", shape=(3, 128, 128), out=tmp_path / "x")
    assert "features.8 (MyOwnConv)" in caught.value.hint
    assert "dyx.register_layer" in caught.value.hint
    assert not (tmp_path / "x").exists()


def test_converter_that_aborts_becomes_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """paddle2onnx ends the whole interpreter at opset 22: its process dies, this one does not."""
    monkeypatch.setattr("dyx.exporter.to_onnx.OPSETS", range(17, 23))
    with pytest.raises(ConversionFailed, match="paddle2onnx failed: it was ended by SIGABRT"):
        dyx.export("alexnet-bn", out=tmp_path / "x", formats=("onnx",), opset=22, tune_batch=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_kill_at_random_moments_never_leaves_a_broken_or_missing_bundle(two_graphs_class: str, tmp_path: Path) -> None:
    """Twenty exports over an existing bundle, each killed: it is always whole, the old one or the new."""
    out = tmp_path / "bundle"
    options = ["--shape", "3,7,7", "--tune-batch", "64", "--out", str(out), "--force"]
    command = [sys.executable, "-m", "dyx", "export", two_graphs_class, *options]
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole_s = time.monotonic() - started
    moments = random.Random(0)
    killed = 0
    for _ in range(20):
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(0.2, 1.1) * whole_s)
            whole_s = min(whole_s, time.monotonic() - started)  # the machine may be less busy than it was
        except subprocess.TimeoutExpired:
            process.kill()
            killed += process.wait() == -signal.SIGKILL
        assert len(read_bundle(out).graphs) == 2
    assert killed >= 10, "most of them were really cut off"
    subprocess.run(command, check=True, capture_output=True)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"], "the next export removes what was left"


def test_bundle_holds_no_path_of_this_machine(dy_bundle: Path) -> None:
    for name in (MANIFEST, "model.json"):
        text = (dy_bundle / name).read_text()
        assert str(Path.cwd()) not in text
        assert str(dy_bundle) not in text


def test_the_manifest_tells_the_error_of_each_layer(dy_bundle: Path) -> None:
    from dyx.bundle import read_bundle

    layers = read_bundle(dy_bundle).manifest["parity"]["layers"]
    assert {"features.0", "features.9", "classifier.6", "logits"} <= set(layers)
    assert "features.8" not in layers, "its batch norm is folded into it, and told by the batch norm's own path"
    assert all(0 <= error < 2e-5 for error in layers.values())
    assert max(layers.values()) > 1e-8
