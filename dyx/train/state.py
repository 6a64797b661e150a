"""Where a run stands, kept so that it goes on after a kill exactly as if nothing had happened.

Order, augmentation and dropout follow from the seed, the epoch and the step (`pictures.py`), so that weights, the
optimiser's state and a few numbers are all that has to be kept. It is kept as arrays and JSON: reading runs no code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dyx.errors import RunUnreadable
from dyx.folder import written_whole
from dyx.nn.framework import paddle
from dyx.runs import HEADER, LAST, OPTIMIZER, WEIGHTS, Sidecar, write_sidecar

_ARRAYS = "state.safetensors"
_NUMBERS = "state.json"
_NETWORK, _OPTIMIZER = "network/", "optimizer/"


@dataclass
class Tally:
    """What the steps of an epoch add up to.

    Attributes:
        loss: Sum over pictures.
        correct: Pictures whose class was the best one.
        seen: Pictures.
        seconds: Spent on the steps.
        rate: Learning rate of the last step.
    """

    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    rate: float = 0.0


@dataclass
class State:
    """Where a run stands.

    Attributes:
        epoch: Epochs behind.
        step: Steps behind in the present epoch.
        tally: Of those steps.
        history: A row of figures per epoch behind.
        best: Epoch (from 1) and held-out accuracy of the best weights, and what they answer to the pictures that are
            shown; or None.
    """

    epoch: int = 0
    step: int = 0
    tally: Tally = field(default_factory=Tally)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None


def save_state(folder: Path, network: Any, optimizer: Any, state: State) -> None:
    """Write `last/` of a run, whole or not at all. Raises OutputUnwritable; what was there before is then still."""
    from safetensors.numpy import save

    kept = optimizer.state_dict()
    numbers = {key: value for key, value in kept.items() if not isinstance(value, paddle.Tensor)}
    arrays = {_OPTIMIZER + key: _array(value) for key, value in kept.items() if isinstance(value, paddle.Tensor)}
    arrays |= {_NETWORK + key: _array(value) for key, value in network.state_dict().items()}
    with written_whole(folder / LAST, replace=True) as staging:
        (staging / _ARRAYS).write_bytes(save(arrays))
        text = json.dumps({**asdict(state), "optimizer": numbers})
        (staging / _NUMBERS).write_text(text + "\n", encoding="utf-8")


def _array(tensor: Any) -> np.ndarray:
    return np.ascontiguousarray(tensor.numpy())


def load_state(folder: Path, network: Any, optimizer: Any) -> State:
    """Put a network and its optimiser where `save_state` found them; a new State where nothing was saved yet.

    Raises RunUnreadable where what is there is damaged or of another network.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    last = folder / LAST
    if not last.is_dir():
        return State()
    try:
        numbers = json.loads((last / _NUMBERS).read_text(encoding="utf-8"))
        arrays = load_file(last / _ARRAYS)
        tally = Tally(**numbers.pop("tally"))
        kept = numbers.pop("optimizer")
        state = State(**numbers, tally=tally)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise RunUnreadable(folder, f"{LAST}/ is damaged ({error})") from error
    _restore(folder, network, _under(_NETWORK, arrays))
    moments = {key: paddle.to_tensor(array) for key, array in _under(_OPTIMIZER, arrays).items()}
    optimizer.set_state_dict({**kept, **moments})
    return state


def _under(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}


def _restore(folder: Path, network: Any, arrays: dict[str, np.ndarray]) -> None:
    own = network.state_dict()
    if {key: list(tensor.shape) for key, tensor in own.items()} != {key: list(a.shape) for key, a in arrays.items()}:
        raise RunUnreadable(folder, f"{LAST}/ holds the weights of another network")
    for key, tensor in own.items():
        tensor.set_value(arrays[key])


def save_checkpoint(folder: Path, network: Any, optimizer: Any, sidecar: Sidecar) -> None:
    """Write a checkpoint's folder, whole or not at all. Raises OutputUnwritable; what was there before is then still.

    Args:
        folder: `best` or `final` of a run.
        network: Its state dict goes to `weights.pdparams`, as `paddle.save` writes it, and to `weights.safetensors`.
        optimizer: Its state dict goes to `weights.pdopt`.
        sidecar: What the state dict does not carry.
    """
    from safetensors.numpy import save

    # One entry alone: the package writes several in a different order every time, and equal runs give equal files.
    metadata = {HEADER: json.dumps(sidecar.to_json())}
    with written_whole(folder, replace=True) as staging:
        paddle.save(network.state_dict(), str(staging / WEIGHTS[0]))
        arrays = {key: _array(tensor) for key, tensor in network.state_dict().items()}
        (staging / WEIGHTS[1]).write_bytes(save(arrays, metadata))
        paddle.save(optimizer.state_dict(), str(staging / OPTIMIZER))
        write_sidecar(staging, sidecar)
