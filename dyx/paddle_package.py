"""PaddlePaddle, imported when it is first needed, and quietly."""

from __future__ import annotations

import os
import warnings
from typing import Any

from dyx.cpuinfo import processors
from dyx.errors import PackageMissing


def paddle_package() -> Any:
    """The package `paddle`. Raises PackageMissing."""
    # Paddle's C++ side writes INFO and WARNING lines to the terminal unless told otherwise before it is loaded.
    os.environ.setdefault("GLOG_minloglevel", "2")
    _let_mkl_use_avx2()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No ccache found")
            import paddle
    except ModuleNotFoundError as error:
        if error.name != "paddle":
            raise
        raise PackageMissing("paddlepaddle", "paddle") from error
    return paddle


def _let_mkl_use_avx2() -> None:
    """Eager Paddle's matrix products at full speed on AMD's CPUs, too.

    Paddle brings the MKL of 2019, which takes its AVX2 code on Intel's CPUs alone, and code for SSE elsewhere: a fifth
    of the speed. A variable read at the first product overrules that; a value that the user has set stays.
    """
    told = next(iter(processors()), {})
    if told.get("vendor_id") == "AuthenticAMD" and "avx2" in told.get("flags", "").split():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
