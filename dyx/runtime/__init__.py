"""Opening a bundle: the right backend, found or named, behind one Runner."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path

from dyx.bundle import Bundle, read_bundle
from dyx.errors import InvalidOption, PackageMissing
from dyx.registry import Registry
from dyx.runtime.by_batch import ByBatch
from dyx.runtime.runner import Contract, Runner, Score

__all__ = ["BACKENDS", "Contract", "Runner", "Score", "open_bundle", "usable_backends"]

BACKENDS = Registry(
    "backend",
    {
        "onnxruntime": "dyx.runtime.onnxruntime:OnnxRuntimeRunner",
        "openvino": "dyx.runtime.openvino:OpenVinoRunner",
        "paddle": "dyx.runtime.paddle_inference:PaddleRunner",
    },
)
"""Backends in the order in which `auto` tries them."""

BACKEND_FORMATS = {"onnxruntime": "onnx", "openvino": "onnx", "paddle": "paddle"}
BACKEND_PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "paddle": "paddle"}
BACKEND_EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino", "paddle": "paddle"}
DEVICES = ("auto", "cpu", "gpu")


def open_bundle(
    bundle: Bundle | Path | str,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    *,
    tuned: bool = True,
) -> Runner:
    """A runner for a bundle, its hashes checked. Also `dyx.open`.

    OpenVINO compiles when a batch size first comes: a server calls it once with each size that it uses most.

    Args:
        bundle: A bundle or its folder.
        backend: A name of `BACKENDS`, or `"auto"`: the first that is installed and whose format the bundle holds.
        device: `"cpu"`, `"gpu"` (an error where the backend cannot use one) or `"auto"`: a GPU if the backend
            has one; the runner's `device` says which it became.
        threads: Threads on a CPU; all usable cores by default.
        tuned: Set the options that dyx chose, for Paddle Inference on a CPU also that malloc keeps freed memory in this
            process; false leaves every one as the backend has it, and `threads` unused.

    Raises:
        UnknownName, InvalidOption, PackageMissing, DeviceMissing, BundleError.
    """
    opened = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    if device not in DEVICES:
        raise InvalidOption("--device", device, f"one of {', '.join(DEVICES)}")
    if threads is not None and threads < 1:
        raise InvalidOption("--threads", threads, "a number from 1 up")
    chosen = _first_usable(opened) if backend == "auto" else _checked(opened, backend)
    open_graph = partial(BACKENDS.get(chosen), device=device, threads=threads, tuned=tuned)
    runner: Runner = open_graph(opened) if _is_one_piece(opened) else ByBatch(opened, open_graph)
    return runner


def _is_one_piece(bundle: Bundle) -> bool:
    """Whether there is one graph, which takes batches whole."""
    return len(bundle.graphs) == 1 and bundle.graphs[0].chunk is None


def usable_backends(bundle: Bundle) -> tuple[str, ...]:
    """The backends that are installed and whose format the bundle holds."""
    return tuple(name for name in BACKENDS.names if BACKEND_FORMATS[name] in bundle.formats and is_installed(name))


def is_installed(backend: str) -> bool:
    """Whether a backend's package can be found (it is not imported)."""
    return find_spec(BACKEND_PACKAGES[backend]) is not None


def require_backend(backend: str) -> None:
    """Raises UnknownName for a backend that is in no table, PackageMissing for one that is not installed."""
    BACKENDS.check(backend)
    if not is_installed(backend):
        raise PackageMissing(BACKEND_PACKAGES[backend], BACKEND_EXTRAS[backend])


def _checked(bundle: Bundle, backend: str) -> str:
    require_backend(backend)
    if BACKEND_FORMATS[backend] not in bundle.formats:
        held = " and ".join(bundle.formats)
        raise InvalidOption("--backend", backend, f"a backend that reads what {bundle.path} holds, {held}")
    return backend


def _first_usable(bundle: Bundle) -> str:
    usable = usable_backends(bundle)
    if not usable:
        wanted = [name for name in BACKENDS.names if BACKEND_FORMATS[name] in bundle.formats]
        raise PackageMissing(" or ".join(BACKEND_PACKAGES[name] for name in wanted), BACKEND_EXTRAS[wanted[0]])
    return usable[0]
