"""What a torch pickle may and may not do: tensors are told of, strangers are inert, and nothing is called."""

from __future__ import annotations

import io
import pickle
import runpy
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dyx.errors import CheckpointUnsafe
from dyx.torch_pickle import StandIn, Storage, Tensor, read_pickle

WRITER = runpy.run_path(str(Path(__file__).parent / "data" / "torch_writer.py"))
Called, Name, Stored, TorchPickler, view = (
    WRITER[name] for name in ("Called", "Name", "Stored", "TorchPickler", "view")
)
NUMBERS = np.arange(6, dtype=np.float32)
STORED = Stored("0", NUMBERS)


def pickled(content: Any, protocol: int = 2) -> bytes:
    stream = io.BytesIO()
    TorchPickler(stream, protocol, legacy=False).dump(content)
    return stream.getvalue()


def loaded(content: bytes) -> Any:
    return read_pickle(io.BytesIO(content), Path("x.pth"))[0]


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_tensor_is_told_of_and_not_read(protocol: int) -> None:
    got = loaded(pickled({"w": view(Stored("7", NUMBERS), 1, (2, 2), (2, 1))}, protocol))
    assert got == {"w": Tensor(Storage("Float", "7", 6), 1, (2, 2), (2, 1))}


@pytest.mark.parametrize("name", ["_rebuild_parameter", "_rebuild_parameter_with_state"])
def test_parameter_is_its_data(name: str) -> None:
    tensor = view(STORED, 0, (6,), (1,))
    got = loaded(pickled(Called(Name("torch._utils", name), (tensor, True, {}))))
    assert got == Tensor(Storage("Float", "0", 6), 0, (6,), (1,))


class Marked:
    """Its constructor must never run."""

    ran = False

    def __init__(self) -> None:
        type(self).ran = True


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "honest",
    [Namespace(a=1, b=[2]), Path("a/b"), np.float64(3), np.zeros(3), {1, 2}, bytearray(b"a"), slice(1, 2), 1j],
    ids=lambda value: type(value).__name__,
)
def test_strangers_are_inert(honest: Any, protocol: int) -> None:
    got = loaded(pickle.dumps({"it": honest, "epoch": 3}, protocol))
    assert got["epoch"] == 3
    # Protocol 4 has an opcode of its own for sets, and 5 for bytearrays.
    if not isinstance(got["it"], set | bytearray):
        assert isinstance(got["it"], StandIn)
        assert not vars(got["it"])


@pytest.mark.parametrize(
    "opcodes",
    [
        b"c{name}\n)R.",  # REDUCE
        b"c{name}\n)\x81.",  # NEWOBJ
        b"\x80\x04c{name}\n)}\x92.",  # NEWOBJ_EX
        b"(i{name}\n.",  # INST
        b"(c{name}\no.",  # OBJ
        b"c{name}\n)R}X\x01\x00\x00\x00aK\x01sb.",  # BUILD with a dict
        b"c{name}\n)RN}X\x01\x00\x00\x00aK\x01s\x86b.",  # BUILD with slots
        b"c{name}\n)RK\x01a.",  # APPEND
        b"c{name}\n)R(K\x01K\x02e.",  # APPENDS
        b"c{name}\n)RK\x01K\x02s.",  # SETITEM
        b"c{name}\n)R(K\x01K\x02u.",  # SETITEMS
        b"\x80\x04c{name}\n)R(K\x01\x90.",  # ADDITEMS
        b"c{name}\n)R)R.",  # the stand-in itself is called
    ],
)
def test_every_opcode_that_makes_or_fills_an_object_meets_a_stand_in(opcodes: bytes) -> None:
    name = f"{Marked.__module__}\nMarked".encode()
    got = loaded(opcodes.replace(b"{name}", name))
    assert isinstance(got, StandIn)
    assert got.name.endswith(".Marked")
    assert not vars(got)
    assert not Marked.ran


REFUSED = [
    *("posix.system", "nt.system", "os.system", "os.path.join", "builtins.eval", "__builtin__.getattr"),
    *("builtins.exec", "builtins.__import__", "builtins.open", "subprocess.Popen", "importlib.import_module"),
    *("runpy.run_path", "shutil.rmtree", "socket.socket", "pty.spawn", "operator.attrgetter", "sys.exit"),
]


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_honest_file_names_is_refused_by_name(name: str) -> None:
    module, _, member = name.rpartition(".")
    with pytest.raises(CheckpointUnsafe, match=name):
        loaded(b"c" + f"{module}\n{member}\n".encode() + b".")


def test_nothing_is_imported(tmp_path: Path) -> None:
    """A stand-in for a module that would leave a mark when imported, in a process of its own."""
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nclass A: pass\n")
    script = (
        "import io, pathlib; from dyx.torch_pickle import read_pickle\n"
        "print(read_pickle(io.BytesIO(b'ctrap\\nA\\n)R.'), pathlib.Path('x'))[0].name)"
    )
    assert subprocess.check_output([sys.executable, "-c", script], cwd=tmp_path, text=True) == "trap.A\n"
    assert not (tmp_path / "mark").exists()
    subprocess.check_call([sys.executable, "-c", "import pickle; pickle.loads(b'ctrap\\nA\\n)R.')"], cwd=tmp_path)
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "state", [{"size": (10**9,), "function": None}, (None, {"size": (10**9,), "function": None})], ids=["dict", "slots"]
)
@pytest.mark.parametrize("thing", ["tensor", "rebuild", "kind", "dict"])
def test_a_state_changes_nothing_that_is_known(thing: str, state: Any) -> None:
    """BUILD sets attributes of whatever stands on the stack, also of what is called later."""
    tensor = view(STORED, 0, (6,), (1,))
    opcodes = {
        "tensor": pickled(tensor)[:-1],
        "rebuild": b"ctorch._utils\n_rebuild_tensor_v2\n",
        "kind": b"ctorch\nFloatStorage\n",
        "dict": b"ccollections\nOrderedDict\n)R",
    }[thing]
    got = loaded(opcodes + pickle.dumps(state, 2)[2:-1] + b"b.")
    wanted = loaded(opcodes + b".")
    assert type(got) is type(wanted)
    assert vars(got) == vars(wanted)
    if thing == "tensor":
        assert got.size == (6,)


@pytest.mark.parametrize("name", ["collections\nOrderedDict", "argparse\nNamespace"])
def test_a_state_on_a_class_is_an_error(name: str) -> None:
    """Classes outlive a load: what is set on one would be there for the next file."""
    with pytest.raises(TypeError):
        loaded(b"c" + name.encode() + b"\nN}X\x01\x00\x00\x00aK\x01s\x86b.")


def test_one_stand_in_class_per_name_read() -> None:
    first, second = (loaded(b"cargparse\nNamespace\n)R.") for _ in range(2))
    assert type(first) is not type(second)
    assert (first.name, second.name, StandIn.name) == ("argparse.Namespace", "argparse.Namespace", "")


@pytest.mark.parametrize(
    "content",
    [
        view("no storage", 0, (1,), (1,)),
        view(Called(Name("torch.storage", "UntypedStorage")), 0, (1,), (1,)),
        view(STORED, 0, (6,), (1,), {"neg": True}),
        Called(Name("torch._utils", "_rebuild_qtensor"), (1, 2, 3)),
    ],
    ids=["text", "untyped", "negated", "quantised"],
)
def test_tensors_that_hold_no_weights_are_strangers(content: Any) -> None:
    assert isinstance(loaded(pickled(content)), StandIn)


def test_subclass_of_a_tensor_is_rebuilt_by_known_functions_only() -> None:
    tensor = (STORED, 0, (6,), (1,), False, {})
    from_type, kind = Name("torch._tensor", "_rebuild_from_type_v2"), Name("torch", "Buffer")
    known = Called(from_type, (Name("torch._utils", "_rebuild_tensor_v2"), kind, tensor, {}))
    assert isinstance(loaded(pickled(known)), Tensor)
    for function in (Name("argparse", "Namespace"), "text", Name("collections", "OrderedDict")):
        assert isinstance(loaded(pickled(Called(from_type, (function, kind, (), {})))), StandIn)


def test_views_of_storages_and_other_persistent_objects_are_strangers() -> None:
    viewed = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06(K\x01K\x02ttQ."
    )
    for content in (viewed, b"X\x01\x00\x00\x00aQ.", b"Pa\n."):
        assert isinstance(loaded(content), StandIn)


def test_byte_strings_of_python_2_are_read() -> None:
    assert loaded(b"}U\x02a\xe9K\x01s.") == {"aé": 1}


def test_class_of_a_legacy_module_is_its_name() -> None:
    got = loaded(b"(X\x06\x00\x00\x00modulectorch.nn\nLinear\nX\x01\x00\x00\x00aX\x01\x00\x00\x00bt" + b"Q)\x81.")
    assert (isinstance(got, StandIn), got.name) == (True, "torch.nn.Linear")


@pytest.mark.parametrize("opcodes", [b"}r\xff\xff\xff\x7f.", b"}p2147483647\n."], ids=["LONG_BINPUT", "PUT"])
def test_a_few_bytes_do_not_ask_for_gigabytes_of_memory(opcodes: bytes) -> None:
    """The C unpickler makes a table as long as the greatest number of an object: 32 GiB here."""
    with pytest.raises(pickle.UnpicklingError, match="bytes number 2147483647 objects"):
        loaded(opcodes)


def test_storages_are_told_and_the_file_is_left_behind_the_pickle() -> None:
    stream = io.BytesIO(pickled(view(STORED, 0, (6,), (1,))) + b"rest")
    content, storages = read_pickle(stream, Path("x.pth"))
    assert storages == {"0": Storage("Float", "0", 6)} == {"0": content.storage}
    assert stream.read() == b"rest"
