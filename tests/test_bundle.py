"""Bundles are read as they were written, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dyx.bundle import FORMAT_FILES, MANIFEST, read_bundle
from dyx.errors import BundleAltered, BundleMissing

KEYS = (
    *("schema", "model", "inputs", "outputs", "preprocess", "labels", "temperature"),
    *("weights", "plan", "parity", "versions", "files"),
)


def edit(folder: Path, **changes: Any) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_manifest_has_every_key_and_every_file_a_hash(dy_bundle: Path) -> None:
    bundle = read_bundle(dy_bundle)
    assert set(KEYS) <= set(bundle.manifest)
    assert set(bundle.manifest["files"]) == {path.name for path in dy_bundle.iterdir()} - {MANIFEST}
    assert bundle.formats == tuple(FORMAT_FILES)
    assert str(bundle.input) == "float32 [batch, 3, 128, 128]"
    assert (bundle.input.name, bundle.output.name) == ("image", "logits")
    assert len(bundle.labels) == 10


def test_samples_are_a_few_inputs_of_every_kind_with_float64_references(dy_bundle: Path) -> None:
    samples = read_bundle(dy_bundle).samples()
    assert samples.image.dtype == np.float32
    assert samples.image.shape[1:] == (3, 128, 128)
    assert samples.logits.dtype == np.float64
    assert samples.logits.shape == (len(samples.image), 10)
    assert {"normal", "zeros", "large", "saturating"} <= set(samples.kind)


def test_missing_and_changed_files_are_all_named(altered: Path) -> None:
    (altered / "model.pdiparams").unlink()
    content = bytearray((altered / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (altered / "model.onnx").write_bytes(content)
    with pytest.raises(BundleAltered) as caught:
        read_bundle(altered)
    assert caught.value.faults == {
        "model.pdiparams": "is missing",
        "model.onnx": "has another sha256 than the manifest says",
    }
    assert read_bundle(altered, verify=False).model == "alexnet-dy"


def test_no_bundle_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, words in (("nowhere", "no such folder"), ("file", "not a folder"), ("", "holds no dyx.json")):
        with pytest.raises(BundleMissing, match=words):
            read_bundle(tmp_path / path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "dyx.json cannot be read"),
        ("[]", "dyx.json is no JSON object"),
        ('{"schema": 99}', "has schema 99, this dyx reads 1"),
        ('{"schema": 1, "model": "x"}', "lacks inputs, outputs"),
    ],
)
def test_manifests_that_cannot_be_used(altered: Path, content: str, words: str) -> None:
    (altered / MANIFEST).write_text(content)
    with pytest.raises(BundleAltered, match=words):
        read_bundle(altered)


def test_manifest_cannot_name_files_outside_the_bundle(altered: Path) -> None:
    edit(altered, files={"../../etc/passwd": "0" * 64})
    with pytest.raises(BundleAltered, match="outside the bundle"):
        read_bundle(altered)


def test_samples_never_unpickle(altered: Path) -> None:
    np.savez(altered / "samples.npz", image=np.array([{}], dtype=object), logits=0, kind=0)
    with pytest.raises(BundleAltered, match=r"samples\.npz cannot be read"):
        read_bundle(altered, verify=False).samples()
