"""The identities, and the counter-example that one of them warns of."""

from __future__ import annotations

import numpy as np

from dyx.exporter import algebra
from dyx.exporter.algebra import Affine
from dyx.nn.attention import Routing

RANDOM = np.random.default_rng(3)


def test_affine_of_batch_norm() -> None:
    weight, bias, mean, y = RANDOM.standard_normal((4, 5))
    variance = RANDOM.uniform(0.1, 2, 5)
    affine = Affine.of_batch_norm(weight, bias, mean, variance, 1e-5)
    wanted = (y - mean) / np.sqrt(variance + float(np.float32(1e-5))) * weight + bias
    np.testing.assert_allclose(affine.scale * y + affine.shift, wanted, rtol=1e-12)


def test_affine_of_batch_norm_without_weight_and_bias() -> None:
    affine = Affine.of_batch_norm(None, None, np.array([2.0]), np.array([4.0]), 0.0)
    np.testing.assert_allclose((affine.scale, affine.shift), [[0.5], [-1.0]])


def test_folding_an_affine_needs_weights_that_sum_to_one() -> None:
    weight, bias = RANDOM.standard_normal((2, 3, 4, 1, 1)), RANDOM.standard_normal((2, 3))
    affine = Affine(RANDOM.uniform(0.5, 2, 3), RANDOM.standard_normal(3))
    x = RANDOM.standard_normal(4)
    folded_weight, folded_bias = algebra.fold_affine(weight, bias, affine)
    assert folded_bias is not None

    def mixture(a: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(np.tensordot(a, w[..., 0, 0], 1) @ x + a @ b)

    softmax, sigmoid = np.array([0.3, 0.7]), np.array([0.9, 0.8])
    for a, exact in ((softmax, True), (sigmoid, False)):
        wanted = mixture(a, weight, bias) * affine.scale + affine.shift
        assert np.allclose(mixture(a, folded_weight, folded_bias), wanted, rtol=1e-12) == exact


def test_folding_no_affine_changes_nothing() -> None:
    weight = RANDOM.standard_normal((2, 3, 4, 1, 1))
    assert algebra.fold_affine(weight, None, None) == (weight, None)


def test_fold_temperature() -> None:
    routing = Routing(*(RANDOM.standard_normal(shape) for shape in ((3, 4), 3, (2, 3), 2)), 30.0)
    cold = algebra.fold_temperature(routing)
    hidden = RANDOM.standard_normal(3)
    wanted = (routing.fc2_weight @ hidden + routing.fc2_bias) / 30
    np.testing.assert_allclose(cold.fc2_weight @ hidden + cold.fc2_bias, wanted, rtol=1e-12)
    assert cold.temperature == 1


def test_experts_stand_inside_their_group() -> None:
    weight = np.arange(2 * 4).reshape(2, 4, 1, 1, 1)  # expert k, output o → 4 k + o
    assert algebra.experts_as_outputs(weight, 2).ravel().tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert algebra.bias_as_outputs(weight[:, :, 0, 0, 0], 2).tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert algebra.experts_as_inputs(weight, 2).reshape(4, 2).tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
