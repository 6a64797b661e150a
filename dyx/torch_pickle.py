"""The content of a torch pickle, without torch and without calling anything that it names.

torch.save writes tensors as calls of a few rebuild functions over numbered storages; those few are known here. Every
other name, such as the `argparse.Namespace` beside the weights of a training run, gets an inert stand-in.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickletools import genops
from typing import IO, Any

from dyx.errors import CheckpointUnsafe

_HARMLESS = re.compile(
    "object|type|bool|int|float|complex|str|bytes|bytearray|tuple|list|dict|set|frozenset|slice|range|Ellipsis"
)
"""Of builtins: what honest files refer to. They too get stand-ins, so that none can ask for much memory."""

_DANGEROUS = re.compile(
    "os|posix|nt|subprocess|sys|importlib|runpy|shutil|socket|pty|operator|_operator|io|_io|ctypes|marshal|pickle|_pickle"
    "|code|codeop|pdb|bdb|timeit|profile|cProfile|pkgutil|webbrowser|multiprocessing|asyncio|signal|tempfile|urllib|http"
    "|commands|popen2|pip"
)
"""Packages that no honest checkpoint refers to. A stand-in would do no harm; but whoever names one means harm."""


class StandIn:
    """What stands for any object that is not known: it takes all that a pickle does to it and keeps nothing.

    It is never the real class, so nothing is imported and no constructor runs. `name` is the real one's.
    """

    name = ""

    def __new__(cls, *_: Any, **__: Any) -> StandIn:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Drop every argument."""

    def __call__(self, *_: Any, **__: Any) -> StandIn:
        return self

    def __setitem__(self, _key: Any, _value: Any) -> None:
        """Drop an item."""

    def __setstate__(self, _state: Any) -> None:
        """Drop a state."""

    def append(self, _item: Any) -> None:
        """Drop an item."""

    add = append


@dataclass(frozen=True)
class Storage:
    """A run of numbers in a file.

    Attributes:
        kind: As torch names it, `"Float"`, `"BFloat16"` …
        key: Of its bytes in the file.
        length: How many numbers the pickle says it has; nobody has checked.
    """

    kind: str
    key: str
    length: int

    def __setstate__(self, _state: Any) -> None:
        """Drop a state: what was built stays as it is."""


@dataclass(frozen=True)
class Tensor:
    """A view of a storage, not read yet. Nothing of what the pickle says has been checked.

    Attributes:
        storage: Where its numbers are.
        offset: Of its first number.
        size: Its shape.
        strides: In numbers.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    strides: tuple[int, ...]

    def __setstate__(self, _state: Any) -> None:
        """Drop a state: what was built stays as it is."""


def read_pickle(file: IO[bytes], path: Path) -> tuple[Any, dict[str, Storage]]:
    """What the pickle at a file's position holds, and the storages that it refers to, by key.

    Args:
        file: At a pickle; afterwards behind it.
        path: For messages.

    Raises:
        CheckpointUnsafe: It names something that no honest checkpoint refers to. Nothing was run.
        Exception: Almost any other: it is damaged.
    """
    _check_memo(file)
    unpickler = _TorchUnpickler(file, path)
    return unpickler.load(), unpickler.storages


def _check_memo(file: IO[bytes]) -> None:
    """Refuse a pickle whose numbered objects are more than its bytes: a table of that length would be made for them."""
    start = file.tell()
    numbers = [argument or 0 for opcode, argument, _ in genops(file) if opcode.name in ("PUT", "LONG_BINPUT")]
    length = file.tell() - start
    if max(numbers, default=0) > length:
        raise pickle.UnpicklingError(f"{length} bytes number {max(numbers)} objects")
    file.seek(start)


class _TorchUnpickler(pickle.Unpickler):
    """An unpickler that knows tensors and ordered dicts, and has a stand-in for every other name.

    Attributes:
        storages: That were referred to, by key.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        # Files of Python 2 hold byte strings, and latin1 reads any.
        super().__init__(file, encoding="latin1")
        self._path = path
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for. Raises CheckpointUnsafe where no honest checkpoint would use it."""
        package = module.partition(".")[0]
        builtin = package in ("builtins", "__builtin__")
        if _DANGEROUS.fullmatch(package) or (builtin and not _HARMLESS.fullmatch(name)):
            raise CheckpointUnsafe(self._path, f"{module}.{name}")
        if (module, name) == ("collections", "OrderedDict"):
            return _Ordered
        if module == "torch" and name.endswith("Storage"):
            return _StorageKind(name.removesuffix("Storage"))
        rebuild = _REBUILDS.get((module, name))
        # A class of its own, also for one and the same name: nothing that a file does to it outlives the file.
        return _Rebuild(rebuild) if rebuild else _stand_in(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        """The storage that `("storage", kind, key, device, length)` tells of; any other object is a stand-in."""
        match pid:
            # The legacy format adds a sixth part, a view of another storage, that torch has not written since 2018.
            case ("storage", _StorageKind() as kind, str() as key, _, int() as length, *view) if view in ([], [None]):
                self.storages[key] = Storage(kind.kind, key, length)
                return self.storages[key]
            case ("module", cls, *_):  # the legacy format keeps the source code of classes beside them
                return cls
        return _stand_in("torch.Storage of a kind that holds no weights")()


def _stand_in(name: str) -> type[StandIn]:
    return type("StandIn", (StandIn,), {"name": name})


class _Ordered(OrderedDict[Any, Any]):
    """An ordered dict without state: torch hangs `_metadata` on it, which nobody needs."""

    def __setstate__(self, _state: Any) -> None:
        """Drop it."""


class _StorageKind(StandIn):
    """A storage class of torch, by the kind of number that it holds."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.name = f"torch.{kind}Storage"


class _Rebuild:
    """A rebuild function, as an object: a pickle may write attributes of a function, but not of this."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, _state: Any) -> None:
        """Drop a state."""


_WEIGHTLESS = "torch.Tensor of a kind that holds no weights"


def _tensor(storage: Any, offset: Any, size: Any, strides: Any, *rest: Any) -> Any:
    """`torch._utils._rebuild_tensor_v2`; what follows is requires_grad, hooks and, in some, a sign or conjugate bit."""
    if not isinstance(storage, Storage) or (len(rest) > 2 and rest[2]):
        return _stand_in(_WEIGHTLESS)()
    return Tensor(storage, offset, size, strides)


def _parameter(data: Any, *_: Any) -> Any:
    """`torch._utils._rebuild_parameter` and the like: a parameter is its data."""
    return data


def _from_type(function: Any, _kind: Any, arguments: Any, _state: Any) -> Any:
    """`torch._tensor._rebuild_from_type_v2`: a subclass or a tensor with attributes is rebuilt like any other."""
    return function(*arguments) if isinstance(function, _Rebuild) else _stand_in(_WEIGHTLESS)()


_REBUILDS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
}
