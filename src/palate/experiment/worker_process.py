"""The parent's end of the process that does the jobs (``palate.experiment.worker``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from palate.experiment.run_folder import RunFolder

__all__ = ["Worker"]


class Worker:
    """A process that does one job after the other in the folder of a comparison; started when first needed.

    Use it as a context manager: the process ends with it, and with this process, however that ends.

    Args:
        folder: where the split is and where results go.
        threads: what OMP_NUM_THREADS is to be in it; None leaves it as it is.
    """

    def __init__(self, folder: RunFolder, threads: int | None = None) -> None:
        self._folder = folder
        self._environment = {**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop(kill=kind is not None)

    def do(self, job: Mapping[str, Any], step: Callable[[str], None]) -> str | None:
        """Do a job and tell each step; the reason if it failed, None if its result is in the folder."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended before it read the job; the loop below finds nothing
        for line in process.stdout:
            event = json.loads(line)
            if "step" in event:
                step(event["step"])
            elif "failed" in event or "done" in event:
                if sys.platform != "linux":
                    self._stop()
                failed: str | None = event.get("failed")
                return failed
        self._stop(kill=True)
        return f"the process that trains ended: see {self._folder.log}"

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "palate.experiment.worker", str(self._folder.path), str(os.getpid())]
        with self._folder.log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=self._environment
            )
        return self._process

    def _stop(self, *, kill: bool = False) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        process.communicate()  # closes stdin, which ends it
