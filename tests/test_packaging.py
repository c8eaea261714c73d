"""Installation and publication: the set-up, the metadata of the package, and the wheel in a folder of its own."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_first_command_installs_the_library_alone():
    makefile = (ROOT / "Makefile").read_text()
    assert "\ndemo: runtime " in makefile
    assert "\ntest: venv " in makefile
