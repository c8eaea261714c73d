"""Signals: real ones, to real processes; a command ends with one line and 128 + n, and takes its workers along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
PALATE = [sys.executable, "-m", "palate"]
ROWS = "user,item\n" + "".join(f"u{n % 12},i{(n * 7 + n // 12) % 19}\n" for n in range(100))
LONG = ["train", "gmf", "log.csv", "--set", "epochs=200000", "--out", "b"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text(ROWS)
    return tmp_path


def start(folder: Path, *words: str, until: str = "") -> subprocess.Popen[str]:
    """A process whose stderr has reached a line with ``until``."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, cwd=folder, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    assert process.stderr is not None
    while until:
        line = process.stderr.readline()
        assert line, f"ended before {until!r}"
        if until in line:
            break
    return process


def end(process: subprocess.Popen[str], *numbers: int) -> tuple[int, str]:
    """Exit code, and what was written to stderr after the signals."""
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.2)  # the system may merge two signals that arrive together
    out, err = process.communicate(timeout=120)
    assert out == ""
    return process.returncode, err


@pytest.mark.parametrize(
    ("more", "number", "code", "line"),
    [
        (["--folder", "run"], signal.SIGTERM, 143, "stopped; the same command resumes from run"),
        ([], signal.SIGINT, 130, "stopped; with --folder it could be resumed"),
    ],
)
def test_training_ends_with_one_line_and_no_bundle(
    folder: Path, more: list[str], number: int, code: int, line: str
) -> None:
    process = start(folder, *PALATE, *LONG, *more, until="epoch 1 of")
    found, err = end(process, number)
    lines = [one for one in err.splitlines() if not one.startswith("train gmf: epoch")]
    assert (found, lines) == (code, [line])
    assert not (folder / "b").exists()


def test_workers_end_with_their_parent(folder: Path) -> None:
    words = ["tune", "gmf", "log.csv", "--workers", "2", "--set", "epochs=100000", "--out", "t", "--no-prune"]
    process = start(folder, *PALATE, *words, until="validation rows, out of")
    while len(members := group(process.pid)) < 3:
        time.sleep(0.1)
        assert process.poll() is None
    code, err = end(process, signal.SIGTERM)
    assert (code, err.splitlines()[-1]) == (143, "stopped; the same command resumes from t")
    deadline = time.monotonic() + 60
    while left := group(process.pid) & members:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def group(leader: int) -> set[int]:
    """The processes of a process group that run."""
    found = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in found.splitlines())
    return {int(pid) for pid, its_group, state in rows if int(its_group) == leader and not state.startswith("Z")}


BUSY = """
import hashlib, sys, threading
from palate import signals
if "ignored" in sys.argv:
    import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); signal.raise_signal(signal.SIGHUP)
with signals.stoppable():
    # From another thread, when the computation is under way.
    threading.Timer(0.5, lambda: print("begun", file=sys.stderr, flush=True)).start()
    hashlib.pbkdf2_hmac("sha1", b"", b"", 2**31 - 1)  # minutes, in which no handler of Python runs
"""


def test_a_second_signal_ends_a_computation_that_no_handler_can_interrupt(folder: Path) -> None:
    process = start(folder, sys.executable, "-c", BUSY, until="begun")
    assert end(process, signal.SIGINT, signal.SIGINT) == (130, "")


def test_the_first_signal_ends_it_too_after_a_while_and_ignored_ones_never(folder: Path) -> None:
    process = start(folder, sys.executable, "-c", BUSY, "ignored", until="begun")
    assert end(process, signal.SIGHUP, signal.SIGTERM) == (143, "stopped\n")


LIBRARY = """
import sys, palate, polars
from palate.models.neumf import GMF
data = palate.from_frame(polars.DataFrame({"user": ["a", "b", "a"], "item": ["x", "y", "y"]}))
def told(event): print("epoch", file=sys.stderr, flush=True)
for _ in range(2):
    try:
        GMF(epochs=10**6).fit(data, palate.TrainOptions(progress=told))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
"""


def test_the_library_leaves_signals_to_the_program_that_uses_it(folder: Path) -> None:
    process = start(folder, sys.executable, "-c", LIBRARY, until="epoch")
    os.kill(process.pid, signal.SIGINT)
    assert process.stderr is not None
    while "interrupted" not in (line := process.stderr.readline()):
        assert line
    while "epoch" not in (line := process.stderr.readline()):
        assert line
    assert end(process, signal.SIGTERM)[0] == -signal.SIGTERM
