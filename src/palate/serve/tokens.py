"""Random names of requests, lists and events."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode

SIZE = 12  # bytes of a name: 16 characters
BLOCK = 512 * SIZE  # a call of the system costs as much as half of a request


class Tokens:
    """Names from the random bytes of the system, fetched in blocks; for one thread."""

    def __init__(self) -> None:
        self._bytes, self._place = b"", 0

    def __call__(self) -> str:
        """A fresh name of 16 letters, digits, - and _."""
        if self._place == len(self._bytes):
            self._bytes, self._place = os.urandom(BLOCK), 0
        part = self._bytes[self._place : self._place + SIZE]
        self._place += SIZE
        return urlsafe_b64encode(part).decode()


token = Tokens()
"""Of the event loop."""
