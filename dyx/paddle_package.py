"""PaddlePaddle, imported when it is first needed, and quietly."""

from __future__ import annotations

import os
import warnings
from typing import Any

from dyx.errors import PackageMissing


def paddle_package() -> Any:
    """The package `paddle`. Raises PackageMissing."""
    # Paddle's C++ side writes INFO and WARNING lines to the terminal unless told otherwise before it is loaded.
    os.environ.setdefault("GLOG_minloglevel", "2")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No ccache found")
            import paddle
    except ModuleNotFoundError as error:
        if error.name != "paddle":
            raise
        raise PackageMissing("paddlepaddle", "paddle") from error
    return paddle
