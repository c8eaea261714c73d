"""Trials side by side: processes that share the journal, each with one thread and a copy of the task."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING

from palate.errors import PalateError
from palate.experiment.trial import Task
from palate.parallel import pool

if TYPE_CHECKING:
    import optuna

__all__ = ["run_side_by_side"]


class _Here:
    """What a worker process keeps from trial to trial."""

    task: Task
    study: optuna.Study


def run_side_by_side(task: Task, folder: Path, tickets: range, workers: int, deadline: float) -> Iterator[int]:
    """Run a trial for each ticket, ``workers`` at a time, none after the deadline; numbers of trials as they end.

    Raises:
        PalateError: a worker process died.
    """
    waiting = iter(tickets)
    running: set[Future[int]] = set()
    with pool(workers, _begin, task, folder) as processes:
        while True:
            while len(running) < workers and time.monotonic() < deadline:
                ticket = next(waiting, None)
                if ticket is None:
                    break
                running.add(processes.submit(_run, ticket))
            if not running:
                return
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            try:
                yield from [future.result() for future in ended]
            except BrokenProcessPool:
                raise PalateError(
                    f"a worker process died, perhaps for lack of memory: run again with fewer workers than {workers}, "
                    "the study goes on where it was"
                ) from None


def _begin(task: Task, folder: Path) -> None:
    from palate.experiment.tune import open_study

    _Here.task, _Here.study = task, open_study(task, folder)


def _run(ticket: int) -> int:
    from palate.experiment.tune import run_trial

    return run_trial(_Here.task, _Here.study, ticket)
