"""The page of a bundle holds what its manifest says: rules, reasons, prices, errors, hashes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dyx.bundle import Bundle, read_bundle
from dyx.census import take_census
from dyx.report.bundle import bundle_report, bundle_sections, verdict
from dyx.report.page import NOTHING, render
from dyx.tuning import machine_of, tuned_batches

NASTY = "<b>&\"'</script>"


@pytest.fixture
def bundle(dy_bundle: Path) -> Bundle:
    return read_bundle(dy_bundle)


def with_changes(bundle: Bundle, **changes: Any) -> Bundle:
    return replace(bundle, manifest={**bundle.manifest, **changes})


def page(bundle: Bundle) -> str:
    return render(bundle_report(bundle))


def row_of(seen: Any, name: str, length: int) -> list[str]:
    """The cells of the row that begins with a name."""
    place = seen.cells.index(name)
    return list(seen.cells[place : place + length])


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("kept", [True, False])
def test_how_maps_lie_between_layers_is_told(bundle: Bundle, kept: bool) -> None:
    assert bundle.manifest["plan"]["channels_last"] is False
    changed = with_changes(bundle, plan={**bundle.manifest["plan"], "channels_last": kept})
    assert ("Maps keep their channels last between layers." in page(changed)) == kept


def test_every_layer_has_its_rule_form_costs_and_neighbours(bundle: Bundle, read_whole: Any) -> None:
    seen = read_whole(page(bundle))
    sites = bundle.manifest["plan"]["sites"]
    assert len(sites) == 3
    for site in sites:
        row = row_of(seen, site["path"], 8)
        assert row[1].replace("\N{NO-BREAK SPACE}", " ") == f"{site['layer']}, K = {site['experts']}"
        assert row[2:4] == [site["rule"], site["form"]]
        assert [float(cell.replace(",", "")) for cell in row[4:7]] == [
            pytest.approx(site["macs"] / 1e6, abs=0.005),
            pytest.approx(site["bytes"] / 1e6, abs=0.0005),
            pytest.approx(site["price_us"], abs=0.05),
        ]
        assert row[7] == ", ".join(site["takes"])
    total = row_of(seen, "all", 7)
    assert total[4] == f"{sum(site['macs'] for site in sites) / 1e6:,.2f}"
    assert total[6] == f"{sum(site['price_us'] for site in sites):,.1f}"


def test_every_reason_stands_behind_a_few_words(bundle: Bundle, read_whole: Any) -> None:
    seen = read_whole(page(bundle))
    sites = bundle.manifest["plan"]["sites"]
    for site in sites:
        assert len(site["passed_over"]) == 6
        for rule, reason in site["passed_over"].items():
            assert f"{rule}: {reason}" in seen.words
    assert seen.count("details") == seen.count("summary") == len(sites)
    assert seen.words.count("why not 6 others") == len(sites)


def test_parity_has_every_verdict_and_every_kind_of_input(bundle: Bundle, read_whole: Any) -> None:
    seen = read_whole(page(bundle))
    parity = bundle.manifest["parity"]
    rows = [seen.cells[place : place + 10] for place, cell in enumerate(seen.cells) if cell == "onnx on onnxruntime"]
    verdicts = [entry for entry in parity["verdicts"] if entry["artifact"] == "onnx"]
    assert len(rows) == len(verdicts) >= 4
    for row, entry in zip(rows, verdicts, strict=True):
        keys = ("max_abs_error", "relative_error", "excess", "row_drift")
        assert row[1:6] == [f"{entry['batch']:,}", *(f"{entry[key]:.2g}" for key in keys)]
        assert float(row[6]) == pytest.approx(1 - entry["cosine"], rel=0.1)
        assert row[7] == f"{100 * entry['top1_agreement']:.1f} %"
        assert row[8] == "{kind}, row {row}, class {class}".format(**entry["where"])
        assert row[9] == "passed"
        assert f"onnx on onnxruntime, batch {entry['batch']}" in seen.words  # in the figure
        assert f"{entry['relative_error']:.1e}" in seen.words
    for kind, own in parity["noise"].items():
        assert row_of(seen, kind, 3) == [kind, f"{own:.2g}", f"{parity['allowed'][kind]:.2g}"]
    assert f"Allowed: {parity['applied']}. Tolerance asked for: 2e-05." in seen.words


def test_a_miss_stands_out(bundle: Bundle, read_whole: Any) -> None:
    parity = bundle.manifest["parity"]
    first, second, *others = parity["verdicts"]
    nowhere = {"where": {**second["where"], "kind": ""}, "relative_error": None, "max_abs_error": None, "excess": None}
    spoiled = [{**first, "passed": False, "relative_error": 0.5}, {**second, "passed": False, **nowhere}]
    missed = with_changes(bundle, parity={**parity, "passed": False, "verdicts": [*spoiled, *others]})
    seen = read_whole(page(missed))
    assert seen.cells.count("✗ missed") == 2
    assert {"5.0e-01", "not finite"} <= set(seen.words)
    named = [word for word in seen.words if word.startswith(f"✗ {first['artifact']}")]
    assert [word.rpartition(" ")[2] for word in named] == ["1", "2"]  # in the figure
    assert "Parity missed: not finite" in verdict(missed)


def test_files_have_sizes_and_hashes(bundle: Bundle, read_whole: Any) -> None:
    seen = read_whole(page(bundle))
    assert len(bundle.manifest["files"]) == 4
    for name, digest in bundle.manifest["files"].items():
        size = f"{bundle.file(name).stat().st_size:,}"
        assert [name, size, digest] in [list(seen.cells[at : at + 3]) for at in range(len(seen.cells))]


def test_interface_versions_and_notes_are_there(bundle: Bundle, read_whole: Any) -> None:
    seen = read_whole(page(bundle))
    assert row_of(seen, "input", 2)[1] == "image: float32 [batch, 3, 128, 128]"
    assert row_of(seen, "output", 2)[1] == "logits: float32 [batch, 10]"
    assert row_of(seen, "classes", 2)[1] == f"10: {', '.join(bundle.labels)}"
    assert row_of(seen, "preprocess mean", 2)[1] == "0.5, 0.5, 0.5"
    assert row_of(seen, "temperature of dyconv", 2)[1] == "1"
    assert row_of(seen, "weights", 2)[1] == "untrained"
    for package, number in bundle.manifest["versions"].items():
        assert row_of(seen, package, 2) == [package, number]
    assert set(bundle.manifest["notes"]) <= set(seen.words)
    text = "\n".join(seen.words)
    for told in strings({**bundle.manifest, "labels": None}):
        assert told in text or told in {"image", "logits", "float32", "batch", "dynamic"}, told


def test_lead_says_what_was_folded_and_how_far_off_it_is(bundle: Bundle) -> None:
    worst = max(entry["relative_error"] for entry in bundle.manifest["parity"]["verdicts"])
    assert verdict(bundle) == (
        f"3 layers folded by dyconv/mix-outputs. Parity passed: {worst:.1e} of max |y| at the most;"
        " allowed: 2e-05 of max |y|."
    )


def test_operators_of_each_graph_are_counted(bundle: Bundle, read_whole: Any) -> None:
    seen = read_whole(page(bundle))
    for census in take_census(bundle):
        for name, count in census.operators.items():
            assert [name, f"{count:,}"] in [seen.cells[at : at + 2] for at in range(len(seen.cells))]
        assert f"{census.parameters:,}" in seen.cells
    assert "model.onnx opset 17" in seen.cells


def test_without_onnx_the_census_is_left_out_and_that_is_said(
    bundle: Bundle, read_whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    seen = read_whole(page(bundle))
    assert "Operators are not counted here: onnx is not installed (pip install 'dyx[onnx]' brings it)." in seen.words
    assert "operator" not in seen.cells


def test_a_plain_network_had_nothing_to_fold(bundles: Path, read_whole: Any) -> None:
    plain = read_bundle(bundles / "alexnet-bn")
    seen = read_whole(page(plain))
    assert "No layer: everything is exported as it stands." in seen.words
    assert not seen.count("details")
    assert verdict(plain).startswith("No layer was folded: exported as it stands.")


def test_what_only_some_bundles_have_is_shown_where_it_is(bundle: Bundle, read_whole: Any) -> None:
    bare = with_changes(bundle, parity={**bundle.manifest["parity"], "layers": {}})
    always = {section.title for section in bundle_sections(bare) if section.holds_something}
    assert not {"What the approximation costs", "Errors by layer"} & always
    layers = {"features.8": 1.25e-7}
    parity = {**bundle.manifest["parity"], "layers": layers}
    more = with_changes(bundle, approximation={"top1_agreement": 0.875}, parity=parity)
    seen = read_whole(page(more))
    assert row_of(seen, "top1 agreement", 2)[1] == "0.875"
    assert {"features.8", "1.2e-07"} <= set(seen.cells)


def test_a_rule_that_approximates_is_named(bundle: Bundle, read_whole: Any) -> None:
    plan = bundle.manifest["plan"]
    first, *others = plan["sites"]
    lossy = with_changes(
        bundle, plan={**plan, "sites": [{**first, "lossy": True, "passed_over": {}, "takes": []}, *others]}
    )
    seen = read_whole(page(lossy))
    assert "Only approximated, on request: features.8." in seen.words
    assert row_of(seen, "features.8", 9)[7:] == [NOTHING, NOTHING]


def test_words_of_a_manifest_are_never_markup(bundle: Bundle, read_whole: Any) -> None:
    plan = bundle.manifest["plan"]
    site = {**plan["sites"][0], "path": NASTY, "form": NASTY, "passed_over": {NASTY: NASTY}}
    odd = with_changes(
        bundle, model=NASTY, notes=[NASTY], labels=[NASTY] * 10, plan={**plan, "sites": [site]}, versions={NASTY: NASTY}
    )
    html = page(odd)
    seen = read_whole(html)
    assert "<b>" not in html
    assert not seen.count("b")
    assert f"{NASTY}: {NASTY}" in seen.words
    assert seen.words.count(NASTY) >= 5


def test_a_tuned_bundle_tells_every_candidate_and_every_layer(tuned_bundle: Bundle, read_whole: Any) -> None:
    seen, tuning = read_whole(page(tuned_bundle)), tuned_bundle.manifest["tuning"]
    rows = [list(seen.cells[place : place + 5]) for place in range(len(seen.cells))]
    for batch, speeds in tuning["speeds"].items():
        for name, speed in speeds.items():
            rules = ", ".join(sorted(set(tuning["candidates"][name].values())))
            assert [batch, name, rules, f"{speed['images_per_s']:.0f}", f"{speed['ratio']:.2f}"] in rows
    for rule, seconds in tuning["layers"]["64"]["features.2"].items():
        assert ["64", "features.2", rule, f"{seconds * 1e6:.0f}"] in [row[:4] for row in rows]
    for each in tuned_batches(tuning):
        assert str(each) in " ".join(seen.words)
    assert machine_of(tuning) in " ".join(seen.words)


def test_a_bundle_that_was_not_tuned_has_no_such_section(bundle: Bundle, read_whole: Any) -> None:
    assert "Tuning" not in read_whole(page(bundle)).words


def test_a_batch_that_was_not_measured_is_told(tuned_bundle: Bundle, read_whole: Any) -> None:
    tuning = {**tuned_bundle.manifest["tuning"], "failed": {"512": "ended by SIGKILL"}}
    seen = read_whole(page(with_changes(tuned_bundle, tuning=tuning)))
    assert "Batch 512 was not measured: ended by SIGKILL" in seen.words
