"""Training, from top to bottom: prepare, an epoch after the other, the pictures people look at."""

from __future__ import annotations

import math
import shutil
import time
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dyx.datasets import ImageData, read_data
from dyx.environment import environment
from dyx.errors import InvalidOption, ModelUnusable, TrainingDiverged
from dyx.evaluation import Evaluation, evaluate
from dyx.nn.framework import paddle
from dyx.nn.watching import watched_attention
from dyx.paddle_package import paddle_package
from dyx.runs import BEST, FINAL, Run, Sidecar, read_run
from dyx.runtime.freed_memory import keep_freed_memory
from dyx.train.forms import FormChoice, fastest_forms, fixed_form, has_choice, use_forms
from dyx.train.journal import SHOWN_PICTURES, Journal
from dyx.train.pictures import STEP, WEIGHTS, TrainingPictures, epoch_batches, load, seed_of
from dyx.train.settings import AUTO, Order, TrainSettings, check_folder, check_same_data, folder_of, order_of
from dyx.train.state import State, Tally, load_state, save_checkpoint, save_state
from dyx.train.step import Learner, learn, make_learner
from dyx.train.temperature import Annealed, anneal, annealed_layers
from dyx.train.watch import Silent, Watch
from dyx.zoo.eager import EagerRunner
from dyx.zoo.source import Source, load_source

_MEASURED_PICTURES = 64


@dataclass(frozen=True)
class Session:
    """A run under way: what does not change while it lasts.

    Attributes:
        folder: Where it goes.
        order: What was asked.
        data: Pictures and classes.
        source: The network and what is known of it, labels of the data included.
        learner: The network with its optimiser.
        annealed: Layers whose temperature falls.
        steps: Per epoch.
        settings: What the command line said; what the run must equal when resumed is in `order`.
        runner: Answers with the network as it is.
        watch: Who looks on.
        journal: Where figures go.
    """

    folder: Path
    order: Order
    data: ImageData
    source: Source
    learner: Learner
    annealed: tuple[Annealed, ...]
    steps: int
    settings: TrainSettings
    runner: EagerRunner
    watch: Watch
    journal: Journal


def train(model: str = "alexnet-dy", *, watch: Watch | None = None, **settings: Any) -> Run:
    """Train a network, and keep what is needed to understand, resume and export it. Also `dyx train`.

    Args:
        model: A name of `dyx models`, `file.py:Class` or `package.module:callable`.
        watch: Who looks on.
        settings: See TrainSettings. On a CPU this process keeps freed memory from then on; see `keep_freed_memory`.

    Raises:
        UsageError, DataUnusable, RunUnreadable, ModelUnusable, TrainingDiverged, OutputUnwritable, ImageUnreadable,
        PackageMissing, DeviceMissing. What was kept of the run before still is.
    """
    paddle_package()
    chosen = TrainSettings(**settings)
    chosen.check()
    # Optimisers keep their state under global names: those of a resumed run must not depend on what was built before.
    with paddle.utils.unique_name.guard(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "When training, we now always track global mean")
        session, state = _prepare(model, chosen, watch or Silent())
        recipe = session.order.recipe
        while state.epoch < recipe.epochs:
            _train_epoch(session, state)
            _close_epoch(session, state)
        return _finish(session, state)


def _prepare(model: str, settings: TrainSettings, watch: Watch) -> tuple[Session, State]:
    folder = folder_of(model, settings)
    begun = check_folder(folder, settings)
    order = order_of(model, settings, begun)
    watch.doing(f"reading {order.data}")
    data = read_data(order.data)
    if begun is not None:
        check_same_data(begun, data.labels, _counts(data))
    watch.doing(f"building {model}")
    source = _build(order, data)
    runner = EagerRunner(source, device=settings.device, threads=settings.threads)
    if runner.device == "cpu":
        keep_freed_memory()
    steps = len(epoch_batches(len(data.train), order.recipe.batch, order.seed, 0))
    mixed = order.precision == "mixed"
    if mixed and runner.device == "cpu":
        raise InvalidOption(
            "--precision", order.precision, "float32 on a CPU, where Paddle's eager mode knows no other"
        )
    learner = make_learner(source.network, order.recipe, steps, len(data.labels), mixed=mixed)
    share = order.recipe.annealing
    annealed = annealed_layers(source.network, None if share is None else share * order.recipe.epochs)
    anneal(annealed, 0, 0, steps)
    forms = _forms(order, data, source, settings.form, begun, watch)
    use_forms(source.network, forms)
    state = load_state(folder, source.network, learner.optimizer) if begun else State()
    if begun is None and folder.exists():
        shutil.rmtree(folder)  # --force, and by now everything else has worked
    facts = _facts(order, data, source, forms, runner.device, annealed)
    journal = Journal(folder, facts, data.held_out, settings.log_dir)
    session = Session(folder, order, data, source, learner, annealed, steps, settings, runner, watch, journal)
    for note in facts["notes"]:
        watch.note(note)
    journal.keep(state, finished=False)
    return session, state


def _build(order: Order, data: ImageData) -> Source:
    """The network, its weights drawn from the seed, for the classes of the data. Raises ModelUnusable."""
    paddle.seed(seed_of(order.seed, WEIGHTS))
    source = load_source(order.model, order.shape, order.seed, len(data.labels))
    with paddle.no_grad():
        answered = source.network(paddle.zeros([1, *source.shape])).shape
    if list(answered) != [1, len(data.labels)]:
        reason = f"it answers {list(answered)} to one picture, and {data.name} has {len(data.labels)} classes"
        raise ModelUnusable(order.model, reason, f"give it {len(data.labels)} outputs")
    return replace(source, labels=data.labels)


def _forms(
    order: Order, data: ImageData, source: Source, form: str, begun: Run | None, watch: Watch
) -> dict[str, FormChoice]:
    """The form of every layer that has a choice: as the run began, as asked for, or as measures fastest."""
    if begun is not None:
        return {path: FormChoice(**choice) for path, choice in begun.record["forms"].items()}
    if form != AUTO:
        return fixed_form(source.network, form)
    if not has_choice(source.network):
        return {}
    watch.doing("measuring training forms")
    source.network.train()
    count = min(order.recipe.batch, len(data.train), _MEASURED_PICTURES)
    images = np.random.default_rng(order.seed).standard_normal((count, *source.shape)).astype(np.float32)
    return fastest_forms(source.network, paddle.to_tensor(images))


def _facts(
    order: Order,
    data: ImageData,
    source: Source,
    forms: Mapping[str, FormChoice],
    device: str,
    annealed: tuple[Annealed, ...],
) -> dict[str, Any]:
    """What run.json says from the first moment on."""
    recipe, network = order.recipe, source.network
    cold = {layer.kind: layer.way.at(recipe.epochs - 1, 0, 1) for layer in annealed}
    final = {layer.kind: layer.way.final for layer in annealed}
    hot = [
        f"temperature of {kind} ends at {cold[kind]:g}: {recipe.epochs} epochs are too few to reach {final[kind]:g}"
        for kind in final
        if cold[kind] > final[kind]
    ]
    return {
        "model": order.model,
        "data": order.data,
        "seed": order.seed,
        "shape": list(source.shape),
        "labels": list(data.labels),
        "images": _counts(data),
        "parameters": sum(int(np.prod(tensor.shape)) for tensor in network.state_dict().values()),
        "recipe": recipe.to_json(),
        "order": order.to_json(),
        "preprocess": source.preprocess.to_json(),
        "forms": {path: choice.to_json() for path, choice in forms.items()},
        "device": device,
        "environment": environment(),
        "notes": [*data.notes, *hot],
    }


def _counts(data: ImageData) -> dict[str, int]:
    return {"train": len(data.train), "held_out": len(data.held_out)}


def _train_epoch(session: Session, state: State) -> None:
    """The rest of an epoch, step by step."""
    order, learner = session.order, session.learner
    batches = epoch_batches(len(session.data.train), order.recipe.batch, order.seed, state.epoch)
    pictures = TrainingPictures(
        session.data.train, session.source.preprocess, order.recipe.augmentation, order.seed, state.epoch
    )
    learner.network.train()
    kept_s = begun_s = time.monotonic()
    for images, classes in load(pictures, batches[state.step :], session.settings.workers):
        anneal(session.annealed, state.epoch, state.step, session.steps)
        state.tally.rate = learner.optimizer.get_lr()
        loss, correct = learn(learner, images, classes, seed_of(order.seed, STEP, state.epoch, state.step))
        _check_finite(session, state, loss)
        state.step += 1
        _count(state.tally, loss, correct, len(classes), time.monotonic() - begun_s)
        begun_s = time.monotonic()
        _tell_step(session, state)
        if time.monotonic() - kept_s > session.settings.save_every and state.step < session.steps:
            save_state(session.folder, learner.network, learner.optimizer, state)
            kept_s = begun_s = time.monotonic()


def _check_finite(session: Session, state: State, loss: float) -> None:
    if math.isfinite(loss):
        return
    best = state.best
    kept = f"the weights of epoch {best['epoch']} are kept in {session.folder / BEST}" if best else "nothing was kept"
    raise TrainingDiverged(loss, state.epoch + 1, state.step + 1, state.tally.rate, kept)


def _count(tally: Tally, loss: float, correct: int, pictures: int, seconds: float) -> None:
    tally.loss += loss * pictures
    tally.correct += correct
    tally.seen += pictures
    tally.seconds += seconds


def _tell_step(session: Session, state: State) -> None:
    tally, epochs = state.tally, session.order.recipe.epochs
    share = (state.epoch + state.step / session.steps) / epochs
    speed = tally.seen / max(tally.seconds, 1e-9)
    text = f"epoch {state.epoch + 1}/{epochs}  loss {tally.loss / tally.seen:.3f}  {speed:.0f} images/s"
    session.watch.step(text, share)


def _close_epoch(session: Session, state: State) -> None:
    """Judge the network, keep what is best, and note the figures."""
    learner = session.learner
    if not learner.per_step:
        learner.schedule.step()
    evaluation, entropy = _judge(session)
    row = _row(session, state, evaluation, entropy)
    state.history.append(row)
    state.epoch, state.step, state.tally = state.epoch + 1, 0, Tally()
    if state.best is None or row["held_out_accuracy"] > state.best["held_out_accuracy"]:
        shown = evaluation.predicted[:SHOWN_PICTURES].tolist()
        state.best = {"epoch": row["epoch"], "held_out_accuracy": row["held_out_accuracy"], "predicted": shown}
        save_checkpoint(session.folder / BEST, learner.network, learner.optimizer, _sidecar(session, row))
    save_state(session.folder, learner.network, learner.optimizer, state)
    session.journal.keep(state, finished=False)
    session.journal.log(row)
    session.watch.epoch(row, session.order.recipe.epochs)


def _judge(session: Session) -> tuple[Evaluation, dict[str, float]]:
    """The network on the held-out pictures, and how evenly its layers attend: 1 where all experts count the same."""
    network, entropies = session.learner.network, defaultdict[str, list[float]](list)

    def note(path: str, attention: tuple[np.ndarray, ...]) -> None:
        for array in attention:
            if is_distribution(array):
                entropies[path].extend(entropy_of(array))

    network.eval()
    with watched_attention(network, note):
        evaluation = evaluate(session.runner, session.data.held_out)
    return evaluation, {path: float(np.mean(values)) for path, values in entropies.items()}


def is_distribution(attention: np.ndarray) -> bool:
    """Whether an attention `(B, K)` shares one whole out among at least two."""
    if attention.ndim != 2 or attention.shape[1] < 2 or attention.min() < 0:
        return False
    return bool(np.allclose(attention.sum(1), 1, atol=1e-4))


def entropy_of(attention: np.ndarray) -> np.ndarray:
    """Entropy of each row of `(B, K)`, as a share of `log K`: 1 for equal weights, 0 for one-hot ones."""
    logs = np.log(np.maximum(attention, 1e-300))
    answer: np.ndarray = -(attention * logs).sum(1) / np.log(attention.shape[1])
    return answer


def _row(session: Session, state: State, evaluation: Evaluation, entropy: Mapping[str, float]) -> dict[str, Any]:
    tally = state.tally
    return {
        "epoch": state.epoch + 1,
        "loss": tally.loss / tally.seen,
        "accuracy": tally.correct / tally.seen,
        "held_out_loss": evaluation.loss,
        "held_out_accuracy": evaluation.accuracy,
        "learning_rate": tally.rate,
        "temperature": anneal(session.annealed, state.epoch, session.steps - 1, session.steps),
        "entropy": dict(entropy),
        "images_per_s": tally.seen / tally.seconds,
        "held_out_images_per_s": evaluation.images_per_s,
        "seconds": tally.seconds,
    }


def _sidecar(session: Session, row: Mapping[str, Any]) -> Sidecar:
    source = session.source
    return Sidecar(
        model=session.order.model,
        shape=source.shape,
        labels=source.labels,
        preprocess=source.preprocess,
        temperature=row["temperature"],
        data=session.order.data,
        epoch=row["epoch"],
        accuracy=row["held_out_accuracy"],
    )


def _finish(session: Session, state: State) -> Run:
    learner = session.learner
    session.watch.doing("writing the final checkpoint")
    save_checkpoint(session.folder / FINAL, learner.network, learner.optimizer, _sidecar(session, state.history[-1]))
    for note in session.journal.keep(state, finished=True):
        session.watch.note(note)
    session.journal.close()
    return read_run(session.folder)
