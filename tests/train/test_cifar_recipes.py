"""Each article's recipe from an archive of the real format to an exported artifact that answers the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dyx
from dyx.datasets import read_data
from dyx.evaluation import evaluate
from dyx.runs import read_run
from dyx.runtime import BACKENDS, open_bundle
from dyx.train import train
from dyx.zoo.eager import open_run

CASES = {
    "alexnet-bn": ("cifar10", "dyconv"),
    "alexnet-dy": ("cifar10", "dyconv"),
    "alexnet": ("cifar10", "gates"),
    "alexnet-eca": ("cifar10", "gates"),
    "alexnet-na": ("cifar10", "gates"),
    "resnet18-cifar": ("cifar100", "gates"),
    "resnet18-na": ("cifar100", "gates"),
}
CLOSE = 0.05
"""NA's float32 form is its own rounding noise away from its exact one: pictures nearer than this to another class may
change theirs, as a share of max |logit|."""


@pytest.mark.slow
@pytest.mark.parametrize("model", CASES)
def test_artifact_is_as_accurate_as_the_network_that_was_trained(
    model: str, cifar_archive: Callable[..., Path], tmp_path: Path
) -> None:
    kind, recipe = CASES[model]
    archive = cifar_archive(tmp_path / f"{kind}.tar.gz", kind=kind, train=100, held_out=60)
    data = f"{kind}:{archive}"
    run = train(model, data=data, out=tmp_path / "run", epochs=2, batch=20, learning_rate=1e-3, form="grouped")
    assert run.record["recipe"]["name"] == recipe
    assert len(run.record["history"]) == 2 and read_run(run.path).record["finished"]
    assert len(run.record["labels"]) == (10 if kind == "cifar10" else 100)

    bundle = dyx.export(model, weights=run.path, out=tmp_path / "bundle", tune_batch=8)
    held_out = read_data(data).held_out
    with open_run(run) as runner:
        wanted = evaluate(runner, held_out)
        logits = runner.run(runner.prepare([held_out.picture(index) for index in range(60)]))
    assert wanted.accuracy == run.record["best"]["held_out_accuracy"]
    for backend in BACKENDS.names:
        with open_bundle(bundle, backend, "cpu") as runner:
            got = evaluate(runner, held_out)
        differing = got.predicted != wanted.predicted
        if "na" in model.split("-"):
            ordered = np.sort(logits, axis=1)
            margin = (ordered[:, -1] - ordered[:, -2]) / np.abs(logits).max()
            assert (margin[differing] < CLOSE).all()
        else:
            assert got.correct == wanted.correct and not differing.any()
