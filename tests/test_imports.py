"""What is imported when: checked in fresh processes, as a user starts them."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import palate
from palate.base import DataSpec
from palate.bundle import Bundle
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.models.neumf import GMF

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "palate"
MODULES = sorted(".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in SOURCE.rglob("*.py"))
HEAVY = ["torch", "polars", "numpy", "scipy", "pyarrow", "pydantic", "pytorch_lightning", "safetensors"]


def in_a_fresh_process(code: str, *arguments: str, cwd: Path | None = None, path: Path | None = None) -> str:
    environment = {**os.environ, **({} if path is None else {"PYTHONPATH": str(path)})}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=cwd, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_after(code: str, *arguments: str) -> set[str]:
    """Which of the heavy packages a piece of code has imported."""
    ending = f"\nimport sys; print('imported', *[name for name in {HEAVY!r} if name in sys.modules])"
    return set(in_a_fresh_process(code + ending, *arguments).splitlines()[-1].split()[1:])


def test_import_palate_is_light() -> None:
    assert imported_after("import palate; dir(palate); palate.__all__") == set()


HELP = "import sys; from palate.cli import main; sys.argv = ['palate', *sys.argv[1:], '--help']\ntry: main()\n"
HELP += "except SystemExit as done: assert not done.code, done.code"


@pytest.mark.parametrize("command", [[], ["train"], ["recommend"], ["data", "fetch"]], ids=" ".join)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    assert imported_after(HELP, *command) <= {"pydantic"}  # typer itself imports it to convert options


def test_the_data_layer_is_free_of_torch() -> None:
    names = [name for name in MODULES if name.startswith("palate.data.")]
    assert len(names) > 5
    assert "torch" not in imported_after("import " + ", ".join(names))


def test_loading_a_bundle_and_recommending_does_not_import_lightning(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.int32)
    ids = IdMap.of(np.arange(6))
    data = Dataset("small", ids, ids, Interactions(rows % 6, rows // 2, np.ones(12, np.float32)))
    recipe = GMF.fast()
    model = recipe.build(DataSpec(6, 6))
    folder = Bundle.of(recipe, model, data).save(tmp_path / "bundle")
    code = "import sys; from palate.bundle import Bundle; Bundle.load(sys.argv[1]).recommender.recommend([1], 3)"
    imported = imported_after(code, str(folder))
    assert "torch" in imported
    assert "pytorch_lightning" not in imported


def test_training_imports_lightning_when_it_starts_and_lets_it_say_nothing() -> None:
    code = (
        "import sys, palate, polars as pl\n"
        "train = palate.from_frame(pl.DataFrame({'user': [1, 1, 2, 2, 3], 'item': [1, 2, 2, 3, 1]}))\n"
        "recipe = palate.GMF(epochs=1)\n"
        "assert 'pytorch_lightning' not in sys.modules\n"
        "recipe.fit(train, palate.TrainOptions(device='cpu'))\n"
        "assert 'pytorch_lightning' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_only_one_file_imports_lightning() -> None:
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            named += [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if any(name.split(".")[0] == "pytorch_lightning" for name in named):
                found.append(path.name)
    assert set(found) == {"lightning_driver.py"}


def test_every_public_name_resolves() -> None:
    assert {*palate._MODULE, "__version__"} == set(palate.__all__)
    assert len(palate.__all__) == len(set(palate.__all__))
    for name, where in palate._MODULE.items():
        module = importlib.import_module(f"palate.{where}")
        assert name in getattr(module, "__all__", [name])
        assert getattr(palate, name) is getattr(module, name)
    assert set(palate.__all__) <= set(dir(palate))
    with pytest.raises(AttributeError, match="has no attribute 'oracle'"):
        palate.oracle  # noqa: B018


@pytest.mark.parametrize(("old", "new"), [("Run", "TrainOptions"), ("watch", "validation_callback")])
def test_old_names_answer_with_a_warning(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"palate.{old} is now palate.{new}"):
        assert getattr(palate, old) is getattr(palate, new)


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    (block,) = [node for node in ast.parse((SOURCE / "__init__.py").read_text()).body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    found = {one.name: str(node.module).removeprefix("palate.") for node in imports for one in node.names}
    assert found == palate._MODULE


def test_every_recipe_is_a_public_name() -> None:
    assert {kind.__name__ for kind in palate.RECIPES.values()} <= set(palate.__all__)
    assert all(getattr(palate, kind.__name__) is kind for kind in palate.RECIPES.values())


def test_the_version_is_that_of_the_package_and_has_a_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    assert palate.__version__ == metadata.version("palate")

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert palate._version() == "0+unknown"


def test_python_m_palate_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "palate", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"palate {palate.__version__}"


def test_the_library_logs_nothing_until_it_is_asked_to() -> None:
    code = "import logging, palate; logging.getLogger('palate.models').warning('heard')"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stderr == ""
    run[-1] = code.replace("import logging, palate;", "import logging, palate; logging.basicConfig();")
    assert "heard" in subprocess.run(run, capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith(("__init__", "__main__"))])
def test_every_module_has_a_docstring_and_exports_only_names_it_has(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert module.__doc__.strip()
    assert not [one for one in getattr(module, "__all__", ()) if not hasattr(module, one)]


def test_every_module_imports_without_the_modules_that_only_posix_has() -> None:
    # As on Windows, which lacks two names of os and one of signal as well.
    code = (
        "import sys, os, signal, importlib; sys.modules.update(fcntl=None, resource=None)\n"
        # From Python 3.13 on, process_cpu_count calls the first of them.
        "for name in ('sched_getaffinity', 'geteuid'): delattr(os, name)\n"
        "os.process_cpu_count = os.cpu_count\n"
        "del signal.SIGKILL\n"
        f"for name in {MODULES!r}:\n    if not name.endswith('__main__'): importlib.import_module(name)\n"
        "print('imported')"
    )
    assert in_a_fresh_process(code).endswith("imported\n")
