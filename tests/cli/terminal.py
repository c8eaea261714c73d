"""The command line as tests use it: in this process where speed matters, in one of its own where that is the point."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from palate.cli import main

COMMAND = (sys.executable, "-c", "from palate.cli import main; main()")


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def ok(self) -> Result:
        assert self.code == 0, self.err
        return self


def palate(*words: object) -> Result:
    """Run a command in this process; an exception that is no exit is the test's to see."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = patch.object(sys, "argv", ["palate", *map(str, words)])
    with argv, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = 0 if end.code is None else int(end.code)
    return Result(code, out.getvalue(), err.getvalue())


def start(*words: object, folder: Path) -> subprocess.Popen[str]:
    """Run a command in a process of its own."""
    pipe = subprocess.PIPE
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = (*COMMAND, *map(str, words))
    return subprocess.Popen(words, cwd=folder, stdout=pipe, stderr=pipe, text=True, env=environment)


def mistake(result: Result) -> str:
    """The one line that tells the user what was wrong."""
    assert result.code == 2, result
    lines = result.err.splitlines()
    errors = [line for line in lines if line.startswith("error:")]
    assert len(errors) == 1, result.err
    assert lines[-1] == errors[0], result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    return errors[0]


def board(header: str = "user,item,time", size: int = 24, separator: str = ",") -> str:
    """Even users touch even items, odd users odd ones, over a hundred days; as text with the columns of ``header``."""
    names = header.split(",")
    lines = [separator.join(names)]
    for user in range(size):
        for item in range(user % 2, size, 2):
            stamp = 1_600_000_000 + 86_400 * ((item * 7 + user * 3) % 100)
            fields = (f"u{user}", f"i{item}", str(stamp))
            lines.append(separator.join(fields[: len(names)]))
    return "\n".join(lines) + "\n"
