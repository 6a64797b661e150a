"""A bundle: the folder that the author half writes and the deploy half opens.

`dyx.json` (the manifest), `model.onnx` and/or `model.json` + `model.pdiparams`, and `samples.npz`. Beside them may
stand `small.*` and `medium.*`: the same network in forms for smaller batches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dyx.errors import BundleAltered, BundleMissing
from dyx.preprocess import Preprocess
from dyx.tensors import TensorSpec

if TYPE_CHECKING:
    import numpy as np

SCHEMA = 1
MANIFEST = "dyx.json"
SAMPLES = "samples.npz"
ONNX_MODEL = "model.onnx"
PADDLE_PROGRAM = "model.json"
PADDLE_PARAMETERS = "model.pdiparams"
FORMAT_FILES = {"paddle": (PADDLE_PROGRAM, PADDLE_PARAMETERS), "onnx": (ONNX_MODEL,)}
"""Format to the files that make it up, in the order in which an export makes them."""

STEM = "model"
"""What the files of a bundle's main graph are called, before the dot."""

_REQUIRED = (
    *("schema", "model", "inputs", "outputs", "preprocess", "labels", "temperature"),
    *("weights", "plan", "parity", "versions", "files"),
)


@dataclass(frozen=True)
class Samples:
    """A few inputs and what the dynamic network answers in float64.

    Attributes:
        image: `(n, 3, H, W)`, float32 or pixels in uint8, as the network takes them.
        logits: float64 `(n, classes)`.
        kind: What sort of input each row is ("normal", "zeros" …); errors are scaled within a kind.
    """

    image: np.ndarray
    logits: np.ndarray
    kind: np.ndarray


@dataclass(frozen=True)
class Graph:
    """One form of a bundle's network, in every format that the bundle holds.

    Attributes:
        stem: Of its files.
        from_batch: The smallest batch that it is for; larger ones are another's, if that begins below them.
        chunk: How many images a CPU takes at a time, so that what lies between two layers stays small; None for all.
    """

    stem: str = STEM
    from_batch: int = 1
    chunk: int | None = None

    def artifact(self, kind: str) -> str:
        """What a record of parity calls its file of a format, with its stem if it is not the main one."""
        return kind if self.stem == STEM else f"{kind} {self.stem}"


def priced_for(plan: Mapping[str, Any]) -> str:
    """What the rules of a plan were priced for, in words; bundles of before `tune_cpu` were priced for AVX-512."""
    cpu = plan.get("tune_cpu", "AVX-512")
    return f"priced at {plan['tune_batch']} on {plan['tune_backend']}, {cpu} cores"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder, its manifest, and the graph whose files are meant by their usual names."""

    path: Path
    manifest: Mapping[str, Any]
    stem: str = STEM

    @property
    def model(self) -> str:
        """The network's name: of the zoo, or as the user gave it."""
        return str(self.manifest["model"])

    @property
    def input(self) -> TensorSpec:
        """The one input, `image`."""
        return TensorSpec.from_json(self.manifest["inputs"][0])

    @property
    def output(self) -> TensorSpec:
        """The one output, `logits`."""
        return TensorSpec.from_json(self.manifest["outputs"][0])

    @property
    def preprocess(self) -> Preprocess:
        """How a picture becomes the input; of one in uint8 the graph itself does the normalisation."""
        return Preprocess.from_json(self.manifest["preprocess"])

    @property
    def labels(self) -> tuple[str, ...]:
        """One name per class."""
        return tuple(self.manifest["labels"])

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats whose files the bundle holds."""
        files = self.manifest["files"]
        return tuple(name for name, needed in FORMAT_FILES.items() if all(file in files for file in needed))

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """The forms of its network, by the batches that they are for, smallest first."""
        told = self.manifest.get("graphs") or [{}]
        found = [Graph(**{key: entry[key] for key in Graph.__dataclass_fields__ if key in entry}) for entry in told]
        return tuple(sorted(found, key=lambda graph: graph.from_batch))

    def graph_for(self, batch: int) -> Graph:
        """The graph that a batch of this size is for."""
        fitting = [graph for graph in self.graphs if graph.from_batch <= batch]
        return fitting[-1] if fitting else self.graphs[0]

    def of_graph(self, graph: Graph) -> Bundle:
        """The same bundle as if it held one graph only, for every batch in one piece."""
        told = {entry["stem"]: entry for entry in self.manifest.get("graphs", ())}
        own = {"stem": graph.stem, "plan": told.get(graph.stem, self.manifest)["plan"]}
        return replace(self, stem=graph.stem, manifest={**self.manifest, "plan": own["plan"], "graphs": [own]})

    def files_of(self, kind: str) -> tuple[str, ...]:
        """Names of the files of a format, of every graph."""
        return tuple(_named(file, graph.stem) for graph in self.graphs for file in FORMAT_FILES[kind])

    def file(self, name: str) -> Path:
        """The path of one file of the bundle; of the graph that is meant, where it is one of a graph's."""
        return self.path / _named(name, self.stem)

    def samples(self) -> Samples:
        """The inputs and references that prove the bundle on any machine."""
        import numpy as np

        try:
            with np.load(self.file(SAMPLES), allow_pickle=False) as arrays:
                return Samples(arrays["image"], arrays["logits"], arrays["kind"])
        except (OSError, KeyError, ValueError) as error:
            raise BundleAltered(self.path, {SAMPLES: f"cannot be read ({error})"}) from error

    def verify(self) -> None:
        """Compare every file with its hash. Raises BundleAltered with all that differ."""
        faults = {}
        for name, expected in self.manifest["files"].items():
            path = self.path / name
            if not path.is_file():
                faults[name] = "is missing"
            elif sha256(path) != expected:
                faults[name] = "has another sha256 than the manifest says"
        if faults:
            raise BundleAltered(self.path, faults)


def _named(name: str, stem: str) -> str:
    """The file of a graph that has this name in the main one; other names stay."""
    return f"{stem}{Path(name).suffix}" if Path(name).stem == STEM else name


def read_bundle(path: Path | str, *, verify: bool = True) -> Bundle:
    """The bundle in a folder, its files compared with their hashes unless `verify` is false.

    Raises BundleMissing where there is none, BundleAltered where it is not as it was written.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise BundleMissing(folder, "there is no such folder" if not folder.exists() else "it is not a folder")
    if not (folder / MANIFEST).is_file():
        raise BundleMissing(folder, f"the folder holds no {MANIFEST}")
    bundle = Bundle(folder, _read_manifest(folder))
    if verify:
        bundle.verify()
    return bundle


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleAltered(folder, {MANIFEST: f"cannot be read ({error})"}) from error
    if not isinstance(manifest, dict):
        raise BundleAltered(folder, {MANIFEST: "is no JSON object"})
    if manifest.get("schema") != SCHEMA:
        raise BundleAltered(folder, {MANIFEST: f"has schema {manifest.get('schema')!r}, this dyx reads {SCHEMA}"})
    lacking = [key for key in _REQUIRED if key not in manifest]
    if lacking:
        raise BundleAltered(folder, {MANIFEST: f"lacks {', '.join(lacking)}"})
    # File names come from the manifest: none may lead out of the bundle.
    strange = [name for name in manifest["files"] if Path(name).name != name]
    if strange:
        raise BundleAltered(folder, {MANIFEST: f"names files outside the bundle: {', '.join(strange)}"})
    bundle = Bundle(folder, manifest)
    lost = [name for kind in bundle.formats for name in bundle.files_of(kind) if name not in manifest["files"]]
    if lost:
        raise BundleAltered(folder, {MANIFEST: f"tells of graphs whose files it does not list: {', '.join(lost)}"})
    return manifest


def write_samples(folder: Path, samples: Samples) -> None:
    """Write `samples.npz` into a folder."""
    import numpy as np

    np.savez_compressed(folder / SAMPLES, image=samples.image, logits=samples.logits, kind=samples.kind)


def write_manifest(folder: Path, entries: Mapping[str, Any]) -> None:
    """Write `dyx.json` into a folder, last of all its files, with the hash of every other one."""
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    manifest = {"schema": SCHEMA, **entries, "files": files}
    text = json.dumps(manifest, indent=2, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
