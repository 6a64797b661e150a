"""Reading state dicts without running code.

A `.pdparams` is a pickle, and a pickle names functions to call. Here only those that rebuild arrays and plain
containers are known; whatever else a file names is refused before anything is called. The pickle in a `.pth` is read
by `torch_pickle.py`, which also calls nothing.
"""

from __future__ import annotations

import codecs
import pickle
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from dyx.bundle import sha256
from dyx.errors import CheckpointNotFinite, CheckpointUnreadable, CheckpointUnsafe, PackageMissing
from dyx.torch_checkpoint import SUFFIXES as TORCH_SUFFIXES
from dyx.torch_checkpoint import read_torch

NAME_TABLE = "StructuredToParameterName@@"
PIECES = "UnpackBigParamInfor@@"

COUNTER = "num_batches_tracked"
"""What torch's batch norms count. No forward in eval mode needs it."""

_ARRAY_MODULES = ("numpy._core.multiarray", "numpy.core.multiarray")
_BUFFER_MODULES = ("numpy._core.numeric", "numpy.core.numeric")

_SAFETENSORS_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # numpy has none; Paddle too stores it as uint16
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """What `_codecs.encode` does for the byte strings of protocol 2; no other codec is reached."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding!r}")
    return codecs.latin_1_encode(text)[0]


def _dtype(kind: Any, align: Any = False, copy: Any = False) -> Any:
    """A numpy dtype. Old files give the two flags as numbers, of which numpy 2.4.0 to 2.4.4 warn."""
    return np.dtype(kind, bool(align), bool(copy))


def _allowed() -> dict[tuple[str, str], Any]:
    """Everything that an honest file refers to (protocols 2 to 5, numpy 1 and 2)."""
    rebuild = np.array(0).__reduce__()[0]
    from_buffer = np.zeros(1).__reduce_ex__(5)[0]
    scalar = np.float32(0).__reduce__()[0]
    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): _dtype,
        ("_codecs", "encode"): _latin1,
        ("builtins", "tuple"): tuple,
        ("__builtin__", "tuple"): tuple,
        ("collections", "OrderedDict"): OrderedDict,
    }
    for module in _ARRAY_MODULES:
        names[module, "_reconstruct"] = rebuild
        names[module, "scalar"] = scalar
    for module in _BUFFER_MODULES:
        names[module, "_frombuffer"] = from_buffer
    return names


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that knows arrays and plain containers and refuses every other name."""

    def __init__(self, file: IO[bytes], path: Path, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self._path = path
        self._known = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        """The array function that a name stands for. Raises CheckpointUnsafe for any other name."""
        try:
            return self._known[module, name]
        except KeyError:
            raise CheckpointUnsafe(self._path, f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        """No honest state dict holds one. Raises CheckpointUnsafe."""
        raise CheckpointUnsafe(self._path, f"a persistent object {pid!r}")


def read_arrays(file: IO[bytes], path: Path, encoding: str = "ASCII") -> Any:
    """What a pickle of arrays and plain containers holds.

    Args:
        file: At a pickle.
        path: For messages.
        encoding: Of the strings of Python 2; `"bytes"` leaves them as they are.

    Raises:
        CheckpointUnsafe: It names something else. Nothing was run.
        Exception: Almost any other: it is damaged.
    """
    return _ArrayUnpickler(file, path, encoding).load()


@dataclass(frozen=True)
class Checkpoint:
    """A state dict that was read.

    Attributes:
        path: The file.
        sha256: Of the file.
        arrays: Key to float32 array, in the names and layouts of the file.
        notes: What was changed on reading, in words ("12 tensors widened from bfloat16").
        framework: `"paddle"` or `"torch"`, which wrote it; empty where the file does not say.
    """

    path: Path
    sha256: str
    arrays: Mapping[str, np.ndarray]
    notes: tuple[str, ...]
    framework: str = ""


class _Content(NamedTuple):
    """What a file holds: arrays of any dtype (bfloat16 as uint16), the framework, notes."""

    arrays: dict[str, np.ndarray]
    framework: str
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path | str) -> Checkpoint:
    """The state dict in a `.pdparams`, `.pth`, `.pt` or `.safetensors`, floats as float32.

    bfloat16 is widened; Paddle's name table and torch's batch counters are dropped; tensors that Paddle had split are
    joined; the state dict of a torch training run is taken out of what is wrapped around it.

    Raises:
        CheckpointUnreadable: Missing, empty, truncated, another format.
        CheckpointUnsafe: It names something that could run code. Nothing was run.
        CheckpointNotFinite: NaN or infinite values; every key is listed.
    """
    file = Path(path)
    _check_present(file)
    content = _read(file)
    arrays = {key: array for key, array in content.arrays.items() if key.rpartition(".")[2] != COUNTER}
    state = {key: _as_float32(file, key, array) for key, array in arrays.items()}
    _check_finite(file, state)
    counters = len(content.arrays) - len(arrays)
    dropped = (f"{counters} batch counters dropped",) if counters else ()
    notes = (*content.notes, *_conversions(arrays, content.framework), *dropped)
    return Checkpoint(file, sha256(file), state, notes, content.framework)


def _read(path: Path) -> _Content:
    if path.suffix in TORCH_SUFFIXES:
        arrays, notes = read_torch(path)
        return _Content(arrays, "torch", notes)
    if zipfile.is_zipfile(path):
        raise CheckpointUnreadable(path, "it is a zip archive; a PyTorch checkpoint must be named .pth or .pt")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _Content(_read_pickle(path), "paddle")


def _conversions(arrays: Mapping[str, np.ndarray], framework: str) -> tuple[str, ...]:
    """One sentence per dtype that was not float32."""
    counts = Counter(array.dtype.name for array in arrays.values() if array.dtype != np.float32)
    names = {"uint16": "bfloat16 (stored as bare uint16)" if framework == "paddle" else "bfloat16"}
    return tuple(f"{count} tensors converted from {names.get(kind, kind)} to float32" for kind, count in counts.items())


def _check_present(path: Path) -> None:
    if not path.is_file():
        raise CheckpointUnreadable(path, "there is no such file" if not path.exists() else "it is a folder")
    if path.stat().st_size == 0:
        raise CheckpointUnreadable(path, "the file is empty")


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            content = read_arrays(file, path)
    except CheckpointUnsafe:
        raise
    except Exception as error:  # a damaged pickle can raise almost anything
        raise CheckpointUnreadable(path, f"it is truncated or no pickle ({_said(error)})") from error
    if not isinstance(content, Mapping):
        raise CheckpointUnreadable(path, f"it holds a {type(content).__name__}, not a state dict")
    return _joined(path, dict(content))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _joined(path: Path, content: dict[Any, Any]) -> dict[str, np.ndarray]:
    """Drop Paddle's bookkeeping; put tensors over 1 GiB, which protocols 2 and 3 split, together again."""
    content.pop(NAME_TABLE, None)
    for key, info in content.pop(PIECES, {}).items():
        parts = [content.pop(name) for name in info["slices"]]
        content[key] = np.concatenate([np.ravel(part) for part in parts]).reshape(info["OriginShape"])
    strange = {str(key): type(value).__name__ for key, value in content.items() if not isinstance(value, np.ndarray)}
    if strange:
        listed = ", ".join(f"{key} ({kind})" for key, kind in strange.items())
        raise CheckpointUnreadable(path, f"these entries are no arrays: {listed}")
    return {str(key): value for key, value in content.items()}


def _read_safetensors(path: Path) -> _Content:
    try:
        from safetensors import SafetensorError, deserialize, safe_open
    except ModuleNotFoundError as error:
        raise PackageMissing("safetensors", "paddle") from error
    try:
        # Paddle's own save_file leaves the header without metadata, and so may torch's.
        with safe_open(path, framework="numpy") as file:
            framework = {"pt": "torch", "pd": "paddle"}.get((file.metadata() or {}).get("format", ""), "")
        # Tensors as bytes: the package's numpy reader knows no bfloat16.
        tensors = dict(deserialize(path.read_bytes()))  # type: ignore[no-untyped-call] # its stub has no types
    except (SafetensorError, OSError) as error:
        raise CheckpointUnreadable(path, f"it is no usable safetensors file ({error})") from error
    return _Content({key: _decoded(path, key, tensor) for key, tensor in tensors.items()}, framework)


def _decoded(path: Path, key: str, tensor: Mapping[str, Any]) -> np.ndarray:
    if tensor["dtype"] not in _SAFETENSORS_DTYPES:
        raise CheckpointUnreadable(path, _wrong_dtype(key, tensor["dtype"]))
    array: np.ndarray = np.frombuffer(tensor["data"], _SAFETENSORS_DTYPES[tensor["dtype"]])
    return array.reshape(tensor["shape"])


def _as_float32(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    """Floats as float32. bfloat16 comes as uint16; Paddle stores fp8 as int8: widen the first, refuse the second."""
    if array.dtype.name == "uint16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        return array.astype(np.float32, order="C", copy=False)
    raise CheckpointUnreadable(path, _wrong_dtype(key, array.dtype))


def _wrong_dtype(key: str, dtype: object) -> str:
    return f"{key} has dtype {dtype}; weights are float32, float64, float16 or bfloat16"


def _check_finite(path: Path, state: Mapping[str, np.ndarray]) -> None:
    bad = {key: int((~np.isfinite(array)).sum()) for key, array in state.items()}
    bad = {key: count for key, count in bad.items() if count}
    if bad:
        raise CheckpointNotFinite(path, bad)
