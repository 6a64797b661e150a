"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dyx.errors import OutputExists, OutputUnwritable

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_PLACE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG)


@contextmanager
def written_whole(target: Path, *, replace: bool) -> Iterator[Path]:
    """Lend a hidden temporary folder beside `target` that becomes `target` when the block ends well.

    The block may fail or be killed at any instant: `target` is then what it was before. A folder left by a
    killed process is removed by the next call for the same target.

    Raises OutputExists where `target` is there and `replace` is false, OutputUnwritable where it cannot be written.
    """
    if os.path.lexists(target) and not replace:
        raise OutputExists(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _recover(target)
        _remove_leftovers(target)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.{os.getpid()}-", dir=target.parent))
        staging.chmod(0o777 & ~_umask())
    except OSError as error:
        raise OutputUnwritable(target, error.strerror or str(error)) from error
    try:
        yield staging
        _flush(staging)
        _move_into_place(staging, target, replace=replace)
    except OSError as error:
        # Only what tells of the place itself: a block may raise other OSErrors of its own.
        if error.errno not in _PLACE_ERRORS:
            raise
        raise OutputUnwritable(target, error.strerror or str(error)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_file_whole(path: Path, content: bytes) -> None:
    """Write a file that is, at any instant and after any failure, what it was before or all of `content`.

    A temporary file left by a killed process is removed by the next call for the same path.

    Raises OutputUnwritable; the file's folder must be there.
    """
    staging = path.parent / f".{path.name}.{os.getpid()}-new"
    try:
        _remove_leftovers(path)
        with staging.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staging, path)
    except OSError as error:
        raise OutputUnwritable(path, error.strerror or str(error)) from error
    finally:
        with suppress(OSError):
            staging.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _remove_leftovers(target: Path) -> None:
    """Remove hidden folders and files of this target whose process is gone."""
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*-*"):
        owner = leftover.name[len(target.name) + 2 :].partition("-")[0]
        if owner.isdigit() and not _is_running(int(owner)):
            shutil.rmtree(leftover, ignore_errors=True)
            with suppress(OSError):
                leftover.unlink()


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(folder: Path) -> None:
    """Bring every file to the disk before its folder takes the final name."""
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _move_into_place(staging: Path, target: Path, *, replace: bool) -> None:
    if not os.path.lexists(target):
        os.rename(staging, target)
        return
    if not replace:  # it appeared while this process worked
        raise OutputExists(target)
    if not _exchange(staging, target):
        _swap_in_two_steps(staging, target)


def _exchange(staging: Path, target: Path) -> bool:
    """Swap two folders in one step; False where the system has no such call.

    `os.replace` refuses a folder that is not empty, and two renames leave an instant without any.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if rename(_AT_FDCWD, os.fsencode(staging), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code))


def _swap_in_two_steps(staging: Path, target: Path) -> None:
    """Two renames, and the old folder put back if the second fails; `_recover` mends a kill between them."""
    old = _set_aside(target)
    os.rename(target, old)
    try:
        os.rename(staging, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _set_aside(target: Path) -> Path:
    return target.parent / f".{target.name}.old"


def _recover(target: Path) -> None:
    """Put back what a killed two-step swap had set aside."""
    old = _set_aside(target)
    if old.exists() and not target.exists():
        os.rename(old, target)
    with suppress(FileNotFoundError):
        shutil.rmtree(old)
