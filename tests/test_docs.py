"""The documentation is true: its examples run, its links resolve, and every command, option and recipe is in it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from unittest.mock import patch

import pytest
import typer.main

import palate
from palate.cli import app, main
from palate.models import RECIPES

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
SLOW = re.compile("palate compare .*(--recipes bpr|--windows)")
QUICKSTART = "$ palate quickstart examples/data/clicks.csv --items examples/data/items.csv"


def blocks(page: Path, kind: str) -> list[str]:
    return [found["text"] for found in BLOCK.finditer(page.read_text()) if found["kind"].split() == kind.split()]


@pytest.fixture
def _clone(tmp_path, monkeypatch):
    """A folder as a fresh clone is: with the examples and nothing else."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory):
    """The bundle of the command with which most pages begin, made once."""
    folder = tmp_path_factory.mktemp("quickstart")
    with contextlib.chdir(folder):
        (folder / "examples").symlink_to(ROOT / "examples")
        run_all(QUICKSTART)
    return folder / "bundles"


def commands(kind: str) -> list:
    found = [(page, text) for page in PAGES for text in blocks(page, kind)]
    # The README compares with tuned baselines, too.
    return [
        pytest.param(text, id=f"{page.name}-{number}", marks=pytest.mark.slow if SLOW.search(text) else ())
        for number, (page, text) in enumerate(found)
    ]


def run_all(text: str, made: Path | None = None) -> None:
    """Run the lines of a block; the bundle of the quickstart, which a block before may have made, is copied."""
    if made is not None and "bundles/quickstart" in text:
        shutil.copytree(made, "bundles", dirs_exist_ok=True)
    for line in text.splitlines():
        assert line.startswith("$ palate "), line
        if line == QUICKSTART and made is not None:
            shutil.copytree(made, "bundles", dirs_exist_ok=True)
            continue
        err = io.StringIO()
        with patch.object(sys, "argv", shlex.split(line[2:])), contextlib.redirect_stderr(err):
            code = 0
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
        assert code == 0, f"{line}: {err.getvalue()}"


@pytest.mark.usefixtures("_clone")
@pytest.mark.parametrize("text", commands("console tested"))
def test_documented_commands_run(text, quickstart):
    run_all(text, quickstart)


@pytest.mark.usefixtures("_clone", "ml_100k")
@pytest.mark.parametrize("text", commands("console tested data"))
def test_documented_commands_on_real_data_run(text, capsys):
    if "palate demo" in text:
        pytest.skip("trains for a minute: `make demo` runs it")
    run_all(text)
    assert capsys.readouterr().out


@pytest.mark.usefixtures("_clone")
@pytest.mark.parametrize(
    "line",
    [line for text in blocks(ROOT / "docs" / "quickstart.md", "console tested files") for line in text.splitlines()],
)
def test_one_command_per_kind_of_file_reads_it_and_ends_with_lists(line, tmp_path):
    words = shlex.split(line)
    folder = Path(os.environ.get("PALATE_DATA", "")) / Path(words[3]).parent
    if not folder.is_dir() or folder == Path():
        pytest.skip(f"PALATE_DATA has no {Path(words[3]).parent}")
    (tmp_path / folder.name).symlink_to(folder)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        run_all(f"{line} --minutes 0.01")  # popularity alone: here the reading is tested
    assert "Example recommendations" in out.getvalue()


@pytest.mark.usefixtures("_clone")
def test_the_readme_commands_run(quickstart, capsys):
    for text in blocks(ROOT / "README.md", "console"):
        run_all(text, quickstart)
    assert "u0001" in capsys.readouterr().out


@pytest.mark.usefixtures("_clone")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python") and page.name != "CONTRIBUTING.md"], ids=lambda p: p.name
)
def test_python_examples_run(page, capsys):
    names: dict[str, object] = {}
    for text in blocks(page, "python"):
        exec(compile(text, str(page), "exec"), names)
    assert capsys.readouterr().out


def test_the_readme_example_recommends_and_is_about_six_lines(capsys):
    (text,) = blocks(ROOT / "README.md", "python")
    assert len([line for line in text.splitlines() if line.strip()]) <= 7
    exec(compile(text, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "new user" in shown
    assert "popular" in shown


@pytest.mark.usefixtures("_clone")
def test_the_example_on_own_data_runs(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["own_data.py", "examples/data/clicks.csv"])
    runpy.run_path(str(ROOT / "examples" / "own_data.py"))
    assert "NDCG@10" in capsys.readouterr().out
    assert (tmp_path / "bundles" / "own" / "manifest.json").is_file()


@pytest.mark.usefixtures("ml_100k")
def test_the_example_on_movielens_runs(capsys):
    runpy.run_path(str(ROOT / "examples" / "quickstart.py"))
    shown = capsys.readouterr().out
    values = dict(re.findall(r"^(\S+): NDCG@10 (\S+) ", shown, re.MULTILINE))
    assert float(values["gmf"]) > float(values["popularity"]) > 0.2


def walk(group, path=("palate",)):
    for name, command in group.commands.items():
        yield from walk(command, (*path, name)) if hasattr(command, "commands") else [((*path, name), command)]


def test_the_tables_of_commands_and_options_are_those_of_the_code():
    page = (ROOT / "docs" / "cli.md").read_text()
    made = runpy.run_path(str(ROOT / "docs" / "make_cli.py"))
    assert made["page"](page) == page, "run: python docs/make_cli.py"
    commands = {f"palate {name}" for name in typer.main.get_command(app).commands}
    assert commands | {name.lower() for name in made["SHARED"]} <= set(re.findall("<!-- options: (.+) -->", page))


def test_the_page_of_the_configuration_is_made_from_the_code_and_explains_every_field():
    made = runpy.run_path(str(ROOT / "docs" / "make_configuration.py"))
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert made["page"]() == page, "run: python docs/make_configuration.py"
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    fields = {row[0].strip("`") for row in rows}
    for kind in (*RECIPES.values(), palate.TrainOptions, palate.CompareOptions):
        assert {one.name for one in dataclasses.fields(kind)} <= fields, kind
    assert [line for line in page.splitlines() if line.endswith("|  |")] == []  # no field without a meaning


def test_no_option_is_documented_that_does_not_exist():
    real = {
        name
        for _, command in walk(typer.main.get_command(app))
        for one in command.params
        for name in [*one.opts, *one.secondary_opts]
    }
    real |= {"--help", "-h", *(name for one in typer.main.get_command(app).params for name in one.opts)}
    for page in (one for one in PAGES if one.name != "CHANGELOG.md"):  # it names the options of before too
        named = set(re.findall(r"(?<!\w)`(--?[a-z][a-z-]*)[^`]*`", BLOCK.sub("", page.read_text())))
        assert not named - real, page.name


def test_every_recipe_is_documented():
    headings = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "models.md").read_text(), re.MULTILINE)
    assert not set(RECIPES) - set(headings)


def test_every_public_name_is_on_its_page():
    headings = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(palate.__all__)  # python docs/make_api.py


def test_the_architecture_page_shows_the_layers_that_are_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [one["layers"] for one in contracts if one["name"] == "layers"]
    shown = "\n".join(f"    {layer}" for layer in layers)
    assert f"\n\n{shown}\n\n" in (ROOT / "ARCHITECTURE.md").read_text()


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page):
    text = BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        to = (page.parent / name).resolve() if name else page
        assert to.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(to), f"{page.name}: {target}"


def test_every_page_is_in_the_navigation_of_the_site():
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f": {page.name}\n" not in navigation] == []


@pytest.mark.skipif("PALATE_SITE" not in os.environ, reason="make docs builds the site and looks at it")
def test_the_site_has_all_public_names_and_fetches_nothing():
    site = ROOT / os.environ["PALATE_SITE"]
    reference = (site / "reference" / "index.html").read_text()
    missing = [name for name in palate._MODULE if f".{name}" not in reference and f'id="{name}"' not in reference]
    assert not missing
    for page in site.rglob("*.html"):
        assert not re.findall(r'(?:src|href)="https?://[^"]*\.(?:js|css|woff2?)', page.read_text()), page


def test_the_picture_is_small_and_fetches_nothing():
    picture = ROOT / "docs" / "img" / "demo.svg"
    assert picture.stat().st_size < 200_000
    assert not re.findall(r"url\([^#]", picture.read_text())


FORBIDDEN = re.compile(r"/(?:work|home|root|tmp|Users)/|pypi\.org|pythonhosted|files\.python|anaconda\.org")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_path_of_a_machine_or_a_package_registry(page):
    assert not FORBIDDEN.search(page.read_text())
