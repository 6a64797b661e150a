"""What `import dyx` offers, and that the offer is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dyx
from dyx import errors


def test_public_names() -> None:
    assert sorted(dyx.__all__) == dyx.__all__
    assert set(dyx.__all__) <= set(dir(dyx))
    for name in dyx.__all__:
        assert getattr(dyx, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        dyx.nonsense  # noqa: B018


def test_public_functions_stay_functions_after_their_modules_are_imported() -> None:
    """A submodule of the same name would take the function's place."""
    import dyx.exporter.pipeline

    for name in ("check", "export", "fold", "open", "plan", "register_layer"):
        assert callable(getattr(dyx, name))
        assert not (Path(dyx.__path__[0]) / f"{name}.py").exists()


def test_error_tree_in_the_docstring_is_the_real_one() -> None:
    drawn = set(re.findall(r"^[│├└─ ]*([A-Z]\w+)(?:  |$)", errors.__doc__ or "", flags=re.MULTILINE))
    real = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.DyxError)
    }
    assert drawn == real


def test_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert version("dyx") == dyx.__version__
