"""Who takes part in `dyx bench`: bundles, their baseline, the eager network; made first where they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from dyx.bench import Comparison, Contender, Match, Plan, Skipped, bundle_contender, sweep
from dyx.bench import Progress as BenchProgress
from dyx.bench.contender import OPEN_BUNDLE
from dyx.bundle import MANIFEST, Bundle, read_bundle
from dyx.census import onnx_census
from dyx.errors import InvalidOption, PackageMissing, UnknownName, UnlikeTasks
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
        UnlikeTasks: Bundles, or a named baseline, that take other pictures or tell other numbers of classes.
        PackageMissing: A named backend that is not installed, or Paddle where something has to be exported first.
        BundleError: A bundle that cannot be used.
    """
    for backend in where.backends:
        require_backend(backend)
    bundles = [read_bundle(path) for path in paths] or [_zoo_bundle(DEFAULT, BUNDLES, tell)]
    if len({_task(bundle) for bundle in bundles}) > 1:
        raise _unlike(bundles)
    base, passed_over = _fitting(
        _baseline(bundles[0], baseline, tell), bundles[0], where, is_named=baseline is not None
    )
    if base is not None:
        # Named among the others it takes part once; alone, it is compared with itself.
        others = [bundle for bundle in bundles if bundle.path.resolve() != base.path.resolve()]
        bundles = others or bundles[:1]
    sides = [(bundle, False) for bundle in bundles] + ([(base, True)] if base else [])
    found = [_contender(bundle, backend, where, is_base) for backend in _backends(where) for bundle, is_base in sides]
    found += [_eager(bundle, where, found) for bundle in {bundle.model: bundle for bundle in bundles}.values()]
    found += passed_over
    return Lineup(
        tuple(one for one in found if isinstance(one, Contender)),
        tuple(dict.fromkeys(one for one in found if isinstance(one, Skipped))),
    )


FROZEN = "frozen"
_OWN = "own defaults"


def peers(lineup: Lineup, where: Where, batch: int, tell: Progress) -> Lineup:
    """The same with what else the machine and its users have: see `dyx bench --peers`.

    Beside every network on a backend stands the same with the backend's own defaults; beside every dynamic network of
    the zoo the batch-frozen export that one gets without dyx; in every group a matrix product as the machine's limit.

    Args:
        lineup: As `line_up` gave it.
        where: Device and threads.
        batch: Images per call.
        tell: Hears of every export that is made on the way.
    """
    members = [replace(one, macs=_macs(one, batch)) if one.opener == OPEN_BUNDLE else one for one in lineup.contenders]
    bundles = [one for one in members if one.opener == OPEN_BUNDLE]
    found: list[Contender | Skipped] = [*members]
    for one in bundles:
        if not one.baseline:
            found += [_with_defaults(one), _frozen(one, where, batch, tell)]
    groups = dict.fromkeys(one.group for one in bundles)
    found += [_limit(group, [one for one in bundles if one.group == group], where) for group in groups]
    return Lineup(
        tuple(one for one in found if isinstance(one, Contender)),
        (*lineup.skipped, *dict.fromkeys(one for one in found if isinstance(one, Skipped))),
    )


def _macs(contender: Contender, batch: int) -> int | None:
    """Of the ONNX graph that takes such a batch; None where there is none, or nothing that could count."""
    bundle = read_bundle(contender.arguments["bundle"], verify=False)
    if "onnx" not in bundle.formats or find_spec("onnx") is None:
        return None
    return onnx_census(bundle.of_graph(bundle.graph_for(batch))).macs


def _with_defaults(contender: Contender) -> Contender:
    arguments = {**contender.arguments, "tuned": False}
    return replace(contender, name=f"{contender.name} ({_OWN})", arguments=arguments)


def _frozen(contender: Contender, where: Where, batch: int, tell: Progress) -> Contender | Skipped:
    """The batch-frozen export of a zoo network, made where it is not there yet."""
    folded, backend = read_bundle(contender.arguments["bundle"], verify=False), contender.backend
    name, title = folded.model, f"{folded.model} ({FROZEN})"
    if name not in BUILDERS.names or not find_model(name).baseline:
        return Skipped(title, backend, "only the zoo's dynamic networks are exported without folds")
    if not is_installed("paddle"):
        return Skipped(title, backend, _absent("paddlepaddle", "paddle"))
    from dyx.exporter.frozen import export_frozen

    beside = Path(contender.arguments["bundle"]).parent
    out = beside / f"{name}-{FROZEN}-{batch}"
    bundle = export_frozen(name, batch, out, progress=tell, shape=folded.input.shape[1:])
    if _task(bundle) != _task(folded):
        return Skipped(title, backend, f"{out} is of another task ({_task(bundle)})")
    return bundle_contender(bundle, backend, device=where.device, threads=where.threads, name=title)


def _limit(group: str, members: Sequence[Contender], where: Where) -> Contender | Skipped:
    macs = next((one.macs for one in members if one.macs), None)
    if macs is None or not is_installed("onnxruntime") or where.device == "gpu":
        return Skipped("matmul limit", group, "it takes onnxruntime and onnx, and the arithmetic of an ONNX file")
    arguments = {"macs": macs, "threads": where.threads}
    return Contender("matmul limit", group, "dyx.bench.limit:open_limit", arguments, group=group, macs=macs, limit=True)


def measure(  # noqa: PLR0913 - a benchmark is many things
    paths: Sequence[Path],
    baseline: str | None,
    places: Sequence[Where],
    plan: Plan,
    tell: Progress,
    progress: BenchProgress | None = None,
    *,
    with_peers: bool = False,
) -> tuple[Comparison, ...]:
    """Line up at every place (one per number of threads, say) and measure what the plan says.

    Raises what `line_up` and `dyx.bench.sweep` raise.
    """
    wanted = []
    for where in places:
        lineup = line_up(paths, baseline, where, tell)
        for batch in plan.batches:
            check_batch(lineup.contenders, batch)
            full = peers(lineup, where, batch, tell) if with_peers else lineup
            wanted.append(Match(full.contenders, full.skipped, batch))
    return sweep(wanted, plan, progress)


def check_batch(contenders: Sequence[Contender], batch: int, *, filled_up: bool = False) -> None:
    """Raises InvalidOption where a bundle is frozen to another batch.

    Args:
        contenders: Who is to answer.
        batch: How many images at a time.
        filled_up: Whether fewer than a frozen batch are filled up to it, as a Runner's `answer` does.
    """
    for one in contenders:
        if one.opener == OPEN_BUNDLE:
            path = one.arguments["bundle"]
            size = read_bundle(path, verify=False).input.frozen_batch
            if size is not None and batch != size and not (filled_up and batch < size):
                raise InvalidOption("--batch", batch, f"the one that {path} is frozen to, {size}")


def _task(bundle: Bundle) -> str:
    """What a network takes and tells, whatever the batch."""
    return f"{' × '.join(map(str, bundle.input.shape[1:]))} in, {bundle.output.shape[-1]} classes out"


def _fitting(
    base: Bundle | None, bundle: Bundle, where: Where, *, is_named: bool
) -> tuple[Bundle | None, list[Skipped]]:
    """The baseline, if it is of the bundle's task; one that nobody named is passed over where it is not."""
    if base is None or _task(base) == _task(bundle):
        return base, []
    if is_named:
        raise _unlike([bundle, base])
    reason = f"{base.path} is of another task ({_task(base)}) than {bundle.path} ({_task(bundle)}): give --baseline"
    return None, [Skipped(base.model, backend, reason) for backend in _backends(where)]


def _unlike(bundles: Sequence[Bundle]) -> UnlikeTasks:
    return UnlikeTasks({str(bundle.path): _task(bundle) for bundle in bundles})


def _backends(where: Where) -> Sequence[str]:
    return tuple(dict.fromkeys(where.backends)) or BACKENDS.names


def _baseline(bundle: Bundle, named: str | None, tell: Progress) -> Bundle | None:
    if named is None:
        name = find_model(bundle.model).baseline if bundle.model in BUILDERS.names else None
        return _zoo_bundle(name, bundle.path.parent, tell, plain=True) if name else None
    if named in BUILDERS.names and not (Path(named) / MANIFEST).is_file():
        return _zoo_bundle(named, bundle.path.parent, tell, plain=True)
    if not Path(named).exists():
        raise UnknownName("bundle or model", named, BUILDERS.names)
    return read_bundle(named)


def _zoo_bundle(name: str, beside: Path, tell: Progress, *, plain: bool = False) -> Bundle:
    """The bundle of a zoo model: beside the first one, or in bundles/, exported there if it is in neither place.

    Plain is what one gets without dyx: a baseline whose own convolutions were rewritten would be none.
    """
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
    settings = {"fold": ("conv/direct",), "one_graph": True} if plain else {}
    return export(name, out=folder, progress=tell, **settings)


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


def _eager(bundle: Bundle, where: Where, others: Sequence[Contender | Skipped]) -> Contender | Skipped:
    """The same network in eager mode, taking turns with the backend that is nearest to it."""
    model = bundle.model
    if model not in BUILDERS.names:
        return Skipped(model, EAGER, "only the zoo's networks are run in eager mode")
    if not is_installed("paddle"):
        return Skipped(model, EAGER, _absent("paddlepaddle", "paddle"))
    groups = [one.group for one in others if isinstance(one, Contender)]
    if not groups:
        return Skipped(model, EAGER, "there is nothing to compare it with")
    task = {"shape": list(bundle.input.shape[1:]), "classes": bundle.output.shape[-1]}
    arguments = {"model": model, "device": where.device, "threads": where.threads, **task}
    group = "paddle" if "paddle" in groups else groups[0]
    return Contender(model, EAGER, "dyx.zoo.eager:open_eager", arguments, reference=True, group=group)
