"""A whole run: what it leaves, how it goes on after it was stopped anywhere, and what it refuses."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from PIL import Image

from dyx.checkpoint import read_checkpoint
from dyx.datasets import read_data
from dyx.errors import (
    DataUnusable,
    InvalidOption,
    ModelUnusable,
    OutputExists,
    OutputUnwritable,
    RunDiffers,
    RunUnreadable,
    TrainingDiverged,
)
from dyx.evaluation import evaluate
from dyx.runs import Run, read_run, read_sidecar
from dyx.train import loop, train
from dyx.train.loop import entropy_of, is_distribution
from dyx.train.watch import Silent
from dyx.zoo.eager import open_run

TrainTiny = Callable[..., Run]


class Stopped(Exception):
    """Thrown in the middle of a run, as a kill would."""


class StopAt(Silent):
    """Looks on until a step of the whole run, then throws."""

    def __init__(self, step: int) -> None:
        self._left = step

    def step(self, text: str, share: float) -> None:
        self._left -= 1
        if self._left == 0:
            raise Stopped


def weights(run: Run, part: str = "final") -> bytes:
    return (run.path / part / "weights.safetensors").read_bytes()


def test_a_run_leaves_everything_it_promises(finished: Run) -> None:
    names = {path.name for path in finished.path.iterdir()}
    assert names == {"run.json", "log.csv", "curves.png", "predictions.png", "best", "final", "last"}
    for part in ("best", "final"):
        files = {path.name for path in (finished.path / part).iterdir()}
        assert files == {"weights.pdparams", "weights.safetensors", "weights.pdopt", "checkpoint.json"}
    for name in ("curves.png", "predictions.png"):
        with Image.open(finished.path / name) as picture:
            assert min(picture.size) > 200


def test_on_a_cpu_freed_memory_is_kept_before_the_first_step(
    train_tiny: TrainTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eager Paddle asks malloc for every tensor of every step."""
    seen: list[str] = []
    real = loop.learn
    monkeypatch.setattr(loop, "keep_freed_memory", lambda: seen.append("kept"))
    monkeypatch.setattr(loop, "learn", lambda *given, **named: (seen.append("step"), real(*given, **named))[1])
    train_tiny(tmp_path / "run", epochs=1)
    assert seen[0] == "kept" and seen.count("kept") == 1 and len(seen) > 1


def test_the_record_tells_the_run(finished: Run) -> None:
    record = finished.record
    assert (record["data"], record["seed"], record["recipe"]["name"]) == ("digits", 42, "digits")
    assert record["finished"] and len(record["history"]) == 3
    assert record["images"] == {"train": 1437, "held_out": 360}
    assert record["labels"] == list("0123456789")
    assert [row["temperature"] for row in record["history"]] == [{"dyconv": 30}, {"dyconv": 10}, {"dyconv": 1}]
    for row in record["history"]:
        assert 0 < row["entropy"]["features.3"] <= 1
        assert row["images_per_s"] == pytest.approx(1437 / row["seconds"])
    accuracies = [row["held_out_accuracy"] for row in record["history"]]
    assert record["best"]["held_out_accuracy"] == max(accuracies)
    assert accuracies[-1] > 0.6
    losses = [row["loss"] for row in record["history"]]
    assert losses == sorted(losses, reverse=True)


def test_batch_norm_took_its_statistics_while_training(finished: Run) -> None:
    arrays = read_checkpoint(finished.path / "final" / "weights.pdparams").arrays
    for place in (1, 4):
        assert np.abs(arrays[f"features.{place}._mean"]).min() > 0
        assert np.abs(arrays[f"features.{place}._variance"] - 1).min() > 1e-4


def test_the_log_holds_the_same_rows(finished: Run) -> None:
    with (finished.path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    for row, told in zip(rows, finished.record["history"], strict=True):
        assert float(row["loss"]) == told["loss"]
        assert float(row["temperature.dyconv"]) == told["temperature"]["dyconv"]
        assert float(row["entropy.features.3"]) == told["entropy"]["features.3"]


def test_recorded_accuracy_is_that_of_the_weights(finished: Run) -> None:
    held_out = read_data("digits").held_out
    with open_run(finished, threads=1) as runner:  # as it was trained: sums of two threads round otherwise
        found = evaluate(runner, held_out)
    assert found.accuracy == finished.record["best"]["held_out_accuracy"]
    assert found.loss == finished.record["history"][finished.record["best"]["epoch"] - 1]["held_out_loss"]


def test_both_weight_files_hold_the_same_network(finished: Run) -> None:
    one, other = (read_checkpoint(finished.path / "best" / f"weights.{kind}") for kind in ("pdparams", "safetensors"))
    assert one.arrays.keys() == other.arrays.keys()
    for key, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[key])


def test_paddle_itself_loads_weights_and_optimiser(finished: Run) -> None:
    state = paddle.load(str(finished.path / "final" / "weights.pdparams"))
    assert "features.3.routing.net.0.weight" in state
    optimizer = paddle.load(str(finished.path / "final" / "weights.pdopt"))
    assert any("moment1" in key for key in optimizer)


def test_the_sidecar_tells_what_a_state_dict_cannot(finished: Run) -> None:
    sidecar = read_sidecar(finished.path / "final" / "weights.pdparams")
    assert sidecar is not None
    assert sidecar.temperature == {"dyconv": 1.0}
    assert sidecar.labels == tuple("0123456789") and sidecar.shape == (3, 16, 16)
    assert (sidecar.epoch, sidecar.data) == (3, "digits")


def test_the_same_seed_gives_the_same_weights_and_another_one_others(
    finished: Run, train_tiny: TrainTiny, tmp_path: Path
) -> None:
    assert weights(train_tiny(tmp_path / "again")) == weights(finished)
    assert weights(train_tiny(tmp_path / "other", seed=43)) != weights(finished)


def test_what_was_built_before_does_not_matter(finished: Run, train_tiny: TrainTiny, tmp_path: Path) -> None:
    paddle.nn.Conv2D(3, 3, 3)
    with pytest.raises(Stopped):
        train_tiny(tmp_path / "run", watch=StopAt(30))
    paddle.nn.Linear(3, 3)
    assert weights(train_tiny(tmp_path / "run", resume=True)) == weights(finished)


@pytest.mark.parametrize("step", [1, 23, 24, 40])
def test_a_stopped_run_goes_on_to_the_same_weights(
    finished: Run, train_tiny: TrainTiny, tmp_path: Path, step: int
) -> None:
    """23 steps make an epoch; the state is kept after every step."""
    with pytest.raises(Stopped):
        train_tiny(tmp_path / "run", watch=StopAt(step), save_every=0)
    resumed = train_tiny(tmp_path / "run", resume=True)
    assert weights(resumed) == weights(finished)
    assert weights(resumed, "best") == weights(finished, "best")
    told = [{key: row[key] for key in ("loss", "accuracy", "held_out_loss")} for row in resumed.record["history"]]
    assert told == [{key: row[key] for key in told[0]} for row in finished.record["history"]]


def test_resuming_needs_no_other_option(finished: Run, train_tiny: TrainTiny, tiny: str, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train_tiny(tmp_path / "run", watch=StopAt(30))
    assert weights(train(tiny, out=tmp_path / "run", resume=True, threads=1)) == weights(finished)


def test_resuming_keeps_the_seed_that_the_run_began_with(train_tiny: TrainTiny, tiny: str, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train_tiny(tmp_path / "run", watch=StopAt(3), seed=7, epochs=1)
    assert train(tiny, out=tmp_path / "run", resume=True, threads=1).record["seed"] == 7


def test_resuming_a_finished_run_changes_nothing(finished: Run, train_tiny: TrainTiny, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(finished.path, tmp_path / "run"))
    assert weights(train_tiny(copied, resume=True)) == weights(finished)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 5}, "recipe's epochs was 3, now 5"),
        ({"batch": 32}, "recipe's batch was 64, now 32"),
        ({"recipe": "gates"}, "recipe's name was 'digits', now 'gates'"),
        ({"seed": 1}, "seed was 42, now 1"),
        ({"shape": (3, 32, 32)}, r"shape was \[3, 16, 16\], now \[3, 32, 32\]"),
        ({"data": "folder:x"}, "data was 'digits', now 'folder:x'"),
        ({"model": "alexnet-dy"}, "model was .*tiny.py:Tiny', now 'alexnet-dy'"),
    ],
)
def test_a_run_is_not_resumed_as_another_one(
    finished: Run, train_tiny: TrainTiny, settings: dict[str, Any], said: str
) -> None:
    before = weights(finished)
    with pytest.raises(RunDiffers, match=said):
        train_tiny(finished.path, resume=True, **settings)
    assert weights(finished) == before


def test_a_run_is_not_resumed_on_other_pictures(tmp_path: Path) -> None:
    for name in ("cold", "hot"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (24, 24), (40 * number, 0, 0)).save(tmp_path / "data" / name / f"{number}.png")
    settings = {"data": f"folder:{tmp_path / 'data'}", "shape": (3, 32, 32), "epochs": 1, "batch": 4}
    train("mobilenetv3-small", out=tmp_path / "run", **settings)
    Image.new("RGB", (24, 24)).save(tmp_path / "data" / "hot" / "more.png")
    with pytest.raises(RunDiffers, match=r"pictures of the data was {'train': 10, .*now {'train': 11"):
        train("mobilenetv3-small", out=tmp_path / "run", resume=True)


def test_there_must_be_a_run_to_resume(train_tiny: TrainTiny, tmp_path: Path) -> None:
    with pytest.raises(RunUnreadable, match=r"no usable training run at .*: there is no such folder"):
        train_tiny(tmp_path / "none", resume=True)


def test_a_run_is_replaced_only_when_asked_to(finished: Run, train_tiny: TrainTiny, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(finished.path, tmp_path / "run"))
    with pytest.raises(OutputExists, match="exists already") as caught:
        train_tiny(copied)
    assert "--resume" in caught.value.hint
    assert read_run(train_tiny(copied, force=True, epochs=1).path).record["recipe"]["epochs"] == 1


def test_force_spares_folders_that_are_no_runs(train_tiny: TrainTiny, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExists):
        train_tiny(folder, force=True)
    assert (folder / "thesis.txt").is_file()


def test_damaged_state_is_refused(finished: Run, train_tiny: TrainTiny, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(finished.path, tmp_path / "run"))
    (copied / "last" / "state.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(RunUnreadable, match="last/ is damaged"):
        train_tiny(copied, resume=True)


def test_state_of_another_network_is_refused(finished: Run, train_tiny: TrainTiny, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    copied = Path(shutil.copytree(finished.path, tmp_path / "run"))
    arrays = load_file(copied / "last" / "state.safetensors")
    arrays["network/classifier.1.bias"] = np.zeros(11, np.float32)
    save_file(arrays, copied / "last" / "state.safetensors")
    with pytest.raises(RunUnreadable, match="weights of another network"):
        train_tiny(copied, resume=True)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_weights(train_tiny: TrainTiny, tmp_path: Path) -> None:
    """A learning rate that blows up does so after the first epoch has been kept."""

    class Poison(Silent):
        def epoch(self, row: Any, epochs: int) -> None:
            for parameter in self.network.parameters():
                parameter.set_value(parameter * math.nan)

    from dyx.train import loop

    watch, built = Poison(), loop._build
    with pytest.MonkeyPatch.context() as patch:

        def build(*arguments: Any) -> Any:
            source = built(*arguments)
            watch.network = source.network
            return source

        patch.setattr(loop, "_build", build)
        with pytest.raises(TrainingDiverged, match="the loss is nan at step 1 of epoch 2") as caught:
            train_tiny(tmp_path / "run", watch=watch)
    assert "the weights of epoch 1 are kept in" in str(caught.value)
    kept = read_checkpoint(tmp_path / "run" / "best" / "weights.pdparams")
    assert all(np.isfinite(array).all() for array in kept.arrays.values())
    assert len(read_run(tmp_path / "run").record["history"]) == 1


def test_a_learning_rate_beyond_reason_diverges(train_tiny: TrainTiny, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"learning rate 1e\+30"):
        train_tiny(tmp_path / "run", recipe="dyconv", learning_rate=1e30)


def test_a_disk_that_is_full_keeps_what_was_there(train_tiny: TrainTiny, finished: Run, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the system refuses to write either way."""
    import resource

    copied = Path(shutil.copytree(finished.path, tmp_path / "run"))
    before = weights(finished, "best")
    with pytest.raises(Stopped):
        train_tiny(copied, force=True, watch=StopAt(30))
    before = (copied / "best" / "weights.safetensors").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, hard))
    try:
        with pytest.raises(OutputUnwritable, match="cannot write"):
            train_tiny(copied, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (copied / "best" / "weights.safetensors").read_bytes() == before
    assert weights(train_tiny(copied, resume=True)) == weights(finished)


def test_classes_of_the_data_must_be_those_of_the_network(train_tiny: TrainTiny, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (20, 20), (80 * index, 0, 0)).save(tmp_path / "data" / name / f"{index}.png")
    with pytest.raises(ModelUnusable, match=r"it answers \[1, 10\] to one picture, and folder:.* has 3 classes"):
        train_tiny(tmp_path / "run", data=f"folder:{tmp_path / 'data'}")
    assert not (tmp_path / "run").exists()


def test_a_zoo_network_gets_as_many_classes_as_the_data_has(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for index, name in enumerate(("cold", "hot", "wet")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 80, (24, 24, 3), dtype=np.uint8)
            pixels[..., index] += 150
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    data = f"folder:{tmp_path / 'data'}"
    run = train("mobilenetv3-small", data=data, out=tmp_path / "run", shape=(3, 32, 32), epochs=1, batch=4)
    assert run.record["labels"] == ["cold", "hot", "wet"]
    with open_run(run) as runner:
        assert runner.contract.labels == ("cold", "hot", "wet")
        assert runner.run(np.zeros((2, 3, 32, 32), np.float32)).shape == (2, 3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 0}, "--epochs is 0"),
        ({"batch": -1}, "--batch is -1"),
        ({"learning_rate": math.nan}, "--learning-rate is nan"),
        ({"mixup": -1.0}, "--mixup is -1.0"),
        ({"precision": "half"}, "--precision is 'half'"),
        ({"precision": "mixed", "device": "cpu"}, "--precision is 'mixed'.*float32 on a CPU"),
        ({"form": "fastest"}, "--form is 'fastest'.*auto or one that its layers take: columns, grouped, mix-outputs"),
        ({"workers": -1}, "--workers is -1"),
        ({"save_every": -1.0}, "--save-every is -1.0"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_settings_that_cannot_be(train_tiny: TrainTiny, tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        train_tiny(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_bad_data_is_refused_before_anything_is_written(train_tiny: TrainTiny, tmp_path: Path) -> None:
    with pytest.raises(DataUnusable):
        train_tiny(tmp_path / "run", data=f"cifar10:{tmp_path / 'none.tar.gz'}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("form", ["columns", "mix-outputs"])
def test_another_form_trains_to_nearly_the_same(
    finished: Run, train_tiny: TrainTiny, tmp_path: Path, form: str
) -> None:
    run = train_tiny(tmp_path / "run", form=form)
    assert run.record["forms"]["features.3"]["chosen"] == form
    for row, wanted in zip(run.record["history"], finished.record["history"], strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=5e-3)


def test_the_fastest_form_is_measured_told_and_kept(train_tiny: TrainTiny, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train_tiny(tmp_path / "run", form="auto", watch=StopAt(3))
    told = read_run(tmp_path / "run").record["forms"]["features.3"]
    assert set(told["ms"]) == {"grouped", "columns", "mix-outputs"}
    assert told["ms"][told["chosen"]] == min(told["ms"].values())
    assert told["ratio"] == pytest.approx(told["ms"]["grouped"] / told["ms"][told["chosen"]])
    assert train_tiny(tmp_path / "run", form="auto", resume=True).record["forms"]["features.3"] == told


def test_a_run_too_short_for_its_temperature_says_so(train_tiny: TrainTiny, tmp_path: Path) -> None:
    notes: list[str] = []

    class Hears(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    run = train_tiny(tmp_path / "run", recipe="gates", epochs=2, watch=Hears())
    assert notes == ["temperature of dyconv ends at 27: 2 epochs are too few to reach 1"]
    assert run.record["notes"] == notes
    sidecar = read_sidecar(run.path / "final" / "weights.safetensors")
    assert sidecar is not None and sidecar.temperature == {"dyconv": 27.0}


def test_curves_for_tensorboard_are_written_while_training(train_tiny: TrainTiny, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    train_tiny(tmp_path / "run", epochs=2, log_dir=tmp_path / "log")
    (events,) = (tmp_path / "log").iterdir()
    content = events.read_bytes()
    for tag in (b"held_out_accuracy", b"temperature.dyconv", b"entropy.features.3", b"learning_rate"):
        assert content.count(tag) >= 2


def test_learning_rate_falls_after_each_milestone(
    train_tiny: TrainTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The articles' first fall comes after thirty epochs: here it comes after one."""
    from dataclasses import replace

    from dyx.train import settings
    from dyx.train.recipes import find_recipe

    early = replace(find_recipe("dyconv"), milestones=(1, 2), batch=256)
    monkeypatch.setattr(settings, "find_recipe", lambda _name: early)
    run = train_tiny(tmp_path / "run", recipe="dyconv", epochs=3, batch=None, learning_rate=None)
    rates = [row["learning_rate"] for row in run.record["history"]]
    assert rates == pytest.approx([0.1, 0.01, 0.001])


def test_a_run_is_opened_at_the_temperature_of_its_weights(finished: Run, tmp_path: Path) -> None:
    hot = read_run(shutil.copytree(finished.path, tmp_path / "hot"))
    sidecar = hot.path / "best" / "checkpoint.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"temperature": {"dyconv": 15.0}}))
    with open_run(hot) as runner, open_run(finished) as cold:
        assert runner._network.features[3].routing.temperature == 15
        assert cold._network.features[3].routing.temperature == 1


def test_entropy_is_one_for_equal_and_zero_for_one_hot_attention() -> None:
    np.testing.assert_allclose(entropy_of(np.full((2, 4), 0.25)), 1)
    np.testing.assert_allclose(entropy_of(np.eye(4)), 0, atol=1e-12)
    half = np.array([[0.5, 0.5, 0, 0]])
    np.testing.assert_allclose(entropy_of(half), 0.5)


def test_only_shares_of_one_whole_have_an_entropy() -> None:
    assert is_distribution(np.full((3, 4), 0.25))
    assert not is_distribution(np.full((3, 4), 0.3))
    assert not is_distribution(np.ones((3, 1)))
    assert not is_distribution(np.array([[1.5, -0.5]]))


def test_the_record_is_plain_json(finished: Run) -> None:
    text = (finished.path / "run.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == finished.record
