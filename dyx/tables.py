"""Results as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dyx.bundle import Bundle, priced_for
from dyx.census import Census
from dyx.checks import CheckReport
from dyx.evaluation import Evaluation
from dyx.parity import Verdict
from dyx.runtime.runner import Score
from dyx.tuning import machine_of, tuned_batches
from dyx.zoo import Model

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def models_table(models: Iterable[Model]) -> Table:
    """One row per reference model."""
    rows = (
        (row.name, row.layers, f"{row.parameters / 1e6:.2f}M", str(row.shape[-1]), row.baseline or "–")
        for row in models
    )
    table = _table(("name", "layers", "params", "side", "baseline"), rows, right=("params", "side"))
    table.columns[0].no_wrap = True
    table.caption = "side: of the square input, in pixels; --json: papers and published accuracy too"
    return table


def plan_table(plan: Mapping[str, Any]) -> RenderableType:
    """One block per site: what was chosen, what it costs, and why each other rule was passed over."""
    if not plan["sites"]:
        return "no dynamic layer: nothing to fold"
    table = _table(("site", "rule", "takes", "MMAC", "MB", "µs"), (), right=("MMAC", "MB", "µs"))
    for site in plan["sites"]:
        costs = (f"{site['macs'] / 1e6:.1f}", f"{site['bytes'] / 1e6:.2f}", f"{site['price_us']:.0f}")
        table.add_row(
            f"{site['path']}\n[dim]{site['layer']}{_experts(site)}[/]",
            _chosen(site),
            "\n".join(site["takes"]) or "–",
            *costs,
        )
        table.add_section()
    units = "MMAC, MB and µs per image, as priced before measuring; takes: static layers folded too"
    table.caption = f"batch {plan['batch']}, {priced_for(plan)}; {units}"
    return table


def _experts(site: Mapping[str, Any]) -> str:
    return "" if site["experts"] is None else f", K={site['experts']}"


def _chosen(site: Mapping[str, Any]) -> str:
    passed_over = [f"[dim]– {rule}: {why}[/]" for rule, why in site["passed_over"].items()]
    return "\n".join([f"[bold]{site['rule']}[/]", f"[dim]{site['form']}[/]", *passed_over])


def verdicts_table(verdicts: Iterable[Verdict]) -> Table:
    """One row per backend, graph and batch size."""
    rows = (
        (
            *(_runner(v), str(v.batch), f"{v.max_abs_error:.1e}", f"{v.relative_error:.1e}"),
            *("–" if v.row_drift is None else f"{v.row_drift:.1e}", f"{100 * v.top1_agreement:.1f} %"),
            f"{v.where['kind']} {v.where['row']}",
            "[green]pass[/]" if v.passed else "[bold red]MISS[/]",
        )
        for v in verdicts
    )
    names = ("backend", "batch", "max abs", "of max |y|", "row alone", "top-1", "where", "")
    return _table(names, rows, right=names[1:6])


def _runner(verdict: Verdict) -> str:
    """The backend, which tells the format, and the graph where it is not the main one."""
    return " ".join([verdict.backend, *verdict.artifact.split()[1:]])


def export_summary(bundle: Bundle) -> list[str]:
    """What an export made, in a few lines."""
    verdicts = [Verdict(**entry) for entry in bundle.manifest["parity"]["verdicts"]]
    worst = max(verdict.relative_error for verdict in verdicts)
    batches = ", ".join(str(batch) for batch in sorted({verdict.batch for verdict in verdicts}))
    rules = _rules(bundle)
    return [
        f"[bold]{escape(bundle.path)}[/]  {' + '.join(bundle.formats)}, input {escape(bundle.input)}",
        f"folded by {', '.join(rules)}" if rules else "no dynamic layer: exported as it stands",
        *_for_smaller_batches(bundle),
        *_tuned(bundle),
        f"parity with the dynamic network in float64: {worst:.1e} of max |y| at batches {batches}"
        f" (allowed: {bundle.manifest['parity']['applied']})",
    ]


def _for_smaller_batches(bundle: Bundle) -> list[str]:
    """What answers smaller batches, where those are graphs of their own."""
    return [
        f"batches below {larger.from_batch}: {graph.stem}.*, {f'folded by {rules}' if rules else 'as it stands'}"
        for graph, larger in pairwise(bundle.graphs)
        for rules in [", ".join(_rules(bundle.of_graph(graph)))]
    ]


def _rules(bundle: Bundle) -> list[str]:
    """The rules that fold its graph."""
    return sorted({site["rule"] for site in bundle.manifest["plan"]["sites"]})


def _by_graph(bundle: Bundle) -> str:
    """Which graph answers which batches, and in what pieces a CPU takes large ones."""
    if bundle.input.frozen_batch is not None:
        return f"{bundle.input.frozen_batch} alone"
    below = [f"{graph.stem}.* below {larger.from_batch}" for graph, larger in pairwise(bundle.graphs)]
    main = bundle.graphs[-1]
    rest = f"{main.stem}.* from {main.from_batch} on"
    pieces = f", {main.chunk} at a time on a CPU" if main.chunk else ""
    return ", ".join([*below, rest]) + pieces


def _tuned(bundle: Bundle) -> list[str]:
    """What a tuning measured of the graphs that it chose."""
    tuning = bundle.manifest.get("tuning")
    if not tuning:
        return []
    chunk = tuning["chosen"][-1]["chunk"]
    pieces = [f"  larger batches in pieces of {chunk}"] if chunk else []
    failed = [f"  batch {batch} was not measured: {escape(why)}" for batch, why in tuning["failed"].items()]
    batches = [f"  {escape(each)}" for each in tuned_batches(tuning)]
    return [f"tuned with {escape(machine_of(tuning))}", *batches, *pieces, *failed]


def check_summary(report: CheckReport) -> list[str]:
    """The parts of a check that are no table."""
    lines = [f"hashes: {len(report.bundle.manifest['files'])} files as written"]
    lines += [f"[bold red]census:[/] {escape(fault)}" for fault in report.faults] or ["census: every promise kept"]
    lines += [f"[dim]{backend}: {why}[/]" for backend, why in report.skipped.items()]
    return lines


def bundle_tables(bundle: Bundle, censuses: Sequence[Census]) -> list[RenderableType]:
    """Everything that `dyx inspect` shows."""
    return [_facts(bundle), plan_table(bundle.manifest["plan"]), _graphs(censuses), _files(bundle)]


def _facts(bundle: Bundle) -> Table:
    manifest, weights = bundle.manifest, bundle.manifest["weights"]
    source = weights if isinstance(weights, str) else f"{weights['file']} (sha256 {weights['sha256'][:12]}…)"
    labels = bundle.labels
    shown = ", ".join(labels[:10]) + (f" … ({len(labels)})" if len(labels) > 10 else "")
    versions = ", ".join(f"{name} {number}" for name, number in manifest["versions"].items())
    rows = [
        ("model", escape(bundle.model)),
        ("input", f"{bundle.input.name}: {escape(bundle.input)}"),
        ("output", f"{bundle.output.name}: {escape(bundle.output)}"),
        ("weights", escape(source)),
        ("temperature", ", ".join(f"{kind} {value:g}" for kind, value in manifest["temperature"].items()) or "–"),
        ("preprocess", escape(", ".join(f"{key} {value}" for key, value in manifest["preprocess"].items()))),
        ("labels", escape(shown)),
        (
            "parity",
            f"{'passed' if manifest['parity']['passed'] else 'missed'}; allowed: {manifest['parity']['applied']}",
        ),
        ("made with", versions),
        ("batches", _by_graph(bundle)),
        *(("note", escape(note)) for note in manifest.get("notes", ())),
        *(("tuned", line.strip().removeprefix("tuned ")) for line in _tuned(bundle)),
    ]
    table = _table(("", ""), rows)
    table.show_header = False
    return table


def _graphs(censuses: Sequence[Census]) -> Table:
    rows = [
        (
            f"{census.file}{f' opset {census.opset}' if census.opset else ''}",
            "–" if census.parameters is None else f"{census.parameters:,}",
            "–" if census.macs is None else f"{census.macs / 1e6:.1f}",
            ", ".join(f"{name} {count}" for name, count in census.to_json()["operators"].items()),
        )
        for census in censuses
    ]
    return _table(("graph", "parameters", "MMAC/image", "operators"), rows, right=("parameters", "MMAC/image"))


def _files(bundle: Bundle) -> Table:
    rows = [
        (name, f"{bundle.file(name).stat().st_size / 1e6:.2f}", digest[:16] + "…")
        for name, digest in bundle.manifest["files"].items()
    ]
    return _table(("file", "MB", "sha256"), rows, right=("MB",))


def run_table(record: Mapping[str, Any]) -> Table:
    """One row for a training run, as the articles' tables have it."""
    best, forms = record["best"], record["forms"].values()
    row = (
        escape(record["model"].rpartition(":")[2]),
        f"{record['parameters']:,}",
        f"{best['held_out_accuracy']:.2%} (epoch {best['epoch']})",
        f"{max(epoch['accuracy'] for epoch in record['history']):.2%}",
        f"{record['history'][-1]['images_per_s']:.0f}",
        f"{record['held_out_images_per_s']:.0f}",
    )
    names = ("network", "parameters", "held out", "train", "images/s training", "answering")
    table = _table(names, [row], right=names[1:])
    table.caption = "; ".join(_form(form) for form in forms) or None
    return table


def _form(form: Mapping[str, Any]) -> str:
    ratio = "" if form["ratio"] is None else f" ({form['ratio']:.2f} × as fast as grouped)"
    return f"trained as {form['chosen']}{ratio}"


def evaluation_tables(found: Evaluation, words: str) -> list[RenderableType]:
    """Accuracy in a line, a row per class, and the confusion matrix where it fits a terminal."""
    parts: list[RenderableType] = [
        f"[bold]{escape(found.name)}[/] on {found.backend}: [bold]{found.correct} of {len(found.classes)}[/]"
        f" {words} right ({found.accuracy:.2%}), loss {found.loss:.4f},"
        f" {found.images_per_s:.0f} images/s ({found.prepare_s:.1f} s preparing, {found.infer_s:.1f} s answering)"
    ]
    names = ("class", "images", "recall", "precision", "most often taken for")
    rows = (
        (
            *(escape(row["label"]), str(row["images"])),
            *(_share(row["recall"]), _share(row["precision"])),
            escape(row["mistaken_for"] or "–"),
        )
        for row in found.per_class()
    )
    parts.append(_table(names, rows, right=names[1:4]))
    if len(found.labels) <= _MOST_CONFUSED:
        parts.append(_confusion(found))
    return parts


_MOST_CONFUSED = 12
"""A confusion matrix of more classes does not fit a terminal; --plot draws it, --json holds it."""


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _confusion(found: Evaluation) -> Table:
    labels = [escape(label[:_MOST_LETTERS]) for label in found.labels]
    rows = (
        (f"[bold]{label}[/]", *(str(count) if count else "[dim]·[/]" for count in counts))
        for label, counts in zip(labels, found.confusion.tolist(), strict=True)
    )
    table = _table(("truth", *labels), rows, right=labels)
    table.caption = "a row per true class, a column per answer"
    return table


_MOST_LETTERS = 5


def predictions_table(files: Sequence[str], predictions: Sequence[Sequence[Score]]) -> Table:
    """One row per picture: its best classes."""
    rows = (
        (escape(file), "  ".join(_score(score, best=place == 0) for place, score in enumerate(top)))
        for file, top in zip(files, predictions, strict=True)
    )
    return _table(("picture", "classes"), rows)


def _score(score: Score, *, best: bool) -> str:
    return f"[{'bold' if best else 'dim'}]{escape(score.label)} {score.score:.3f}[/]"


def escape(value: object) -> str:
    """Text as it is: rich would take `[batch, 3]` for markup."""
    from rich.markup import escape as escaped

    return escaped(str(value))


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, caption_justify="left", collapse_padding=True, pad_edge=False)
    for name in names:
        # Too narrow a terminal folds words, never figures.
        table.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=name in right)
    for row in rows:
        table.add_row(*row)
    return table
