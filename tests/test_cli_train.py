"""`dyx train`, `dyx eval` and `dyx report` as they are typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dyx

TINY = f"{Path(__file__).parent / 'data' / 'tiny.py'}:Tiny"
OPTIONS = ("--shape", "3,16,16", "--form", "grouped", "--threads", "1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, to look at."""
    from dyx.train import train

    out = tmp_path_factory.mktemp("runs") / "tiny"
    return train(TINY, shape=(3, 16, 16), form="grouped", threads=1, epochs=2, out=out).path


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dyx.export(TINY, weights=run, out=tmp_path_factory.mktemp("bundles") / "tiny", tune_batch=8).path


def test_train_tells_each_epoch_and_what_comes_next(run_dyx: Callable[..., Any], tmp_path: Path) -> None:
    ran = run_dyx("train", TINY, *OPTIONS, "--epochs", 2, "--out", tmp_path / "run")
    assert ran.code == 0, ran.err
    for text in ("reading digits", "epoch 1/2", "epoch 2/2", "held out", "T 30", "images/s"):
        assert text in ran.err
    assert "5,250" in ran.out and "(epoch 2)" in ran.out
    assert f"--weights {tmp_path / 'run'}" in ran.out.replace("\n", "")
    ran = run_dyx("train", TINY, "--out", tmp_path / "run")
    assert ran.code == 2 and "exists already" in ran.err and "--resume goes on with that run" in ran.err
    ran = run_dyx("train", TINY, "--out", tmp_path / "run", "--resume", "--json")
    assert ran.code == 0 and json.loads(ran.out)["finished"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--data", "cifar"), "there is no data set named 'cifar'"),
        (("--data", "folder:/nowhere"), "cannot use data folder:/nowhere: there is no such folder"),
        (("--recipe", "fast"), "there is no recipe named 'fast'"),
        (("--shape", "16"), "--shape is '16'"),
        (("--epochs", "0"), "--epochs is 0"),
        (("--resume",), "no usable training run at"),
    ],
)
def test_train_refuses_in_one_sentence(
    run_dyx: Callable[..., Any], tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    ran = run_dyx("train", TINY, "--shape", "3,16,16", "--out", tmp_path / "run", *options)
    assert ran.code in (1, 2) and said in ran.err and "Traceback" not in ran.err
    assert not (tmp_path / "run").exists()


def test_eval_of_a_run_is_what_the_run_recorded(run_dyx: Callable[..., Any], run: Path) -> None:
    ran = run_dyx("eval", run, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["accuracy"] == json.loads((run / "run.json").read_text())["best"]["held_out_accuracy"]
    assert (found["backend"], found["images"]) == ("paddle-eager", 360)
    assert sum(map(sum, found["confusion"])) == 360


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "paddle"])
def test_eval_of_a_bundle_knows_its_data_and_agrees_with_the_run(
    run_dyx: Callable[..., Any], run: Path, bundle: Path, backend: str
) -> None:
    ran = run_dyx("eval", bundle, "--backend", backend, "--against", run, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["backend"] == backend
    assert found["against"]["same_class"] == 360
    assert found["against"]["correct"] == found["correct"]


def test_eval_prints_tables_and_draws(run_dyx: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    ran = run_dyx("eval", run, "--plot", tmp_path / "confusion.png", "--split", "train")
    assert ran.code == 0, ran.err
    for text in ("train pictures", "of 1437", "recall", "precision", "most often taken for", "a row per true class"):
        assert text in ran.out
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("{run}", "--backend", "onnxruntime"), "a run holds the dynamic network; export it first"),
        (("{run}", "--split", "test"), "--split is 'test'"),
        (("nowhere",), "neither a bundle nor a training run"),
        (("{untrained}",), "--data is needed: {untrained} does not say what it was trained on"),
        (("{run}", "--plot", "x.bmp"), "x.bmp"),
    ],
)
def test_eval_refuses_in_one_sentence(
    run_dyx: Callable[..., Any], run: Path, dy_bundle: Path, options: tuple[str, ...], said: str
) -> None:
    places = {"run": run, "untrained": dy_bundle}
    ran = run_dyx("eval", *(option.format(**places) for option in options))
    assert ran.code in (1, 2) and "Traceback" not in ran.err
    assert said.format(**places) in ran.err.replace("\n", " ")


def test_report_is_one_page(run_dyx: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    ran = run_dyx("report", run, "--out", tmp_path / "page.html")
    assert ran.code == 0, ran.err
    page = (tmp_path / "page.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "data:image/png;base64," in page and "<svg" in page


def test_report_of_nothing_is_refused(run_dyx: Callable[..., Any], tmp_path: Path) -> None:
    ran = run_dyx("report", tmp_path)
    assert ran.code == 1 and "holds no run.json" in ran.err


def test_export_takes_temperature_labels_and_data_from_the_run(bundle: Path) -> None:
    manifest = json.loads((bundle / "dyx.json").read_text())
    assert manifest["temperature"] == {"dyconv": 1.0}
    assert manifest["labels"] == list("0123456789")
    assert manifest["inputs"][0]["shape"] == ["batch", 3, 16, 16]
    assert (manifest["weights"]["data"], manifest["weights"]["file"]) == ("digits", "weights.safetensors")


def test_export_of_hot_weights_keeps_their_temperature_and_says_so(run: Path, tmp_path: Path) -> None:
    import shutil

    hot = Path(shutil.copytree(run, tmp_path / "hot"))
    sidecar = json.loads((hot / "best" / "checkpoint.json").read_text()) | {"temperature": {"dyconv": 15.0}}
    (hot / "best" / "checkpoint.json").write_text(json.dumps(sidecar))
    found = dyx.export(TINY, weights=hot / "best" / "weights.pdparams", out=tmp_path / "bundle", tune_batch=8)
    assert found.manifest["temperature"] == {"dyconv": 15.0}
    assert "temperature 15: training of kind dyconv was to go on down to 1" in found.manifest["notes"]
    cold = dyx.export(
        TINY, weights=hot / "best" / "weights.pdparams", temperature=1, out=tmp_path / "cold", tune_batch=8
    )
    assert cold.manifest["temperature"] == {"dyconv": 1}
    saved = "temperature 1: these weights were saved at 15, where their accuracy was seen"
    assert saved in cold.manifest["notes"]


def test_the_notebooks_own_class_reads_the_weights(tmp_path: Path) -> None:
    """What `dyx train` saves is what the articles' notebook loads, key by key."""
    import runpy

    import numpy as np
    import paddle

    from dyx.zoo import build

    network = build("alexnet-dy")
    paddle.save(network.state_dict(), str(tmp_path / "weights.pdparams"))
    notebook = runpy.run_path(str(Path(__file__).parent / "data" / "notebook_alexnet.py"))["AlexNet_DY"]()
    missing, unexpected = notebook.set_state_dict(paddle.load(str(tmp_path / "weights.pdparams")))
    assert not missing and not unexpected
    notebook.eval()
    for layer in notebook.sublayers():
        if hasattr(layer, "temperature"):
            layer.temperature = 1
    image = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 3, 128, 128)).astype("float32"))
    np.testing.assert_allclose(notebook(image).numpy(), network(image).numpy(), rtol=1e-4, atol=1e-6)
