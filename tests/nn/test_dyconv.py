"""The layer as it is trained, against outputs of the articles' own code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from dyx.nn.dyconv import DYConv2D

GOLDEN = Path(__file__).parents[1] / "data" / "dyconv_articles.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture
def layer(golden: dict[str, np.ndarray]) -> DYConv2D:
    layer = DYConv2D(16, 24, 3, stride=2, padding=1, num_experts=4)
    missing, unexpected = layer.set_state_dict({key[3:]: golden[key] for key in golden if key.startswith("sd/")})
    assert not missing
    assert not unexpected
    layer.eval()
    return layer


@pytest.mark.parametrize("temperature", [30, 1])
def test_outputs_are_the_articles(layer: DYConv2D, golden: dict[str, np.ndarray], temperature: int) -> None:
    layer.routing.temperature = temperature
    x = paddle.to_tensor(golden["in/x"])
    wanted = golden[f"out/T{temperature}"]
    np.testing.assert_allclose(layer.routing(x).numpy(), golden[f"aux/attn_T{temperature}"], atol=2e-6)
    assert np.abs(layer(x).numpy() - wanted).max() <= 2e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("rule", ["auto", "dyconv/mix-outputs", "dyconv/mix-inputs", "dyconv/aggregate-kernel"])
def test_folds_of_it_are_the_articles_too(layer: DYConv2D, golden: dict[str, np.ndarray], rule: str) -> None:
    import dyx

    for temperature in (30.0, 1.0):
        wanted = golden[f"out/T{temperature:g}"]
        static = dyx.fold(layer, temperature=temperature, rule=rule)
        got = static(paddle.to_tensor(golden["in/x"])).numpy()
        assert np.abs(got - wanted).max() <= 2e-5 * np.abs(wanted).max()


def test_without_bias() -> None:
    layer = DYConv2D(4, 6, 1, bias_attr=False, num_experts=3)
    assert "bias" not in layer.state_dict()
    assert tuple(layer(paddle.zeros([2, 4, 5, 5])).shape) == (2, 6, 5, 5)
