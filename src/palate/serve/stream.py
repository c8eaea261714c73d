"""Server-sent events: messages to those who look on, for as long as they look.

stream.publish("overview", figures)              # to all readers
async for part in stream.messages(private=True): # bytes for one listener, until the stream is closed
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson

WAITING = 64  # messages that wait for one listener; one that is slower is sent away, and comes back if it wants


class Stream:
    """The listeners of a process; one event loop uses it."""

    def __init__(self) -> None:
        self._listeners: dict[asyncio.Queue[bytes], bool] = {}
        self._closed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._listeners)

    def publish(self, name: str, value: Any, private: bool = False) -> None:
        """Send a message to all listeners, or only to those that may see ids of users."""
        message = b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(value))
        for waiting, sees_private in list(self._listeners.items()):
            if private and not sees_private:
                continue
            try:
                waiting.put_nowait(message)
            except asyncio.QueueFull:
                del self._listeners[waiting]

    async def messages(self, private: bool, first: dict[str, Any]) -> AsyncIterator[bytes]:
        """Messages for one listener, as bytes, until the stream is closed or the listener is too slow.

        Args:
            private: whether it may see ids of users.
            first: messages by name, sent at once.
        """
        waiting: asyncio.Queue[bytes] = asyncio.Queue(WAITING)
        self._listeners[waiting] = private
        closed: asyncio.Future[Any] = asyncio.ensure_future(self._closed.wait())
        waits = {closed}
        try:
            yield b"retry: 2000\n\n"
            for name, value in first.items():
                yield b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(value))
            while waiting in self._listeners and not self._closed.is_set():
                message = asyncio.ensure_future(waiting.get())
                waits = {message, closed}
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if not message.done():
                    return
                yield message.result()
        finally:
            for one in waits:  # those of a listener who has gone away, too
                one.cancel()
            self._listeners.pop(waiting, None)

    def close(self) -> None:
        """End all streams; for signal handlers, too."""
        self._closed.set()
