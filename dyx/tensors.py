"""What goes into and comes out of a network: names, dtypes, shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dyx.errors import InvalidTensor

if TYPE_CHECKING:
    import numpy as np

BATCH = "batch"
"""The name of the free dimension, the same in ONNX files, manifests and errors."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's name, dtype and shape; a dimension is a size, or a name where it is free."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def frozen_batch(self) -> int | None:
        """The size that its first dimension is frozen to; None where that is free."""
        batch = self.shape[0]
        return batch if isinstance(batch, int) else None

    def check(self, array: np.ndarray) -> None:
        """Raises InvalidTensor where `array` has another dtype or shape, or no row at all."""
        # Every call of a runner comes through here: words are made only where they are needed.
        fits = len(array.shape) == len(self.shape) and all(
            isinstance(want, str) or have == want for have, want in zip(array.shape, self.shape, strict=True)
        )
        if array.dtype == self.dtype and fits and 0 not in array.shape:
            return
        seen = f"{array.dtype} {list(array.shape)}"
        empty = ", which is empty" if fits and array.dtype == self.dtype else ""
        raise InvalidTensor(self.name, seen + empty, str(self))

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"

    def to_json(self) -> dict[str, Any]:
        """The form kept in `dyx.json`."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> TensorSpec:
        """The spec that `to_json` wrote."""
        return cls(entry["name"], entry["dtype"], tuple(entry["shape"]))
