"""Worker processes: spawned, with one thread per library, and ended with the process that started them; and forks.

A child of ``os.fork`` (gunicorn --preload, a DataLoader, joblib's "multiprocessing") has none of the threads that its
parent had, but the libraries go on waiting for them. torch is set to one thread there, so models answer. The pool
of polars has no such setting: functions that need it raise an error in such a child, in place of waiting without end.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from palate import signals
from palate.errors import ModelError

__all__ = ["cores", "needs_polars", "one_blas_thread", "pool"]

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
CHOSEN = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # a number in one of them counts


_lost = [False, False]  # whether the threads of polars ran before the fork, and are not here


def needs_polars(what: str) -> None:
    """Refuse in a forked child in which the threads of polars are missing.

    Args:
        what: begins the message, such as "reasons need".

    Raises:
        ModelError: this is such a child.
    """
    if _lost[1]:
        raise ModelError(
            f"{what} the threads of polars, which a forked process does not have: start processes by spawn "
            '(multiprocessing.get_context("spawn"), joblib\'s "loky"), or load the bundle after the fork'
        )


def _before_fork() -> None:
    _lost[0] = _lost[1] or _polars_runs()


def _after_fork() -> None:
    _lost[1] = _lost[0]
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def _polars_runs() -> bool:
    """Whether polars has started its threads; where the system does not tell, whether it was imported."""
    try:
        names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    except OSError:
        names = []
    return any(name.startswith("polars") for name in names) if names else "polars" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _blas() -> Any:
    """The linear algebra libraries of NumPy and SciPy, found once: both must be imported before."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Solve small systems on one thread of NumPy and SciPy, unless the environment sets a number; also a decorator.

    OpenBLAS takes every core by default, and its threads wait for each other in a loop: on two cores that others use,
    too, thousands of small systems took 5 to 17 times as long. Call it where ``scipy.linalg`` is imported.
    """
    if any(os.environ.get(name) for name in CHOSEN):
        yield
        return
    with _blas().limit(limits=1):
        yield


@contextmanager
def pool(workers: int, begin: Callable[..., None] | None = None, *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """An executor whose processes have one thread for each library; they call ``begin(*arguments)`` once.

    They are spawned: a fork of a process in which torch, polars or FAISS has run threads hangs. After an error inside
    the ``with`` block running tasks are finished and waiting tasks are cancelled.
    """
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(workers, context, _begin, (begin, arguments))
    with _one_thread_each():
        try:
            yield executor
        except Exception:
            executor.shutdown(cancel_futures=True)
            raise
        except BaseException:  # a signal: nothing waits for tasks whose results are not read
            executor.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            raise
        executor.shutdown()


def _begin(begin: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    import torch

    signals.ignore_interrupts()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    if begin is not None:
        begin(*arguments)


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
