from __future__ import annotations

import numpy as np
import pytest

from dyx.errors import InvalidTensor
from dyx.tensors import TensorSpec

SPEC = TensorSpec("image", "float32", ("batch", 3, 4))


def test_specs_read_as_people_write_them_and_survive_json() -> None:
    assert str(SPEC) == "float32 [batch, 3, 4]"
    assert TensorSpec.from_json(SPEC.to_json()) == SPEC


def test_a_batch_is_free_or_frozen() -> None:
    assert SPEC.frozen_batch is None
    assert TensorSpec("image", "float32", (8, 3, 4)).frozen_batch == 8


def test_arrays_that_fit() -> None:
    for batch in (1, 7):
        SPEC.check(np.zeros((batch, 3, 4), np.float32))


@pytest.mark.parametrize(
    ("array", "seen"),
    [
        (np.zeros((1, 3, 4)), r"float64 \[1, 3, 4\]"),
        (np.zeros((1, 4, 3), np.float32), r"float32 \[1, 4, 3\]"),
        (np.zeros((3, 4), np.float32), r"float32 \[3, 4\]"),
        (np.zeros((0, 3, 4), np.float32), r"float32 \[0, 3, 4\], which is empty"),
    ],
)
def test_arrays_that_do_not(array: np.ndarray, seen: str) -> None:
    with pytest.raises(InvalidTensor, match=rf"tensor 'image' is {seen}, wanted float32 \[batch, 3, 4\]"):
        SPEC.check(array)
