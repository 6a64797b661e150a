"""Every module imports where no framework is installed; using one that is absent says which extra brings it."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import dyx

OPTIONAL = (
    *("paddle", "paddle2onnx", "onnx", "onnxslim", "onnxruntime", "openvino", "PIL", "safetensors", "sklearn"),
    *("cuda", "pynvml", "matplotlib", "jinja2", "tensorboardX", "visualdl", "mlperf_loadgen"),
)
MODULES = [module.name for module in pkgutil.walk_packages(dyx.__path__, "dyx.") if module.name != "dyx.__main__"]

BARE = f"""
import sys

class Absent:
    "Nothing but numpy, typer and what they bring is installed."
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.partition(".")[0])

sys.meta_path.insert(0, Absent)
# importlib.util.find_spec is how dyx asks whether a package is there: it must answer no, not raise.
import importlib.util
asked = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.partition(".")[0] in {OPTIONAL!r} else asked(name, *rest)
"""


def bare(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BARE + script], capture_output=True, text=True, check=False)


def test_every_module_imports_without_any_framework() -> None:
    assert len(MODULES) > 40
    ran = bare(f"import importlib\nfor name in {MODULES!r}: importlib.import_module(name)\n")
    assert ran.returncode == 0, ran.stderr


def test_importing_dyx_loads_nothing_heavy() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", f"import dyx, sys; assert not set({(*OPTIONAL, 'numpy', 'rich')!r}) & set(sys.modules)"],
        check=False,
    )
    assert ran.returncode == 0


@pytest.mark.parametrize(
    ("call", "package", "extra"),
    [
        ("import dyx; dyx.export('alexnet-dy', out='x')", "paddlepaddle", "paddle"),
        ("import dyx; dyx.plan('alexnet-dy')", "paddlepaddle", "paddle"),
        ("from dyx.nn.dyconv import DYConv2D; DYConv2D(8, 8, 3)", "paddlepaddle", "paddle"),
        ("from dyx.zoo import build; build('alexnet-dy')", "paddlepaddle", "paddle"),
        ("from dyx.preprocess import Preprocess; Preprocess((8, 8))('x.png')", "Pillow", "onnx"),
        ("from dyx.runtime.cuda import CudaStream; CudaStream()", "cuda-bindings", "gpu"),
    ],
)
def test_missing_package_is_told_with_its_extra(call: str, package: str, extra: str) -> None:
    ran = bare(
        f"import dyx.errors\ntry:\n    exec({call!r})\nexcept dyx.errors.PackageMissing as e: print(e, e.hint)\n"
    )
    assert ran.returncode == 0, ran.stderr
    assert f"{package} is not installed" in ran.stdout
    assert f"dyx[{extra}]" in ran.stdout


@pytest.mark.parametrize("arguments", ["models", "export", "plan"])
def test_command_line_without_any_framework(arguments: str) -> None:
    ran = bare(f"sys.argv = ['dyx', {arguments!r}]\nfrom dyx.cli import main\nmain()\n")
    if arguments == "models":
        assert ran.returncode == 0
        assert "alexnet-dy" in ran.stdout
    else:
        assert ran.returncode == 1
        assert "pip install 'dyx[" in ran.stderr
        assert "Traceback" not in ran.stderr


def test_bundle_without_a_backend_is_told(dy_bundle: object) -> None:
    ran = bare(f"sys.argv = ['dyx', 'predict', {str(dy_bundle)!r}, 'x.png']\nfrom dyx.cli import main\nmain()\n")
    assert ran.returncode == 1
    assert "is not installed" in ran.stderr
    ran = bare(
        f"sys.argv = ['dyx', 'check', {str(dy_bundle)!r}, '--backend', 'openvino']\nfrom dyx.cli import main\nmain()\n"
    )
    assert "openvino is not installed" in ran.stderr
    assert "dyx[openvino]" in ran.stderr
