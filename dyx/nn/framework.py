"""Paddle's `Layer`, or a stand-in that says which extra brings it.

Modules that define layers import everywhere, also where Paddle is absent; only building a layer needs it.
"""

from __future__ import annotations

from typing import Any

from dyx.errors import PackageMissing
from dyx.paddle_package import paddle_package

__all__ = ["Layer", "functional", "nn", "paddle"]

paddle: Any
nn: Any
functional: Any
Layer: Any

try:
    paddle = paddle_package()
    nn = paddle.nn
    functional = paddle.nn.functional
    Layer = paddle.nn.Layer
except PackageMissing as missing:
    paddle = nn = functional = None
    _missing = missing

    class _NoLayer:
        """Stands where Paddle's Layer would; refuses to be built."""

        def __init__(self, *_: Any, **__: Any) -> None:
            raise PackageMissing(_missing.package, _missing.extra)

    Layer = _NoLayer
