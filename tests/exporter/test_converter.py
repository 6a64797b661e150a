"""The converter's process: one for many programs, another after it died, none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from paddle import nn

from dyx.bundle import ONNX_MODEL, PADDLE_PARAMETERS, PADDLE_PROGRAM
from dyx.errors import ConversionFailed
from dyx.exporter.converter import Converter
from dyx.exporter.to_paddle import to_paddle
from dyx.tensors import BATCH, TensorSpec

IMAGE = TensorSpec("image", "float32", (BATCH, 3, 8, 8))
KILLED = """
import time
from dyx.exporter.converter import Converter
converter = Converter()
converter.start()
print(converter._child.process.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _as_users_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not kept, as the other tests' exports have it; and a busy machine may take its time to end a process."""
    monkeypatch.setattr(Converter, "_spare", None)
    monkeypatch.setattr("dyx.exporter.converter._PATIENCE_S", 60)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of two Paddle programs."""
    folders = tmp_path_factory.mktemp("small"), tmp_path_factory.mktemp("large")
    for folder, channels in zip(folders, (2, 5), strict=True):
        network = nn.Sequential(nn.Conv2D(3, channels, 3, padding=1), nn.ReLU())
        network.eval()
        to_paddle(network, IMAGE, folder)
    return folders


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of the processes that are started."""
    started: list[int] = []
    real = subprocess.Popen

    def noted(*given: Any, **named: Any) -> Any:
        process = real(*given, **named)
        started.append(process.pid)
        return process

    monkeypatch.setattr("dyx.child.subprocess.Popen", noted)
    return started


def converted(converter: Converter, folder: Path, out: Path, opset: int = 17) -> bytes:
    converter.convert(folder / PADDLE_PROGRAM, folder / PADDLE_PARAMETERS, out / ONNX_MODEL, opset)
    return (out / ONNX_MODEL).read_bytes()


def test_one_process_converts_all_and_as_one_of_each_would(
    is_alive: Callable[[int], bool], programs: tuple[Path, Path], pids: list[int], tmp_path: Path
) -> None:
    with Converter() as converter:
        together = [converted(converter, folder, tmp_path) for folder in (*programs, programs[0])]
        assert len(pids) == 1 and is_alive(pids[0])
    assert not is_alive(pids[0])
    with Converter() as converter:
        alone = converted(converter, programs[1], tmp_path)
    assert together == [together[0], alone, together[0]] and together[0] != alone
    assert len(pids) == 2


def test_after_its_death_another_one_goes_on(
    is_alive: Callable[[int], bool], programs: tuple[Path, Path], pids: list[int], tmp_path: Path
) -> None:
    """paddle2onnx ends the whole interpreter at opset 22, and raises where there is no program."""
    with Converter() as converter:
        with pytest.raises(ConversionFailed, match="it was ended by SIGABRT; its last words: "):
            converted(converter, programs[0], tmp_path, opset=22)
        with pytest.raises(ConversionFailed, match=r"it exited with 1; its last words: .*missing"):
            converted(converter, tmp_path / "missing", tmp_path)
        assert not list(tmp_path.iterdir())
        assert converted(converter, programs[0], tmp_path)
        assert len(pids) == 3 and not any(map(is_alive, pids[:2]))


def test_kept_it_serves_the_next_export_and_ends_at_last(
    is_alive: Callable[[int], bool], programs: tuple[Path, Path], pids: list[int], tmp_path: Path
) -> None:
    with Converter.kept():
        for folder in programs:
            with Converter() as converter:
                assert converted(converter, folder, tmp_path)
        assert len(pids) == 1 and is_alive(pids[0])
    assert not is_alive(pids[0])


def test_kept_is_none_that_failed_died_or_is_still_at_work(
    is_alive: Callable[[int], bool],
    programs: tuple[Path, Path],
    pids: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_connection: Connection) -> bytes:
        raise KeyboardInterrupt

    with Converter.kept():
        with Converter() as converter, pytest.raises(ConversionFailed):
            converted(converter, tmp_path / "missing", tmp_path)
        with monkeypatch.context() as patch, Converter() as converter, pytest.raises(KeyboardInterrupt):
            patch.setattr(Connection, "recv_bytes", interrupted)
            converted(converter, programs[0], tmp_path)
        assert len(pids) == 2 and not any(map(is_alive, pids))
        with Converter() as converter:
            converter.start()
        os.kill(pids[2], signal.SIGKILL)
        os.waitid(os.P_PID, pids[2], os.WEXITED | os.WNOWAIT)
        with Converter() as converter:
            assert converted(converter, programs[0], tmp_path)
        assert len(pids) == 4


def test_relative_paths_are_those_of_the_caller(
    programs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Converter() as converter:
        converter.start()
        monkeypatch.chdir(programs[0])
        converter.convert(Path(PADDLE_PROGRAM), Path(PADDLE_PARAMETERS), tmp_path / ONNX_MODEL, 17)
    assert (tmp_path / ONNX_MODEL).is_file()


def test_it_ends_with_a_parent_that_is_killed(is_alive: Callable[[int], bool]) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.send_signal(signal.SIGKILL)
    limit = time.monotonic() + 60
    while is_alive(pid) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not is_alive(pid)
