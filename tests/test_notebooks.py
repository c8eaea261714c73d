"""The notebooks run from their first cell to the last, and what the repository stores of a run is whole and small."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import palate

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def kinds(path: Path) -> list[list[str]]:
    """The kinds of outputs of each cell with code; lines that are printed arrive in one part or in several."""
    cells = nbformat.read(path, as_version=4).cells
    return [
        list(dict.fromkeys(kind for one in cell.outputs for kind in one.get("data", {one.output_type: ""})))
        for cell in cells
        if cell.cell_type == "code"
    ]


def run(names: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copy(path, tmp_path)) for path in names]
    command = [sys.executable, str(FOLDER / "run.py"), *map(str, copies)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for stored, copy in zip(names, copies, strict=True):
        assert kinds(copy) == kinds(stored), f"{stored.name}: run examples/notebooks/run.py and look at it"


@pytest.mark.timeout(1200)
def test_the_notebook_of_a_shop_runs(tmp_path: Path) -> None:
    run([FOLDER / "your-own-shop.ipynb"], tmp_path)
    assert not (FOLDER / "bundles").exists()  # what a cell writes is in the folder of the kernel


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("ml_100k")
@pytest.mark.slow
@pytest.mark.parametrize("letters", ["ace", "bd"])
def test_the_tutorials_run(letters: str, tmp_path: Path) -> None:
    try:
        palate.load("anime")
    except palate.PalateError:  # then C takes MovieLens, and its first cell says so
        letters = letters.replace("c", "")
    run([path for path in NOTEBOOKS if path.name[0] in letters and path.name[1] == "-"], tmp_path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_the_outputs_of_one_run(path: Path) -> None:
    text = path.read_text()
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any("image/png" in kind for one in kinds(path) for kind in one)
    assert "error" not in [one.output_type for cell in cells for one in cell.outputs]
    assert not re.search(r"/(?:work|home|root|tmp|Users)/", text)
    assert path.stat().st_size < 200_000
    for target in re.findall(r"\]\((\.\./[^)#]+)", text):
        assert (FOLDER / target).exists(), target


def test_the_outputs_hold_no_film_of_movielens(ml_100k: palate.Dataset) -> None:
    assert ml_100k.titles is not None
    text = "".join(path.read_text() for path in NOTEBOOKS)
    assert not [title for title in ml_100k.titles.to_list() if len(title) > 12 and title in text]


def test_every_notebook_is_in_the_navigation_and_on_the_page_of_notebooks() -> None:
    root = FOLDER.parents[1]
    navigation, page = (root / "mkdocs.yml").read_text(), (root / "docs" / "notebooks.md").read_text()
    assert len(NOTEBOOKS) == 6
    for path in NOTEBOOKS:
        assert f": {path.stem}.md\n" in navigation
        assert f"(../examples/notebooks/{path.name})" in page
