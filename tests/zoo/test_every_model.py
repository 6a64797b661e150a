"""Every reference model, exported to both formats with a free batch and proved on every backend."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import dyx
from dyx.tensors import BATCH
from dyx.zoo import MODELS, Model

LARGE = 80_000_000
"""Parameters above which a model is exported by `make bench` alone."""

MEASURED = [model for model in MODELS if model.parameters <= LARGE]
LOUD = ("alexnet-na", "resnet18-na")
"""The article's NA is rounding noise in float32: two correct float32 answers differ by up to a percent."""


@pytest.mark.slow
@pytest.mark.parametrize("model", MEASURED, ids=[model.name for model in MEASURED])
def test_model_is_exported_and_agrees_on_every_backend(model: Model, tmp_path: Path) -> None:
    shape = None if model.fixed_size else (3, 64, 64)
    bundle = dyx.export(model.name, out=tmp_path / "bundle", shape=shape, tune_batch=8)
    assert bundle.formats == ("paddle", "onnx")
    assert bundle.input.shape == (BATCH, *(shape or model.shape))
    noise = bundle.manifest["parity"]["noise"]
    assert model.name in LOUD or max(noise["normal"], noise["textured"]) < 3e-4, "seeded weights are not tame"
    report = dyx.check(bundle, batches=(1, 3, 8))
    assert report.faults == ()
    assert report.parity.misses() == ()
    proved = {(verdict.backend, verdict.batch) for verdict in report.parity.verdicts}
    assert proved == {(name, batch) for name in ("onnxruntime", "openvino", "paddle") for batch in (1, 3, 8)}
    shutil.rmtree(bundle.path)  # dozens of them would fill the disk
