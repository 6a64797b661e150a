"""Who takes part in `dyx bench`: bundles, their baseline, the eager network; made first where they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dyx.bench import Contender, Skipped, bundle_contender
from dyx.bundle import MANIFEST, Bundle, read_bundle
from dyx.errors import PackageMissing, UnknownName
from dyx.progress import Progress
from dyx.runtime import BACKEND_EXTRAS, BACKEND_FORMATS, BACKENDS, is_installed, require_backend
from dyx.zoo import BUILDERS, find_model

BUNDLES = Path("bundles")
DEFAULT = "alexnet-dy"
EAGER = "paddle-eager"


@dataclass(frozen=True)
class Lineup:
    """Who takes part, and who cannot."""

    contenders: tuple[Contender, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Where:
    """Where contenders run: backends (every installed one where none is named), device, threads."""

    backends: Sequence[str] = ()
    device: str = "auto"
    threads: int | None = None


def line_up(paths: Sequence[Path], baseline: str | None, where: Where, tell: Progress) -> Lineup:
    """Contenders for bundles and their baseline on every backend, and for the eager network.

    Args:
        paths: Bundles; `bundles/alexnet-dy` where there are none, exported first if it is not there.
        baseline: A bundle's folder or a zoo model; by default the zoo baseline of the first bundle's model.
        where: Backends, device, threads.
        tell: Hears of every export that is made on the way.

    Raises:
        UnknownName: A backend or baseline that does not exist.
        PackageMissing: A named backend that is not installed, or Paddle where something has to be exported first.
        BundleError: A bundle that cannot be used.
    """
    for backend in where.backends:
        require_backend(backend)
    bundles = [read_bundle(path) for path in paths] or [_zoo_bundle(DEFAULT, BUNDLES, tell)]
    base = _baseline(bundles[0], baseline, tell)
    if base is not None:
        # Named among the others it takes part once; alone, it is compared with itself.
        others = [bundle for bundle in bundles if bundle.path.resolve() != base.path.resolve()]
        bundles = others or bundles[:1]
    sides = [(bundle, False) for bundle in bundles] + ([(base, True)] if base else [])
    found = [_contender(bundle, backend, where, is_base) for backend in _backends(where) for bundle, is_base in sides]
    found += [_eager(model, where, found) for model in dict.fromkeys(bundle.model for bundle in bundles)]
    return Lineup(
        tuple(one for one in found if isinstance(one, Contender)),
        tuple(dict.fromkeys(one for one in found if isinstance(one, Skipped))),
    )


def _backends(where: Where) -> Sequence[str]:
    return tuple(dict.fromkeys(where.backends)) or BACKENDS.names


def _baseline(bundle: Bundle, named: str | None, tell: Progress) -> Bundle | None:
    if named is None:
        name = find_model(bundle.model).baseline if bundle.model in BUILDERS.names else None
        return _zoo_bundle(name, bundle.path.parent, tell) if name else None
    if named in BUILDERS.names and not (Path(named) / MANIFEST).is_file():
        return _zoo_bundle(named, bundle.path.parent, tell)
    if not Path(named).exists():
        raise UnknownName("bundle or model", named, BUILDERS.names)
    return read_bundle(named)


def _zoo_bundle(name: str, beside: Path, tell: Progress) -> Bundle:
    """The bundle of a zoo model: beside the first one, or in bundles/, exported there if it is in neither place."""
    for folder in (beside / name, BUNDLES / name):
        if (folder / MANIFEST).is_file():
            return read_bundle(folder)
    folder = BUNDLES / name
    if not is_installed("paddle"):
        error = PackageMissing("paddlepaddle", "paddle")
        error.hint = f"{folder} is not there, and exporting it needs Paddle: {error.hint}"
        raise error
    from dyx.exporter.pipeline import export

    tell(f"{folder} is not there: exporting it first, with untrained weights")
    return export(name, out=folder, progress=tell)


def _contender(bundle: Bundle, backend: str, where: Where, baseline: bool) -> Contender | Skipped:
    if not is_installed(backend):
        return Skipped(bundle.model, backend, _absent(backend, BACKEND_EXTRAS[backend]))
    if BACKEND_FORMATS[backend] not in bundle.formats:
        return Skipped(bundle.model, backend, f"{bundle.path} holds no {BACKEND_FORMATS[backend]} file")
    if where.device == "gpu" and backend == "openvino" and not where.backends:
        return Skipped(bundle.model, backend, "dyx runs it on CPUs only")
    return bundle_contender(bundle, backend, device=where.device, threads=where.threads, baseline=baseline)


def _absent(package: str, extra: str) -> str:
    error = PackageMissing(package, extra)
    return f"{error}; {error.hint}"


def _eager(model: str, where: Where, others: Sequence[Contender | Skipped]) -> Contender | Skipped:
    """The same network in eager mode, taking turns with the backend that is nearest to it."""
    if model not in BUILDERS.names:
        return Skipped(model, EAGER, "only the zoo's networks are run in eager mode")
    if not is_installed("paddle"):
        return Skipped(model, EAGER, _absent("paddlepaddle", "paddle"))
    groups = [one.group for one in others if isinstance(one, Contender)]
    if not groups:
        return Skipped(model, EAGER, "there is nothing to compare it with")
    arguments = {"model": model, "device": where.device, "threads": where.threads}
    group = "paddle" if "paddle" in groups else groups[0]
    return Contender(model, EAGER, "dyx.zoo.eager:open_eager", arguments, reference=True, group=group)
