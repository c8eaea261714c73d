"""Trials side by side: processes that share the journal, each with one thread and a copy of the task."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from palate.errors import PalateError
from palate.tune.objective import Task

if TYPE_CHECKING:
    import optuna

__all__ = ["run_side_by_side"]

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")


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
    context = multiprocessing.get_context("spawn")
    with _one_thread_each(), ProcessPoolExecutor(workers, context, _begin, (task, folder)) as pool:
        while True:
            while len(running) < workers and time.monotonic() < deadline:
                ticket = next(waiting, None)
                if ticket is None:
                    break
                running.add(pool.submit(_run, ticket))
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
    """Set up a worker process, which must not outlive the one that started it."""
    import torch

    from palate.tune.study import open_study

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _Here.task, _Here.study = task, open_study(task, folder)


def _run(ticket: int) -> int:
    from palate.tune.study import run_trial

    return run_trial(_Here.task, _Here.study, ticket)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """New processes start with one thread for each library."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
