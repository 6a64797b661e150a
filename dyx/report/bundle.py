"""The page of a bundle: what was folded and why so, how far off it is, what it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from dyx.bundle import Bundle, Graph, priced_for
from dyx.census import Census, take_census
from dyx.errors import PackageMissing
from dyx.figures import ParityError, as_svg, parity_errors
from dyx.report.page import NOTHING, Details, Page, Section, Table, facts_table, listed, told
from dyx.tuning import machine_of, tuned_batches

_SITES = "Per image, as priced before measuring: multiply-accumulates, bytes moved, µs; takes: static layers folded too"
_VERDICTS = "Errors against the dynamic network in float64; excess: the largest share that was used of what is allowed"
_NOISE = "What the float32 original itself is off, and what was allowed, per kind of input, as shares of max |y|"
_ROWS_ALONE = "Rows alone: the largest difference between a row of a batch and the same row on its own."


def bundle_report(bundle: Bundle) -> Page:
    """The page of a bundle. Raises PackageMissing."""
    return Page(bundle.model, verdict(bundle), bundle_sections(bundle))


def verdict(bundle: Bundle) -> str:
    """The bundle in a sentence: what was folded, how far off it is, what was allowed."""
    parity, sites = bundle.manifest["parity"], bundle.manifest["plan"]["sites"]
    rules = ", ".join(sorted({site["rule"] for site in sites}))
    layers = f"{len(sites)} layer{'s' * (len(sites) != 1)}"
    folded = f"{layers} folded by {rules}" if sites else "No layer was folded: exported as it stands"
    errors = [entry["relative_error"] for entry in parity["verdicts"]]
    worst = "not finite" if None in errors or not errors else f"{max(errors):.1e} of max |y| at the most"
    return f"{folded}. Parity {'passed' if parity['passed'] else 'missed'}: {worst}; allowed: {parity['applied']}."


def bundle_sections(bundle: Bundle) -> list[Section]:
    """Everything that a bundle's manifest holds, and the operators of its graphs. Raises PackageMissing."""
    manifest = bundle.manifest
    return [
        Section("Notes", text=manifest.get("notes") or []),
        _parity_section(manifest["parity"]),
        Section("What the approximation costs", tables=[_optional(manifest, "approximation")]),
        *_plan_sections(bundle),
        *_tuning_sections(manifest.get("tuning")),
        _layers_section(manifest["parity"].get("layers") or {}),
        _graphs_section(bundle),
        Section("Interface", tables=[facts_table("What goes in, what comes out", _interface(bundle))]),
        Section("Files", tables=[_files_table(bundle)]),
        Section("Versions", tables=[facts_table("What it was made with", manifest["versions"])]),
    ]


def _optional(entries: Mapping[str, Any], key: str) -> Table:
    """Facts that only some bundles have; a table without rows otherwise."""
    facts = entries.get(key) or {}
    return facts_table(key, facts if isinstance(facts, Mapping) else {key: facts})


def _layers_section(errors: Mapping[str, float]) -> Section:
    """A row per layer that both networks have; empty where the manifest tells nothing."""
    rows = [(path, f"{error:.1e}") for path, error in errors.items()]
    table = Table(
        "Largest difference from the dynamic network in float64", ("layer", "of max |y|"), rows, ("of max |y|",)
    )
    return Section("Errors by layer", [_BY_LAYER] if rows else [], tables=[table])


_BY_LAYER = "The static network in eager float32, on two inputs; what stands inside a fold is told by what follows it."


def _parity_section(parity: Mapping[str, Any]) -> Section:
    verdicts = parity["verdicts"]
    errors = [_error(entry, parity["allowed"]) for entry in verdicts]
    text = [f"Allowed: {parity['applied']}. Tolerance asked for: {parity['tolerance']:g}.", _ROWS_ALONE]
    drawing = as_svg(parity_errors(errors, parity["tolerance"]))
    return Section("Parity", text, [drawing], tables=[_verdicts_table(verdicts), _noise_table(parity)])


def _error(entry: Mapping[str, Any], allowed: Mapping[str, float]) -> ParityError:
    """A verdict as it is drawn; what is allowed depends on the kind of input that the error was seen on."""
    return ParityError(
        f"{_runner(entry)}, batch {entry['batch']}",
        entry["relative_error"],
        allowed.get(entry["where"]["kind"]),
        entry["row_drift"],
        entry["passed"],
    )


def _runner(entry: Mapping[str, Any]) -> str:
    """Artifact and backend; said once where they are called the same."""
    artifact, backend = entry["artifact"], entry["backend"]
    return artifact if artifact.split()[0] == backend else f"{artifact} on {backend}"


def _verdicts_table(verdicts: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            _runner(entry),
            told(entry["batch"]),
            *(_small(entry[key]) for key in ("max_abs_error", "relative_error", "excess", "row_drift")),
            f"{1 - entry['cosine']:.1e}",
            f"{100 * entry['top1_agreement']:.1f} %",
            f"{entry['where']['kind']}, row {entry['where']['row']}, class {entry['where']['class']}",
            "passed" if entry["passed"] else "✗ missed",
        )
        for entry in verdicts
    ]
    figures = ("batch", "max abs", "of max |y|", "excess", "row alone", "1 - cosine", "top-1")
    return Table(_VERDICTS, ("artifact", *figures, "where", "verdict"), rows, figures)


def _small(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.2g}"


def _noise_table(parity: Mapping[str, Any]) -> Table:
    rows = [(kind, _small(own), _small(parity["allowed"].get(kind))) for kind, own in parity["noise"].items()]
    return Table(_NOISE, ("kind of input", "float32 original", "allowed"), rows, ("float32 original", "allowed"))


def _plan_sections(bundle: Bundle) -> list[Section]:
    """One per graph, the main one first."""
    sections = [_plan_section("What was folded", bundle.manifest["plan"], _taken(bundle.graphs[-1]))]
    for graph, larger in pairwise(bundle.graphs):
        plan = bundle.of_graph(graph).manifest["plan"]
        sections.append(_plan_section(f"In {graph.stem}.*, for batches below {larger.from_batch}", plan, _taken(graph)))
    return sections


def _taken(graph: Graph) -> list[str]:
    """How a graph takes large batches, in a sentence."""
    return [] if graph.chunk is None else [f"A CPU takes {graph.chunk} images of a larger batch at a time."]


def _tuning_sections(tuning: Mapping[str, Any] | None) -> list[Section]:
    """What was measured to choose the graphs; nothing where prices chose."""
    if not tuning:
        return []
    chosen = [str(each) for each in tuned_batches(tuning)]
    failed = [f"Batch {batch} was not measured: {why}" for batch, why in tuning["failed"].items()]
    tables = [_speeds_table(tuning), _layer_times_table(tuning), _switch_table(tuning)]
    return [Section("Tuning", [f"Measured with {machine_of(tuning)}.", *chosen, *failed], tables=tables)]


def _speeds_table(tuning: Mapping[str, Any]) -> Table:
    rows = [
        (told(int(batch)), name, ", ".join(sorted(set(tuning["candidates"][name].values()))), *_speed_cells(speed))
        for batch, seen in tuning["speeds"].items()
        for name, speed in {**tuning["tried"].get(batch, {}), **seen}.items()
    ]
    return Table(_CANDIDATES, ("batch", "candidate", "rules", *_SPEED), rows, ("batch", *_SPEED))


_SPEED = ("images/s", "ratio", "95 % interval")
_CANDIDATES = "Candidates in turns; ratio: to what prices chose for that batch size"


def _speed_cells(speed: Mapping[str, Any]) -> tuple[str, str, str]:
    interval = NOTHING if speed["low"] is None else f"{speed['low']:.2f} to {speed['high']:.2f}"
    unstable = "" if speed["stable"] else ", not stable"
    return f"{speed['images_per_s']:.0f}", f"{speed['ratio']:.2f}", interval + unstable


def _layer_times_table(tuning: Mapping[str, Any]) -> Table:
    rows = [
        (told(int(batch)), path, rule, f"{seconds * 1e6:.0f}")
        for batch, layers in tuning["layers"].items()
        for path, rules in layers.items()
        for rule, seconds in sorted(rules.items(), key=lambda entry: entry[1])
    ]
    names = ("batch", "layer", "rule", "µs per image")
    return Table("Each layer under each rule, with the static layers around it", names, rows, ("batch", "µs per image"))


def _switch_table(tuning: Mapping[str, Any]) -> Table:
    rows = [
        (f"{name}, at batch", batch, *_speed_cells(speed))
        for name, seen in tuning["crossover"].items()
        for batch, speed in seen.items()
    ]
    rows += [("images at a time", size, *_speed_cells(speed)) for size, speed in tuning["chunks"].items()]
    names = ("what", "value", *_SPEED)
    return Table("Where a graph begins, beside the one before it; and the size of pieces", names, rows, names[1:])


def _plan_section(title: str, plan: Mapping[str, Any], text: list[str]) -> Section:
    sites = plan["sites"]
    if not sites:
        return Section(title, ["No layer: everything is exported as it stands.", *text])
    lossy = [site["path"] for site in sites if site["lossy"]]
    joined = [f"{giver} and {reader}" for giver, reader in plan.get("joined", ())]
    text = [
        f"Batch {plan['batch']}, {priced_for(plan)}.",
        *([f"Only approximated, on request: {', '.join(lossy)}."] if lossy else []),
        *([f"Maps keep their positions first between {'; '.join(joined)}."] if joined else []),
        *(["Maps keep their channels last between layers."] if plan.get("channels_last") else []),
        *text,
    ]
    return Section(title, text, tables=[_sites_table(sites)])


def _sites_table(sites: Sequence[Mapping[str, Any]]) -> Table:
    """A row per layer, and one for all of them."""
    total = ("all", f"{len(sites)}", NOTHING, NOTHING, *_costs(sites), NOTHING, NOTHING)
    rows = [*map(_site_cells, sites), total]
    costs = ("MMAC", "MB", "µs")
    headings = ("layer", "class", "rule", "form", *costs, "takes", "other rules")
    return Table(_SITES, headings, rows, costs, strong=len(sites))


def _site_cells(site: Mapping[str, Any]) -> tuple[str | Details, ...]:
    passed_over = [f"{rule}: {reason}" for rule, reason in site["passed_over"].items()]
    experts = "" if site["experts"] is None else f", K\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{site['experts']}"
    return (
        site["path"],
        f"{site['layer']}{experts}",
        site["rule"],
        site["form"],
        *_costs([site]),
        ", ".join(site["takes"]) or NOTHING,
        Details(f"why not {len(passed_over)} other{'s' * (len(passed_over) != 1)}", passed_over)
        if passed_over
        else NOTHING,
    )


def _costs(sites: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    macs, moved, price = (sum(site[key] for site in sites) for key in ("macs", "bytes", "price_us"))
    return f"{macs / 1e6:,.2f}", f"{moved / 1e6:,.3f}", f"{price:,.1f}"


def _graphs_section(bundle: Bundle) -> Section:
    """The operators of each graph, where they can be counted here."""
    try:
        censuses = take_census(bundle)
    except PackageMissing as missing:
        return Section("Graphs", [f"Operators are not counted here: {missing} ({missing.hint})."])
    return Section("Graphs", tables=[_graphs_table(censuses), *map(_operators_table, censuses)])


def _graphs_table(censuses: Sequence[Census]) -> Table:
    rows = [
        (
            f"{census.file}{f' opset {census.opset}' if census.opset else ''}",
            told(census.parameters),
            NOTHING if census.macs is None else f"{census.macs / 1e6:,.1f}",
            told(sum(census.operators.values())),
            told(census.computed_kernels),
            "free" if census.free_batch else "frozen",
        )
        for census in censuses
    ]
    figures = ("parameters", "MMAC per image", "operators", "computed kernels")
    return Table("The exported graphs", ("graph", *figures, "batch"), rows, figures)


def _operators_table(census: Census) -> Table:
    rows = [(name, told(count)) for name, count in census.to_json()["operators"].items()]
    return Table(f"Operators of {census.file}", ("operator", "how many"), rows, ("how many",))


def _interface(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "input": f"{bundle.input.name}: {bundle.input}",
        "output": f"{bundle.output.name}: {bundle.output}",
        "classes": listed(bundle.labels),
        "preprocess": manifest["preprocess"],
        "temperature": {f"of {kind}": value for kind, value in manifest["temperature"].items()},
        "weights": manifest["weights"],
    }


def _files_table(bundle: Bundle) -> Table:
    rows = [
        (name, f"{bundle.file(name).stat().st_size:,}", digest) for name, digest in bundle.manifest["files"].items()
    ]
    return Table("What the folder holds beside dyx.json", ("file", "bytes", "sha256"), rows, ("bytes",))
