"""Installation and publication: what the packages hold, and the wheel with its required libraries alone.

The environment of these tests holds every extra. ``core`` is a folder with links to the libraries that the wheel
requires, and those that they require, and nothing else: as after ``pip install palate``, without a network.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Collection
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "palate"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
CLICKS = str(ROOT / "examples" / "data" / "clicks.csv")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built from it alone."""
    folder = tmp_path_factory.mktemp("packages")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder)]
    subprocess.run(build, check=True, capture_output=True, cwd=ROOT)
    (sdist,) = folder.glob("palate-*.tar.gz")
    subprocess.run(
        [*PIP, "wheel", str(sdist), "--no-deps", "--no-build-isolation", "-w", str(folder)],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("palate-*.whl")
    return sdist, wheel


def required(extras: Collection[str] = ()) -> set[str]:
    """The distributions that this one requires with these extras, directly or not."""
    found = set[tuple[str, str]]()  # name and extra
    todo = [("palate", extra) for extra in ("", *extras)]
    while todo:
        name, extra = todo.pop()
        found.add((name, extra))
        for need in map(Requirement, metadata.requires(name) or []):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                ones = {(canonicalize_name(need.name), one) for one in ("", *need.extras)}
                todo += ones - found
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def core(packages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages: the wheel, installed, and links to the libraries that it requires."""
    folder = tmp_path_factory.mktemp("core")
    install = [*PIP, "install", "--no-deps", "--no-index", "--no-compile", "--target", str(folder), str(packages[1])]
    subprocess.run(install, check=True, capture_output=True)
    for name in required() - {"palate"}:
        distribution = metadata.distribution(name)
        for top in {Path(str(file)).parts[0] for file in distribution.files or ()} - {"..", "bin", "__pycache__"}:
            real = Path(str(distribution.locate_file(top)))
            if real.exists() and not (folder / top).exists():
                (folder / top).symlink_to(real)
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(packages: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(packages[1]) as archive:
        names = archive.namelist()
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    inside = {name for name in names if ".dist-info/" not in name}
    code, page = {".py", ".typed", ".jinja"}, {".html", ".css", ".js", ".svg", ".json", ".LICENSE"}
    assert {Path(name).suffix for name in inside} == code | page
    assert {"palate/serve/pages/index.html", "palate/serve/pages/vendor/preact.LICENSE"} <= inside
    files = (path for path in SOURCE.rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert inside == {str(path.relative_to(ROOT / "src")) for path in files}


def test_the_source_distribution_holds_no_data_and_nothing_large(packages: tuple[Path, Path]) -> None:
    with tarfile.open(packages[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tops = {name.partition("/")[0] for name in names}
    expected = {"src", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "PKG-INFO"}
    assert tops == expected | {".gitignore"}  # hatchling adds the last one
    assert packages[0].stat().st_size < 2_000_000


def test_the_metadata_is_complete_and_agrees(packages: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(packages[1]) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        about = archive.read(name).decode()
    assert "\nLicense-Expression: Apache-2.0\n" in about
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], "Apache-2.0")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    tested = set(workflow["jobs"]["test"]["strategy"]["matrix"]["python"])
    assert tested == {one.rpartition(" ")[2] for one in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", one)}


MISSING = {
    "serve": ["serve", "ials"],
    "tune": ["tune", "ials", CLICKS, "--trials", "1"],
    "index": ["index", "ials", "--kind", "hnsw"],
    "rank": ["train", "two-stage", CLICKS, "--set", "ranker=trees", "--out", "two"],
}
# In one process, since each start costs seconds: modules, commands that work, and commands that need an extra.
SCRIPT = """
import contextlib, importlib, io, json, sys
import palate
from palate.cli import main

def command(*words):
    sys.argv = ["palate", *words]
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return [code, err.getvalue().strip().splitlines()[-1:]]

clicks, names, missing = json.loads(sys.stdin.read())
for name in names:
    importlib.import_module(name)
works = [
    command("quickstart", clicks, "--minutes", "0.01", "--out", "bundle"),  # popularity alone: the parts are tested
    command("recommend", "bundle", "u0001", "-k", "3"),
    command("train", "ials", clicks, "--out", "ials"),
]
print(json.dumps([palate.__file__, works, {extra: command(*words) for extra, words in missing.items()}]))
"""


def test_the_wheel_works_with_the_required_libraries_alone_and_names_the_extra_that_a_command_needs(
    core: Path, tmp_path: Path
) -> None:
    names = {".".join(("palate", *path.relative_to(SOURCE).with_suffix("").parts)) for path in SOURCE.rglob("*.py")}
    names = {name.removesuffix(".__init__") for name in names if not name.endswith("__main__")}
    names = {name for name in names if not name.startswith(("palate.serve.", "palate.client"))}
    names -= {"palate.report.figure", "palate.report.page", "palate.report.plots"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", SCRIPT],  # -S: without the packages of the environment
        input=json.dumps([CLICKS, sorted(names), MISSING]),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(core)},
    )
    assert done.returncode == 0, done.stderr
    where, works, missing = json.loads(done.stdout.splitlines()[-1])
    assert where == str(core / "palate" / "__init__.py")
    assert (core / "bin" / "palate").exists()
    assert [code for code, _ in works] == [0, 0, 0], works
    for extra, (code, (line,)) in missing.items():
        assert code == 2, line
        assert f"pip install 'palate[{extra}]'" in line


def test_every_remedy_names_an_extra_that_exists() -> None:
    text = "".join(path.read_text() for path in [*SOURCE.rglob("*.py"), *ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
    named = {extra for names in re.findall(r"palate\[([a-z,]+)\]", text) for extra in names.split(",")}
    assert named <= set(PROJECT["optional-dependencies"])


def test_the_first_command_installs_the_library_alone() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "\ndemo: runtime " in makefile
    assert "\ntest: venv " in makefile


# These only send results to a service and are 60 MB each, so that no set-up installs them.
SERVICES = {"mlflow", "wandb"}
EVERY = [extra for extra in PROJECT["optional-dependencies"] if extra not in SERVICES]


@pytest.mark.parametrize("extras", [[], ["serve"], EVERY], ids=["none", "serve", "all"])
def test_the_set_up_has_a_digest_for_each_library(extras: list[str]) -> None:
    spec = importlib.util.spec_from_file_location("install", ROOT / "scripts" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    install = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(install)
    needs = PROJECT["dependencies"] + [one for extra in extras for one in PROJECT["optional-dependencies"][extra]]
    lines = install.with_hashes(needs, cuda=False)
    # Some libraries have several versions, each for some versions of Python.
    pinned = re.findall(r"^([\w.-]+==\S+) .*\\\n +--hash=sha256:[0-9a-f]{64}", lines, re.M)
    names = {one.partition("==")[0] for one in pinned}
    assert len(pinned) == len(re.findall("^[^ ]", lines, re.M))
    # At least what this machine needs, in the versions of the constraints, and without any library of CUDA.
    assert required(extras) - {"palate"} <= names
    assert set(pinned) <= {line.partition(" ")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert not [name for name in names if name.startswith(("nvidia", "cuda"))]
    if not extras:
        assert not {"fastapi", "faiss-cpu", "pytest"} & names
