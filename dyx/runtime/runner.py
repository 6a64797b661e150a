"""The one abstract class: a network, opened by some backend, that answers batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dyx.errors import InvalidOption, ProfileUnavailable
from dyx.preprocess import Preprocess
from dyx.runtime.profile import Profile
from dyx.tensors import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from dyx.bundle import Bundle
    from dyx.preprocess import Picture


_PICTURES_PER_CALL = 64


@dataclass(frozen=True)
class Score:
    """One class of a prediction: its index, its label and its softmax probability."""

    index: int
    label: str
    score: float


@dataclass(frozen=True)
class Contract:
    """What a runner needs to know of the network beside the network: specs, pictures, labels."""

    name: str
    input: TensorSpec
    output: TensorSpec
    preprocess: Preprocess
    labels: tuple[str, ...]

    @classmethod
    def of(cls, bundle: Bundle) -> Contract:
        """The contract that a bundle's manifest states."""
        return cls(bundle.model, bundle.input, bundle.output, bundle.preprocess, bundle.labels)

    def prepare(self, picture: Picture) -> np.ndarray:
        """A picture as one row of the input, `(3, H, W)`: normalised, or pixels where the spec says uint8.

        Raises ImageUnreadable.
        """
        return self.preprocess.giving(self.input.dtype)(picture)


class Runner(ABC):
    """A network that answers batches: a context manager that leaves nothing behind.

    Attributes:
        backend: The backend's name.
        device: Where it computes: `"cpu"` or `"gpu"`.
        threads: How many threads it computes with on a CPU.
        options: What was asked of the runtime, for records.
    """

    backend: str
    device: str
    threads: int
    options: dict[str, Any]

    def __init__(self, contract: Contract) -> None:
        self.contract = contract

    def run(self, image: np.ndarray) -> np.ndarray:
        """The logits, float32 `(batch, classes)`, of a `(batch, 3, H, W)` array: float32, or uint8 as the spec says.

        Raises InvalidTensor.
        """
        self.contract.input.check(image)
        return self._infer(image)

    def predict(self, images: Sequence[Picture], top: int = 5) -> list[list[Score]]:
        """The `top` best classes of each picture, best first. Raises ImageUnreadable."""
        if top < 1:
            raise InvalidOption("--top", top, "a number from 1 up")
        chunks = [images[start : start + self.chunk] for start in range(0, len(images), self.chunk)]
        return [self._best(row, top) for chunk in chunks for row in softmax(self.answer(self.prepare(chunk)))]

    @property
    def chunk(self) -> int:
        """How many pictures go into one call: the size that the batch is frozen to, or enough to keep memory small."""
        size = self.contract.input.frozen_batch
        return _PICTURES_PER_CALL if size is None else size

    def answer(self, image: np.ndarray) -> np.ndarray:
        """The logits of up to `chunk` rows; a frozen batch is filled up with the last row. Raises InvalidTensor."""
        import numpy as np

        size = self.contract.input.frozen_batch
        missing = 0 if size is None else size - len(image)
        filled = np.concatenate([image, *[image[-1:]] * missing]) if missing else image
        return self.run(filled)[: len(image)]

    def prepare(self, images: Sequence[Picture]) -> np.ndarray:
        """Pictures as the network's input, `(n, 3, H, W)` of its dtype. Raises ImageUnreadable."""
        import numpy as np

        return np.stack([self.contract.prepare(image) for image in images])

    def _best(self, scores: np.ndarray, top: int) -> list[Score]:
        order = scores.argsort(kind="stable")[::-1][:top]
        return [Score(int(index), self.contract.labels[index], float(scores[index])) for index in order]

    @abstractmethod
    def _infer(self, image: np.ndarray) -> np.ndarray:
        """The logits of a checked input."""

    def on_device(self, image: np.ndarray) -> Callable[[], float] | None:
        """A call that runs once on inputs kept on the device and returns seconds there by its own events.

        None where the backend computes on the CPU, where there is nothing to tell apart.
        """
        return None

    def profile(self, image: np.ndarray, calls: int) -> Profile:
        """So many calls with the runtime's own profiler on, in a session that is opened for them.

        Raises InvalidTensor, ProfileUnavailable, PackageMissing.
        """
        self.contract.input.check(image)
        if self.device == "gpu":
            reason = "on a GPU runtimes tell when they launched a kernel, not how long it ran"
            raise ProfileUnavailable(self.backend, reason)
        return self._profile(image, calls)

    def _profile(self, image: np.ndarray, calls: int) -> Profile:
        raise ProfileUnavailable(self.contract.name, "it runs no graph of nodes")

    @abstractmethod
    def close(self) -> None:
        """Give everything back; the runner cannot be used any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64."""
    import numpy as np

    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))
