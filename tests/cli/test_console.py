"""Progress on the terminal: bars with totals where there is one, plain lines that stay few elsewhere."""

from __future__ import annotations

import importlib
import io

import pytest
from rich.console import Console

from palate.progress import ProgressEvent

console = importlib.import_module("palate.cli.console")  # the package has a function of this name


def test_plain_lines_name_each_stage_once_and_every_message(capsys: pytest.CaptureFixture[str]) -> None:
    with console.show_progress() as progress:
        for epoch in range(1, 41):
            progress(ProgressEvent("train gmf", epoch, 40, "epoch", values={"loss": 0.5}))
        progress(ProgressEvent("tune", 1, 2, "trial", "0.41, best so far"))
        progress(ProgressEvent("tune", 2, 2, "trial", "0.40"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "train gmf: epoch 1 of 40, loss 0.5",
        "tune: trial 1 of 2: 0.41, best so far",
        "tune: trial 2 of 2: 0.40",
    ]


def test_a_terminal_gets_bars_with_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100, highlight=False)
    monkeypatch.setattr(console, "console", lambda stderr=False: terminal)
    with console.show_progress() as progress:
        progress(ProgressEvent("compare", 3, 8, "fit", "gmf"))
        progress(ProgressEvent("train gmf", 2, 5, "epoch"))
        progress(ProgressEvent("train gmf", 5, 5, "epoch"))
        progress(ProgressEvent("download ml-100k", message="trying the mirror"))
    shown = screen.getvalue()
    assert "compare: fit 3 of 8: gmf" in shown
    assert "download ml-100k: trying the mirror" in shown
