"""Reading and writing: what is no comparison is refused, a file is whole or not there, a missing extra is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from palate.errors import DataError
from palate.report import read, write_html, write_json, write_markdown


def test_a_comparison_comes_back_from_its_file_and_from_its_folder(made: dict[str, Any], tmp_path: Path) -> None:
    path = write_json(made, tmp_path / "deep" / "comparison.json")
    assert read(path) == read(tmp_path / "deep") == json.loads(json.dumps(made))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[1]", "is no comparison"), ('{"data": {}, "k": 10}', "it lacks split, lengths")],
)
def test_what_is_no_comparison_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path)
    with pytest.raises(DataError, match="there is no comparison at"):
        read(tmp_path / "elsewhere")


def test_a_report_that_cannot_be_made_leaves_the_old_one(comparison: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_markdown(comparison, path)
    old = path.read_text()
    comparison["models"][0]["name"] = "\ud800"  # half of a character: cannot be written as UTF-8
    with pytest.raises(UnicodeEncodeError):
        write_markdown(comparison, path)
    assert path.read_text() == old
    assert [file.name for file in tmp_path.iterdir()] == ["report.md"]


@pytest.mark.parametrize("missing", ["altair", "vl_convert", "jinja2"])
def test_a_missing_package_is_named_with_its_remedy(made: dict[str, Any], tmp_path: Path, missing: str) -> None:
    write_json(made, tmp_path / "comparison.json")
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from palate.cli import main\n"
        f"sys.argv = ['palate', 'report', {str(tmp_path)!r}, '--out', {str(tmp_path / 'report.md')!r},"
        f" '--out', {str(tmp_path / 'report.html')!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last == f"error: the HTML report needs {missing}: pip install 'palate[report]'"
    assert (tmp_path / "report.md").exists()
    assert not (tmp_path / "report.html").exists()


def test_the_page_in_the_file_is_the_same_each_time(made: dict[str, Any], text: str, tmp_path: Path) -> None:
    path = write_html(made, tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == text


def test_the_report_needs_no_torch() -> None:
    code = "import sys, palate.report.page, palate.report.files; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
