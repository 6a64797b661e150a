"""How Paddle is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dyx import paddle_package

VARIABLE = "MKL_DEBUG_CPU_TYPE"
AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu fma avx avx2 bmi1\n"


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (AMD, "5"),
        (AMD.replace(" avx2", ""), None),
        (AMD.replace("AuthenticAMD", "GenuineIntel"), None),
        ("processor\t: 0\nFeatures\t: fp asimd\n", None),
        (None, None),
    ],
    ids=["AMD", "AMD without AVX2", "Intel", "ARM", "no such file"],
)
def test_mkl_is_told_to_use_avx2_where_it_would_not(
    told: str | None, wanted: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if told is not None:
        (tmp_path / "cpuinfo").write_text(told)
    monkeypatch.setattr("dyx.cpuinfo._CPUINFO", str(tmp_path / "cpuinfo"))
    monkeypatch.setenv(VARIABLE, "restored afterwards")
    monkeypatch.delenv(VARIABLE)
    paddle_package.paddle_package()
    assert os.environ.get(VARIABLE) == wanted


def test_a_value_that_the_user_has_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(AMD)
    monkeypatch.setattr("dyx.cpuinfo._CPUINFO", str(tmp_path / "cpuinfo"))
    monkeypatch.setenv(VARIABLE, "")
    paddle_package.paddle_package()
    assert os.environ[VARIABLE] == ""


def test_it_is_told_before_the_first_product() -> None:
    """MKL reads the variable once: importing dyx's layers must be enough, and must not itself compute before."""
    if "AuthenticAMD" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("MKL needs to be told on an AMD CPU only")
    code = f"import os; os.environ.pop('{VARIABLE}', None); import dyx.nn.framework; print(os.environ['{VARIABLE}'])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "5\n"
