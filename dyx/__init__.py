"""dyx: dynamic convolutional networks as static, portable, proven graphs.

The public names are loaded on first use, so that `import dyx` costs nothing and needs no framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dyx.registry import resolve

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dyx.bundle import Bundle
    from dyx.checks import check
    from dyx.errors import DyxError
    from dyx.exporter.fold import fold
    from dyx.exporter.pipeline import export
    from dyx.exporter.planned import plan
    from dyx.nn.adapters import register_layer
    from dyx.nn.attention import Routing
    from dyx.nn.dyconv import DyConvParameters
    from dyx.nn.geometry import Geometry
    from dyx.nn.reading import LayerAdapter, Scores
    from dyx.runtime import open_bundle as open  # noqa: A004 - `dyx.open` is the public name
    from dyx.runtime.runner import Runner, Score

_PUBLIC = {
    "Bundle": "dyx.bundle:Bundle",
    "DyConvParameters": "dyx.nn.dyconv:DyConvParameters",
    "DyxError": "dyx.errors:DyxError",
    "Geometry": "dyx.nn.geometry:Geometry",
    "LayerAdapter": "dyx.nn.reading:LayerAdapter",
    "Routing": "dyx.nn.attention:Routing",
    "Runner": "dyx.runtime.runner:Runner",
    "Score": "dyx.runtime.runner:Score",
    "Scores": "dyx.nn.reading:Scores",
    "check": "dyx.checks:check",
    "export": "dyx.exporter.pipeline:export",
    "fold": "dyx.exporter.fold:fold",
    "open": "dyx.runtime:open_bundle",
    "plan": "dyx.exporter.planned:plan",
    "register_layer": "dyx.nn.adapters:register_layer",
}

__all__ = [
    "Bundle",
    "DyConvParameters",
    "DyxError",
    "Geometry",
    "LayerAdapter",
    "Routing",
    "Runner",
    "Score",
    "Scores",
    "check",
    "export",
    "fold",
    "open",
    "plan",
    "register_layer",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dyx' has no attribute {name!r}")
    return resolve(_PUBLIC[name])


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
