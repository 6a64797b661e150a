"""What many tests share: real bundles, the trained checkpoint, real images, the command line."""

from __future__ import annotations

import fcntl
import gc
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
SHARED = HERE.parent.parent / "shared"
DATA = HERE / "data"
NOTEBOOK = DATA / "notebook_alexnet.py"


def pytest_configure(config: pytest.Config) -> None:
    """Tests that press Ctrl-C must hear it, which the processes of pytest-xdist do not."""
    # Paddle, sympy and graphs are millions of objects: to look for cycles as often as usual takes a sixth of the time.
    gc.set_threshold(10_000, 20, 10)
    if hasattr(config, "workerinput"):
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same weights and inputs in every run of a test, whichever ran before it in its process."""
    if "paddle" in sys.modules:
        sys.modules["paddle"].seed(0)


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The really trained alexnet-dy, which a plain clone does not have."""
    path = SHARED / "checkpoints" / "digits_alexnet_dy.pdparams"
    if not path.is_file():
        pytest.skip("the trained checkpoint lies beside the project's own checkout only (../shared)")
    return path


@dataclass(frozen=True)
class Digits:
    """The 360 held-out scans of handwritten digits: uint8 pictures, network inputs, classes."""

    pictures: np.ndarray
    images: np.ndarray
    classes: np.ndarray


@pytest.fixture(scope="session")
def digits() -> Digits:
    from sklearn.datasets import load_digits

    from dyx.preprocess import Preprocess

    data = load_digits()
    held_out = np.random.RandomState(0).permutation(1797)[-360:]
    pictures = np.stack([(image / 16 * 255).astype("uint8") for image in data.images[held_out]])
    preprocess = Preprocess((128, 128))
    return Digits(pictures, np.stack([preprocess(picture) for picture in pictures]), data.target[held_out])


@pytest.fixture(scope="session")
def cifar_archive() -> Callable[..., Path]:
    """`write(path, kind="cifar10", train=50, held_out=20, seed=0)`: a small archive in the published format.

    The colour of its pictures tells their class, so a network can learn them.
    """
    writer = runpy.run_path(str(DATA / "cifar_writer.py"))
    write: Callable[..., Path] = writer["write_cifar"]
    return write


@pytest.fixture(scope="session", autouse=True)
def _kept_converter() -> Iterator[None]:
    """Exports of one process hand their converter on: it takes each 2.5 s of a core to start."""
    from dyx.exporter.converter import Converter

    with Converter.kept():
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`made_once(name, model, **settings)`: a bundle that the processes of a test run share.

    The first to ask exports it, and the others wait. A bundle appears whole or not at all.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "made-once"

    def export(name: str, model: str, **settings: Any) -> Path:
        import dyx

        folder.mkdir(exist_ok=True)
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / name).is_dir():
                dyx.export(model, out=folder / name, **settings)
        return folder / name

    return export


@pytest.fixture(scope="session")
def bundles(made_once: Callable[..., Path]) -> Path:
    """A folder with untrained bundles of alexnet-dy and alexnet-bn."""
    dynamic, _ = (made_once(model, model, tune_batch=4) for model in ("alexnet-dy", "alexnet-bn"))
    return dynamic.parent


@pytest.fixture
def dy_bundle(bundles: Path) -> Path:
    return bundles / "alexnet-dy"


@pytest.fixture(scope="session")
def pixel_bundle(made_once: Callable[..., Path]) -> Path:
    """The same network as `dy_bundle`, with the normalisation inside: it takes pixels."""
    return made_once("pixels", "alexnet-dy", tune_batch=8, input="uint8")


@pytest.fixture
def altered(dy_bundle: Path, tmp_path: Path) -> Path:
    """A copy of a bundle, for tests that change files."""
    import shutil

    return Path(shutil.copytree(dy_bundle, tmp_path / "altered"))


@pytest.fixture(scope="session")
def is_alive() -> Callable[[int], bool]:
    """Whether a process of such a number runs; one that has ended and that nobody asks about does not."""

    def asked(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return not _has_ended(Path(f"/proc/{pid}/stat"))

    return asked


def _has_ended(stat: Path) -> bool:
    """Whether Linux keeps no more of a process than its exit status, as where PID 1 collects none."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="session")
def two_graphs_class() -> str:
    """A small network that is worth two graphs, for pictures of 7 pixels, as `dyx export` takes it."""
    return f"{DATA / 'two_graphs.py'}:TwoGraphs"


@pytest.fixture(scope="session")
def two_graphs(two_graphs_class: str, made_once: Callable[..., Path]) -> Path:
    """The bundle of a small network that has a second graph for small batches."""
    return made_once("two_graphs", two_graphs_class, shape=(3, 7, 7), tune_batch=64)


@contextmanager
def _briefly() -> Iterator[None]:
    """A fifth of the usual time: what is chosen is not judged in tests, only that it follows from what was seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dyx.exporter.trial.SECONDS", 0.2)
        yield


@pytest.fixture
def short_tuning() -> Iterator[None]:
    """Tuning measures briefly."""
    with _briefly():
        yield


@pytest.fixture(scope="session")
def tuned_bundle(two_graphs_class: str, made_once: Callable[..., Path]) -> Any:
    """The small network of two graphs, its static convolution as it is, tuned on this machine."""
    from dyx.bundle import read_bundle

    options: dict[str, Any] = {"shape": (3, 7, 7), "formats": ("onnx",), "fold": ("conv/direct",)}
    with _briefly():
        return read_bundle(made_once("tuned", two_graphs_class, tune=True, tune_batch=(1, 64), **options))


@dataclass(frozen=True)
class Ran:
    """What a command line gave."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_dyx(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run `dyx …` in this process, through its real entry point."""
    from dyx.cli import main

    def run(*arguments: Any) -> Ran:
        monkeypatch.setattr(sys, "argv", ["dyx", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def clean_adapters() -> Iterator[None]:
    """Forget layer classes that a test registers."""
    from dyx.nn import adapters

    before = dict(adapters._ADAPTERS)
    yield
    adapters._ADAPTERS.clear()
    adapters._ADAPTERS.update(before)
