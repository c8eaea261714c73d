"""Processes that do jobs for this one: the one protocol of comparing, tuning and reproducing.

    with Worker() as worker:
        result = worker.do(function, *arguments)

A job is a function of a module; it is called with its arguments and a ``Progress``. Job and result are pickled through
the pipes of the process, which never reach a disk. A process is started with a fresh interpreter, ends with the process
that started it however that ends, and writes whatever libraries print to stderr, so that it cannot mix with results.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import torch

from palate import signals
from palate.errors import PalateError
from palate.parallel import ONE_THREAD
from palate.progress import Progress, silent

START = "from palate.experiment.worker import main; main()"
LINUX = sys.platform == "linux"

Task = TypeVar("Task")
Emit = Callable[[str, Any], None]


class Worker:
    """A process that does one job after the other; it is started by the first job or by ``start``.

    Args:
        isolated: a process of its own for each job, so that its peak memory is its own and a crash takes nothing else
            along. On Linux it is forked from one that has imported the libraries and run nothing else.
        threads: of the libraries in the process; None leaves the environment as it is.
        log: file for what the process prints to stderr; None shares the stderr of this process.
    """

    _reading = False

    def __init__(self, *, isolated: bool = False, threads: int | None = None, log: Path | None = None) -> None:
        self._isolated, self._threads, self._log = isolated, threads, log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop(kill=kind is not None)

    def start(self) -> None:
        """Start the process. The thread that calls this must outlive the jobs: on Linux the process ends with it."""
        environment = dict(os.environ)
        if self._threads is not None:
            environment |= dict.fromkeys(ONE_THREAD, str(self._threads))
        mode = "isolated" if self._isolated else "lasting"
        command = [sys.executable, "-c", START, str(os.getpid()), mode, str(self._threads or 0)]
        pipe = subprocess.PIPE
        with contextlib.ExitStack() as stack:
            log = None if self._log is None else stack.enter_context(self._log.open("ab"))
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, env=environment)

    def do(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        progress: Progress = silent,
        imports: tuple[str, ...] = (),
    ) -> Any:
        """Do a job and return its result.

        Args:
            function: of a module, called as ``function(*arguments, progress)``.
            arguments: anything that can be pickled.
            progress: called here, in this thread, with each event of the job.
            imports: modules that the job needs and that take seconds; isolated jobs share the import.

        Raises:
            PalateError: the job raised one, failed otherwise, or its process died.
        """
        if self._process is None:
            self.start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        # A process that ended before it read the job leaves a broken pipe; the loop then finds the end of its output.
        with contextlib.suppress(BrokenPipeError, OSError):
            # The job is pickled on its own inside the frame: what cannot be read there must not cut the stream.
            pickle.dump((imports, pickle.dumps((function, arguments))), process.stdin)
            process.stdin.flush()
        while True:
            self._reading = True
            try:
                kind, value = pickle.load(process.stdout)
            except (EOFError, OSError, pickle.UnpicklingError, ValueError):
                break
            finally:
                self._reading = False
            if kind == "progress":
                progress(value)
                continue
            if self._isolated and not LINUX:
                self._stop()
            if kind == "failed":
                raise value
            return value
        process.stdout.close()
        code = process.wait()
        self._stop(kill=True)
        raise PalateError(_death(-code, code, self._log))

    def _stop(self, *, kill: bool = False) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            # A thread that is reading the output closes it itself, at its end.
            if pipe is not None and not (self._reading and pipe is process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # the process ends where its input does
        process.wait()


def side_by_side(
    function: Callable[..., Any],
    tasks: Iterable[Task],
    workers: int,
    *,
    setup: tuple[Any, ...] | None = None,
    progress: Progress = silent,
) -> Iterator[tuple[Task, Any]]:
    """Do ``function(task, progress)`` for each task in ``workers`` processes with one thread each.

    Args:
        function: of a module.
        tasks: taken only when a process is free, so the iterator may end the work.
        workers: number of processes.
        setup: a function and its arguments, called first in each process.
        progress: called with the events of all tasks, one at a time.

    Returns:
        Each task with its result, as they end. After an error the other processes are killed.
    """
    one_at_a_time = threading.Lock()

    def report(event: Any) -> None:
        with one_at_a_time:
            progress(event)

    with ThreadPoolExecutor(workers) as executor, contextlib.ExitStack() as stack:
        idle: SimpleQueue[Worker] = SimpleQueue()
        started = [stack.enter_context(Worker(threads=1)) for _ in range(workers)]
        for worker in started:  # here, not in the threads of the executor: see Worker.start
            worker.start()
            idle.put(worker)

        def work(task: Task) -> tuple[Task, Any]:
            worker = idle.get()
            try:
                return task, worker.do(function, task, progress=report)
            finally:
                idle.put(worker)

        if setup is not None:
            list(executor.map(lambda worker: worker.do(*setup), started))
        waiting = iter(tasks)
        running: set[Future[tuple[Task, Any]]] = set()
        while True:
            running |= {executor.submit(work, task) for task in islice(waiting, workers - len(running))}
            if not running:
                return
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            yield from [future.result() for future in ended]


def main() -> None:
    """Serve the process named on the command line until stdin ends."""
    parent, mode, threads = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    _end_with(parent)
    signals.ignore_interrupts()
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # the output of libraries must not get between the events

    def emit(kind: str, value: Any) -> None:
        events.write(pickle.dumps((kind, value)))
        events.flush()

    while True:
        try:
            imports, job = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        for module in imports:
            importlib.import_module(module)
        if mode == "isolated" and LINUX:
            _forked(job, emit, threads)
        else:
            if not LINUX:
                threading.Thread(target=_end_with_input, daemon=True).start()
            _serve(job, emit, threads)


def _serve(job: bytes, emit: Emit, threads: int) -> None:
    try:
        if threads:
            torch.set_num_threads(threads)
        function, arguments = pickle.loads(job)
        emit("done", function(*arguments, lambda event: emit("progress", event)))
    except PalateError as error:
        emit("failed", error)
    except MemoryError:
        emit("failed", PalateError("memory ran out: use less data or a smaller recipe"))
    except Exception as error:
        traceback.print_exc()
        words = f"{type(error).__name__}: {error} (a fault of Palate or of the recipe: see the log)"
        emit("failed", PalateError(words))


def _forked(job: bytes, emit: Emit, threads: int) -> None:
    """Do a job in a child, and report it if the child ends without a result.

    A fork after libraries have run on several threads hangs; here they are imported and nothing has been called.
    """
    mine = os.getpid()
    child = os.fork()
    if child == 0:
        _end_with(mine)
        code = 1
        try:
            _serve(job, emit, threads)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if status:
        emit("failed", PalateError(_death(status & 0x7F, status >> 8, None)))


def _death(number: int, code: int, log: Path | None) -> str:
    if number <= 0:
        return f"its process ended with code {code}: see {log or 'the log'}"
    reason = f"its process was killed by {signal.Signals(number).name}"
    if number == getattr(signal, "SIGKILL", None):
        reason += ", as the system does when memory runs out: use less data, a smaller recipe or fewer workers"
    return reason


def _end_with(parent: int) -> None:
    """End when the parent does, even if that is killed: no process would read the result."""
    if LINUX:
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)


def _end_with_input() -> None:
    # The parent sends nothing while a job runs: an end of the input then means that the parent has ended.
    if not cast(Any, sys.stdin.buffer).peek(1):
        os._exit(1)
