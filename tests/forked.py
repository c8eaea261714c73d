"""A process of `palate` forked from one that has imported the libraries: to import them takes seconds each time."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PRELOAD = ["torch", "polars", "pyarrow", "narwhals", "scipy.sparse", "fastapi", "sqlalchemy", "uvicorn", "pydantic"]


class Forked:
    """What tests use of ``subprocess.Popen``, for ``palate ARGUMENTS`` in a folder with its output in a file."""

    def __init__(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self._process = context.Process(target=_run, args=(list(arguments), folder, dict(environment), log))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("palate", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _run(arguments: list[str], folder: Path, environment: dict[str, str], log: Path) -> None:
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["palate", *arguments]
    from palate.cli import main

    main()
