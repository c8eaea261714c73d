"""Signals: the only module that decides how SIGINT, SIGTERM and SIGHUP end a process.

A command ends with one line and the exit code 128 + n, as a shell reports it (130 for Ctrl-C, 143 for SIGTERM); a
second signal ends it at once. The library installs no handlers: ``undisturbed`` only keeps a library that would swallow
signals (Lightning) from doing so.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

__all__ = ["Stopped", "ignore_interrupts", "on_stop", "release", "stoppable", "undisturbed"]

HANDLED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
GRACE = 5.0  # seconds between a signal and the end of the process, where something does not return
SHOW_CURSOR = "\x1b[?25h"

_note = [""]
_before: dict[int, Any] = {}


class Stopped(BaseException):
    """A signal; like KeyboardInterrupt it is no Exception, so that nothing treats it as a failure and goes on.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def code(self) -> int:
        """The exit code."""
        return 128 + self.number

    def __str__(self) -> str:
        return f"stopped; {_note[0]}" if _note[0] else "stopped"


def on_stop(note: str) -> None:
    """Say what the line at the end adds to "stopped", for example "the same command resumes from runs/first"."""
    _note[0] = note


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise ``Stopped`` inside at the first signal; a process that does not end within seconds is ended.

    Signals that are ignored, as by nohup, stay ignored. Outside of the main thread nothing changes.
    """
    on_stop("")
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # The handler of Python runs only between two steps of the interpreter: a long computation in C would hold up the
    # second Ctrl-C. The bytes in the pipe are written by the handler of the system, and read by a thread.
    pipe_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    _before.update({one: signal.getsignal(one) for one in HANDLED})
    for one, handler in _before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(one, _stop)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()
    try:
        yield
    finally:
        release()
        with suppress(ValueError):
            signal.set_wakeup_fd(pipe_before)
        os.close(writer)  # the thread ends


def release() -> None:
    """Give the signals back to the handlers that were there before ``stoppable``: a server has its own."""
    for one, handler in _before.items():
        signal.signal(one, handler)
    _before.clear()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals end what runs inside as they would end it outside, even where a library catches them.

    Lightning turns Ctrl-C into a silent exit and holds SIGTERM back to end with code 0: it gets neither.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    if before[signal.SIGINT] is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    if before[signal.SIGTERM] is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _default)
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # Lightning's answer to one
            raise KeyboardInterrupt from None
        raise
    except Stopped:
        if before[signal.SIGINT] is signal.default_int_handler:
            raise KeyboardInterrupt from None
        raise
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def ignore_interrupts() -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def _default(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _watch(reader: int) -> None:
    received = 0
    while byte := os.read(reader, 1):
        # Not while a server has the signals, and not those of other purposes, such as SIGCHLD.
        if byte[0] not in _before or _before[byte[0]] is signal.SIG_IGN:
            continue
        if received:
            _end(byte[0])
        received = byte[0]
        timer = threading.Timer(GRACE, _end, (received, str(Stopped(received))))
        timer.daemon = True  # it stays until the process has ended: the end can hang, too
        timer.start()
    os.close(reader)


def _end(number: int, line: str = "") -> None:
    with suppress(OSError):
        cursor = SHOW_CURSOR if os.isatty(sys.__stderr__.fileno() if sys.__stderr__ else 2) else ""
        os.write(2, f"{cursor}{line}\n".encode() if line else cursor.encode())
    os._exit(128 + number)
