"""What tests of data sets share: archives of any content, folders of pictures."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dyx.datasets import read_data
from dyx.errors import DataUnusable, DyxError


@pytest.fixture(scope="session")
def writer() -> Any:
    """Everything in tests/data/cifar_writer.py."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "data" / "cifar_writer.py")))


@pytest.fixture
def pack(writer: Any, tmp_path: Path) -> Callable[..., Path]:
    """An archive with members replaced: by name without folder, None leaves one out, bytes stand as they are."""

    def write(
        changed: dict[str, Any] | None = None, kind: str = "cifar10", dumps: Callable[[Any], bytes] | None = None
    ) -> Path:
        drawn = {
            name: (changed or {}).get(name.partition("/")[2], content)
            for name, content in writer.contents(kind, 23, 10, 0).items()
        }
        dumps = dumps or writer.python2_pickle
        packed = {
            name: part if isinstance(part, bytes) else dumps(part) for name, part in drawn.items() if part is not None
        }
        return Path(writer.write_archive(tmp_path / "archive.tar.gz", packed))

    return write


@pytest.fixture
def folders(tmp_path: Path) -> Callable[..., Path]:
    """A folder of small pictures: `folders({"train/cats": 5, …})`, each of another colour."""

    def write(counts: dict[str, int]) -> Path:
        root = tmp_path / "pictures"
        for shade, (name, count) in enumerate(counts.items()):
            (root / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = np.full((6, 8, 3), (shade, index, 0), np.uint8)
                Image.fromarray(pixels).save(root / name / f"{index:03}.png")
        return root

    return write


@pytest.fixture(scope="session")
def fails() -> Callable[[str, str], DyxError]:
    """`fails(text, words)`: the error that says, in one sentence and with a hint, why data cannot be used."""

    def check(text: str, words: str) -> DyxError:
        with pytest.raises(DataUnusable, match=words) as caught:
            read_data(text)
        assert str(caught.value).startswith(f"cannot use data {text}: ")
        assert "\n" not in str(caught.value)
        assert caught.value.hint
        return caught.value

    return check
