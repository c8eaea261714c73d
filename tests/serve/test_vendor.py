"""The libraries of the page are those of the registry, with their licenses, and are in the package."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

import palate.serve

PAGES = Path(palate.serve.__file__).parent / "pages"
FOLDERS = [PAGES / "vendor", Path(__file__).with_name("vendor")]


@pytest.mark.parametrize("folder", FOLDERS, ids=["page", "tests"])
def test_files_are_as_they_were_vendored_and_carry_a_license(folder):
    about = json.loads((folder / "vendor.json").read_text("utf-8"))
    sums = {name: digest for one in about for name, digest in one["files"].items()}
    assert {path.name for path in folder.iterdir()} == {*sums, "vendor.json"}
    for name, digest in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    for one in about:
        assert f"{one['name']}.LICENSE" in one["files"]
        assert re.fullmatch(r"sha512-[\w+/]{86}==", one["integrity"])


def test_modules_import_only_files_that_exist_by_relative_paths():
    for path in PAGES.rglob("*.js"):
        text = path.read_text("utf-8")
        for name in re.findall(r"""^import\b[^'";]*["']([^"'\n]+)["']""", text, re.MULTILINE):
            assert name.startswith("."), f"{path.name} imports {name}"
            assert (path.parent / name).is_file(), f"{path.name} imports {name}"


def test_the_page_needs_no_other_host_and_no_inline_code():
    for path in [*PAGES.glob("*.*"), *PAGES.glob("views/*")]:
        text = path.read_text("utf-8").replace("http://www.w3.org/", "")
        assert "http://" not in text, path.name
        assert not re.search(r"https://[\w.]", text), path.name
        assert not re.search(r"innerHTML|dangerouslySetInnerHTML|\beval\(|new Function", text), path.name
    page = (PAGES / "index.html").read_text("utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page)
