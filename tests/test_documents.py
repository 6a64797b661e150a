"""What the README and the other documents promise is true."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *ROOT.glob("docs/**/*.md"))]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()


def code_blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), flags=re.DOTALL)


def test_the_two_commands_stand_first_and_exist() -> None:
    first = re.search(r"```\n(.*?)```", README, flags=re.DOTALL)
    assert first is not None
    assert first.group(1).split("\n")[:2] == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "check", "clean"):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        if not link.startswith("https://"):
            assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_exist_with_their_options(path: Path) -> None:
    """Every `dyx …` line names a command that is there and options that it takes."""
    from typer.main import get_command

    from dyx.cli import app

    commands: Any = get_command(app).commands  # type: ignore[attr-defined]
    typed = "\n".join(re.findall(r"^```\w*\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE))
    for line in re.findall(r"^dyx (.+)$", typed, flags=re.MULTILINE):
        words = line.split()
        name = next(word for word in words if not word.startswith("--"))
        options = {option for parameter in commands[name].params for option in parameter.opts}
        used = {word for word in words[words.index(name) :] if word.startswith("--")}
        assert used <= options, line


def test_python_of_the_readme_runs(tmp_path: Path) -> None:
    for block in code_blocks(ROOT / "README.md", "python"):
        subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True, capture_output=True)


def test_example_of_a_network_of_ones_own_exports(tmp_path: Path, run_dyx: Any) -> None:
    how_to = ROOT / "docs" / "how-to" / "export-your-own-network.md"
    (source,) = [block for block in code_blocks(how_to, "python") if "class Small" in block]
    (tmp_path / "my_network.py").write_text(source)
    out = tmp_path / "bundle"
    ran = run_dyx(
        "export", f"{tmp_path / 'my_network.py'}:Small", "--shape", "3,32,32", "--out", out, "--tune-batch", 2
    )
    assert ran.code == 0, ran.err
    assert "folding 1 × MixedConv" in ran.err


def test_extras_of_the_readme_are_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(re.findall(r"`dyx\[(\w+)\]`", README)) == set(project["optional-dependencies"]) - {"dev"}


@pytest.mark.parametrize(
    ("name", "ratios"), [("README.md", 33 + 12 + 39), ("docs/speed.md", 24 + 4 + 2 + 41 + 24 + 16 + 10 + 6 + 12 + 1)]
)
def test_tables_of_speed_are_what_their_script_writes(name: str, ratios: int) -> None:
    told = f"from readme_tables import ROOT, page; print(page(ROOT / {name!r}), end='')"
    command = [sys.executable, "-c", told]
    written = subprocess.run(command, cwd=ROOT / "benchmarks", capture_output=True, text=True, check=True).stdout
    assert written == (ROOT / name).read_text()
    assert len(re.findall(r"\d\.\d\d \[\d\.\d\d, \d\.\d\d\]", written)) == ratios


def test_table_of_trained_networks_is_what_its_script_writes() -> None:
    command = [sys.executable, "-c", "from training import page; print(page(), end='')"]
    written = subprocess.run(command, cwd=ROOT / "benchmarks", capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs" / "how-to" / "train.md").read_text() == written


def test_rules_of_the_readme_are_all_that_there_are() -> None:
    from dyx.exporter.rules import RULES

    named = set(re.findall(r"`([a-z]+/[a-z-]+)`", README))
    assert named == {rule.id for rule in RULES if not rule.id.endswith("/mean-attention")}


def test_page_of_models_is_what_its_script_writes() -> None:
    """The page comes from the table of models and the record; neither can drift from it."""
    command = [sys.executable, "-c", "from models_page import page; print(page(), end='')"]
    written = subprocess.run(command, cwd=ROOT / "benchmarks", capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs" / "models.md").read_text() == written


@pytest.mark.skipif(not TRACKED, reason="not a git checkout")
def test_no_registry_address_and_no_absolute_path_is_committed() -> None:
    strange = re.compile(r"(--|extra-)index-url|find-links|(^|[\s\"'=(])/(home|root|tmp|Users|work)/\w")
    for name in TRACKED:
        path = ROOT / name
        if path.suffix in (".npz", ".png", ".pth") or path == Path(__file__) or not path.is_file():
            continue
        found = [line for line in path.read_text().splitlines() if strange.search(line)]
        assert not found, (name, found[:3])


def test_data_of_the_tests_stays_small() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "tests" / "data").rglob("*") if path.is_file()) < 3e6
