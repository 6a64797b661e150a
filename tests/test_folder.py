"""Folders appear whole or not at all, and nothing that stood there before is lost."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from dyx import folder
from dyx.errors import OutputExists, OutputUnwritable
from dyx.folder import write_file_whole, written_whole


def fill(path: Path, text: str) -> None:
    (path / "file").write_text(text)


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


@pytest.fixture(params=["exchange", "two steps"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The swap in one system call, and the way of systems that have no such call."""
    if request.param == "two steps":
        monkeypatch.setattr(folder, "_exchange", lambda *_: False)
    return str(request.param)


def test_new_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    with written_whole(tmp_path / "deep" / "out", replace=False) as staging:
        fill(staging, "new")
        assert not (tmp_path / "deep" / "out").exists()
        assert staging.name.startswith(".out.")
    assert (tmp_path / "deep" / "out" / "file").read_text() == "new"
    assert names(tmp_path / "deep") == ["out"]


def test_folder_is_replaced_whole(tmp_path: Path, way: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    fill(out, "old")
    (out / "only in the old one").touch()
    with written_whole(out, replace=True) as staging:
        fill(staging, "new")
        assert (out / "file").read_text() == "old"
    assert (out / "file").read_text() == "new", way
    assert names(out) == ["file"]
    assert names(tmp_path) == ["out"]


def test_failure_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    fill(out, "old")
    with pytest.raises(RuntimeError), written_whole(out, replace=True) as staging:
        fill(staging, "half")
        raise RuntimeError
    assert (out / "file").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_existing_folder_is_refused_before_and_after_the_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputExists, match="out exists already"), written_whole(tmp_path / "out", replace=False):
        raise AssertionError("the block must not run")
    with pytest.raises(OutputExists), written_whole(tmp_path / "late", replace=False) as staging:
        fill(staging, "new")
        (tmp_path / "late").mkdir()  # somebody else was faster
        fill(tmp_path / "late", "theirs")
    assert (tmp_path / "late" / "file").read_text() == "theirs"


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputUnwritable, match="cannot write"), written_whole(tmp_path / "file" / "out", replace=False):
        raise AssertionError("the block must not run")


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".out.{dead.pid}-abc").mkdir()
    (tmp_path / ".out.1-abc").mkdir()  # process 1 always lives
    (tmp_path / ".other.txt").touch()
    with written_whole(tmp_path / "out", replace=False) as staging:
        fill(staging, "new")
    assert names(tmp_path) == [".other.txt", ".out.1-abc", "out"]


def test_kill_between_the_two_renames_is_mended(tmp_path: Path) -> None:
    """Where the system cannot swap in one step, a kill may leave the old folder set aside: it is put back."""
    aside = tmp_path / ".out.old"
    aside.mkdir()
    fill(aside, "old")
    with pytest.raises(RuntimeError), written_whole(tmp_path / "out", replace=True) as staging:
        assert (tmp_path / "out" / "file").read_text() == "old"
        fill(staging, "half")
        raise RuntimeError
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_told_and_leaves_what_was_there(tmp_path: Path, code: int) -> None:
    out = tmp_path / "out"
    out.mkdir()
    fill(out, "old")
    with pytest.raises(OutputUnwritable, match="cannot write"), written_whole(out, replace=True) as staging:
        fill(staging, "half")
        raise OSError(code, "the disk is full")
    assert (out / "file").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_errors_of_the_block_itself_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "out", replace=False):
        (tmp_path / "absent").read_text()


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        write_file_whole(tmp_path / "run.json", content)
        assert (tmp_path / "run.json").read_bytes() == content
    assert names(tmp_path) == ["run.json"]
    fill(tmp_path, "as any other file")
    assert (tmp_path / "run.json").stat().st_mode == (tmp_path / "file").stat().st_mode


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_file_that_fails_on_the_way_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    write_file_whole(tmp_path / "run.json", b"old")
    monkeypatch.setattr(folder.os, step, full)
    with pytest.raises(OutputUnwritable, match=r"run\.json: the disk is full"):
        write_file_whole(tmp_path / "run.json", b"half")
    assert (tmp_path / "run.json").read_bytes() == b"old"
    assert names(tmp_path) == ["run.json"]


def test_file_where_none_can_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "x", tmp_path / "absent" / "x", tmp_path):
        with pytest.raises(OutputUnwritable, match="cannot write"):
            write_file_whole(path, b"")
    assert names(tmp_path) == ["file"]


def test_leftover_files_of_dead_processes_go(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".run[1].json.{dead.pid}-new").touch()
    (tmp_path / ".run[1].json.1-new").touch()
    write_file_whole(tmp_path / "run[1].json", b"")
    assert names(tmp_path) == [".run[1].json.1-new", "run[1].json"]
