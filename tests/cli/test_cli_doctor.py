"""`palate doctor` and `palate recipes`: what this machine and this package have."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from terminal import COMMAND, mistake, palate

from palate.models import RECIPES

ROOT = Path(__file__).resolve().parents[2]


def test_every_recipe_has_one_line_and_every_field_of_one_a_description():
    rows = palate("recipes", "--json").ok().json
    assert [row["recipe"] for row in rows] == list(RECIPES)
    assert all(row["description"] and "\n" not in row["description"] for row in rows)
    shown = palate("recipes").ok().out
    assert all(name in shown for name in RECIPES)
    about = palate("recipes", "ials", "--json").ok().json
    fields = {row["field"]: row for row in about["fields"]}
    assert fields["unobserved_weight"]["published"] is None
    assert "density" in fields["unobserved_weight"]["description"]
    assert (fields["dim"]["fast"], fields["dim"]["published"]) == (RECIPES["ials"].fast().dim, RECIPES["ials"]().dim)
    assert "did you mean ials?" in mistake(palate("recipes", "iasl"))


@pytest.mark.parametrize("name", RECIPES)
def test_the_fields_of_every_recipe_are_shown(name):
    shown = palate("recipes", name).ok().out
    assert shown.startswith(f"{name}: ")


def test_doctor_names_versions_threads_and_every_extra():
    found = palate("doctor", "--json").ok().json
    assert found["versions"]["torch"]
    assert found["devices"]["cores"] >= 1
    assert found["threads"]["ms on one thread"] > 0
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(found["extras"]) <= set(extras)  # an installed package may be of an earlier commit
    assert all(text == "installed" or f"'palate[{extra}]'" in text for extra, text in found["extras"].items())
    shown = palate("doctor").ok().out
    assert "OMP_NUM_THREADS" in shown
    assert "advice" in shown


@pytest.mark.parametrize("setting", [{}, {"NO_COLOR": "1"}], ids=["color", "NO_COLOR"])
def test_a_terminal_gets_colors_unless_it_wants_none(setting, tmp_path):
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
    master, slave = pty.openpty()  # a real terminal: a pipe has no colors anyway
    environment = {**os.environ, "TERM": "xterm-256color", **setting}
    command = [*COMMAND, "recommend", str(tmp_path / "missing"), "u1"]
    with subprocess.Popen(command, stdout=slave, stderr=slave, env=environment, stdin=slave) as process:
        process.wait(120)
    os.close(slave)
    shown = os.read(master, 4096).decode()
    os.close(master)
    assert "does not exist" in shown
    assert ("\x1b[31m" in shown) == (not setting)


def test_completion_offers_the_commands():
    code = "import sys; sys.argv[0] = 'palate'; from palate.cli import main; main()"
    asked = {"_PALATE_COMPLETE": "complete_bash", "COMP_WORDS": "palate rec", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **asked}
    )
    assert done.stdout.split() == ["recipes", "recommend"], done.stderr
