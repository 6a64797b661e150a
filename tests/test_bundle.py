"""Bundles are read as they were written, or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dyx.bench import bundle_contender
from dyx.bundle import FORMAT_FILES, MANIFEST, Graph, priced_for, read_bundle
from dyx.errors import BundleAltered, BundleMissing

KEYS = (
    *("schema", "model", "inputs", "outputs", "preprocess", "labels", "temperature"),
    *("weights", "plan", "parity", "versions", "files"),
)


def edit(folder: Path, **changes: Any) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def two(two_graphs: Path, tmp_path: Path) -> Path:
    """A copy of a bundle with two graphs."""
    return Path(shutil.copytree(two_graphs, tmp_path / "two"))


def test_a_plan_tells_what_it_was_priced_for() -> None:
    plan = {"tune_batch": 8, "tune_backend": "openvino"}
    assert priced_for({**plan, "tune_cpu": "AVX2"}) == "priced at 8 on openvino, AVX2 cores"
    assert priced_for(plan) == "priced at 8 on openvino, AVX-512 cores", "bundles of before kinds of CPU"


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


def test_graphs_are_told_smallest_batches_first(two: Path) -> None:
    small, main = read_bundle(two).graphs
    assert (small, main) == (Graph("small"), Graph("model", main.from_batch, 1024))
    assert 1 < main.from_batch <= 64
    edit(two, graphs=list(reversed(read_bundle(two).manifest["graphs"])))
    assert read_bundle(two).graphs == (small, main)
    assert [graph.artifact("onnx") for graph in (small, main)] == ["onnx small", "onnx"]


def test_a_batch_is_for_the_last_graph_that_begins_by_then(two: Path) -> None:
    bundle = read_bundle(two)
    start = bundle.graphs[-1].from_batch
    stems = {batch: bundle.graph_for(batch).stem for batch in (1, start - 1, start, start + 1, 10**6)}
    assert stems == {1: "small", start - 1: "small", start: "model", start + 1: "model", 10**6: "model"}
    alone = bundle.of_graph(bundle.graphs[-1])
    assert {alone.graph_for(batch).stem for batch in (1, start)} == {"model"}
    small, main = bundle.manifest["graphs"]
    edit(two, graphs=[small | {"from_batch": 4}, main])
    assert read_bundle(two).graph_for(1).stem == "small", "what is for no graph is for the smallest"


def test_a_bundle_that_tells_of_no_graphs_has_one(altered: Path) -> None:
    """One that was written before there were several."""
    bundle = read_bundle(altered)
    assert bundle.graphs == (Graph(),) == (Graph("model", from_batch=1, chunk=None),)
    path = altered / MANIFEST
    path.write_text(json.dumps({key: value for key, value in bundle.manifest.items() if key != "graphs"}))
    old = read_bundle(altered)
    assert "graphs" not in old.manifest
    assert old.graphs == (Graph(),)
    assert old.files_of("paddle") == FORMAT_FILES["paddle"]
    alone = old.of_graph(old.graphs[0])
    assert (alone.graphs, alone.manifest["plan"]) == ((Graph(),), old.manifest["plan"])
    assert alone.file("model.onnx") == altered / "model.onnx"


def test_a_graph_stands_for_the_bundle(two: Path) -> None:
    """As if it held no other, for every batch, in one piece."""
    bundle = read_bundle(two)
    small, main = bundle.manifest["graphs"]
    for graph, told in zip(bundle.graphs, (small, main), strict=True):
        alone = bundle.of_graph(graph)
        stem = graph.stem
        assert alone.graphs == (Graph(stem),)
        assert alone.manifest["plan"] == told["plan"]
        assert alone.files_of("paddle") == (f"{stem}.json", f"{stem}.pdiparams")
        assert alone.file("model.onnx") == two / f"{stem}.onnx"
        assert alone.file("samples.npz") == two / "samples.npz"
        assert alone.formats == bundle.formats
        alone.verify()
        again = alone.of_graph(graph)
        assert again == alone and again.of_graph(alone.graphs[0]) == alone
    assert small["plan"] != main["plan"] == bundle.manifest["plan"]
    assert bundle.file("model.onnx") == two / "model.onnx"


@pytest.mark.parametrize("lost", ["small.onnx", "small.json", "small.pdiparams"])
def test_a_graph_whose_files_are_not_listed_is_refused(two: Path, lost: str) -> None:
    """Nobody would have compared them with a hash."""
    files = dict(read_bundle(two).manifest["files"])
    del files[lost]
    edit(two, files=files)
    with pytest.raises(BundleAltered, match=f"tells of graphs whose files it does not list: {lost}"):
        read_bundle(two, verify=False)


def test_files_of_a_format_that_was_not_exported_are_not_missed(two: Path) -> None:
    files = read_bundle(two).manifest["files"]
    edit(two, files={name: value for name, value in files.items() if not name.endswith((".json", ".pdiparams"))})
    assert read_bundle(two).formats == ("onnx",)


@pytest.mark.parametrize("stem", ["../outside", "/outside", "inner/model", "./model"])
@pytest.mark.parametrize(
    ("listed", "words"), [(True, "names files outside the bundle"), (False, "whose files it does not list")]
)
def test_stems_cannot_lead_out_of_the_bundle(two: Path, stem: str, listed: bool, words: str) -> None:
    manifest = read_bundle(two).manifest
    small, main = manifest["graphs"]
    files = manifest["files"] | (
        {f"{stem}{end}": "0" * 64 for end in (".onnx", ".json", ".pdiparams")} if listed else {}
    )
    edit(two, graphs=[small | {"stem": stem}, main], files=files)
    with pytest.raises(BundleAltered, match=words):
        read_bundle(two, verify=False)


def test_altered_files_of_a_second_graph_are_noticed(two: Path) -> None:
    with (two / "small.onnx").open("ab") as file:
        file.write(b"\0")
    (two / "small.json").unlink()
    with pytest.raises(BundleAltered) as caught:
        read_bundle(two)
    assert caught.value.faults == {
        "small.json": "is missing",
        "small.onnx": "has another sha256 than the manifest says",
    }


def test_a_contender_has_the_hashes_of_every_graph(two: Path) -> None:
    bundle = read_bundle(two)
    hashes = bundle.manifest["files"]
    for backend, names in (
        ("onnxruntime", ("small.onnx", "model.onnx")),
        ("openvino", ("small.onnx", "model.onnx")),
        ("paddle", ("small.json", "small.pdiparams", "model.json", "model.pdiparams")),
    ):
        assert bundle_contender(bundle, backend).sha256 == {name: hashes[name] for name in names}
