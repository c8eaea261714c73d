"""Help: there for every command, with an example, and nothing heavy is imported for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from terminal import palate

from palate.cli import app


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


EVERY = list(commands(typer.main.get_command(app)))


def test_the_commands_of_the_specification_are_there():
    names = {path[0] for path in EVERY}
    assert names >= {"quickstart", "data", "train", "evaluate", "recommend", "similar", "reproduce", "demo"}
    assert {path[1] for path in EVERY if path[0] == "data"} == {"list", "fetch", "info", "synth"}


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_command_has_help_with_an_example_of_itself(path):
    shown = palate(*path, "--help").ok().out
    assert f"Example: palate {' '.join(path)}" in " ".join(shown.split())


NO_TABLE = [("serve",), ("keys", "revoke")]


@pytest.mark.parametrize("path", [path for path in EVERY if path not in NO_TABLE], ids=" ".join)
def test_every_command_that_prints_a_table_can_print_json(path):
    assert "--json" in palate(*path, "--help").ok().out


def test_the_bare_command_shows_its_help_and_fails():
    result = palate()
    assert result.code == 2
    assert "quickstart" in result.out + result.err


def test_help_imports_neither_torch_nor_polars():
    code = "import sys; sys.argv = ['palate', '--help']\nfrom palate.cli import main\ntry: main()\nfinally: "
    code += "print([name for name in ('torch', 'polars', 'pytorch_lightning') if name in sys.modules], file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"
    assert "quickstart" in result.stdout


def test_version_and_verbose_stand_before_the_command(tmp_path):
    assert palate("--version").ok().out.startswith("palate ")
    code = "import logging, sys; sys.argv = ['palate', '--verbose', 'data', 'list']\nfrom palate.cli import main\n"
    code += (
        "logging.getLogger('palate.test').debug('too early'); main(); logging.getLogger('palate.test').debug('heard')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "palate.test: heard" in run.stderr
    assert "too early" not in run.stderr
