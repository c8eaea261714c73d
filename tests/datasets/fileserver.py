"""A web server on this machine that can be slow, stall, cut answers off and change its files."""

from __future__ import annotations

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = 1 << 16


class FileServer:
    """Serves ``files`` (path -> bytes) with ETag and Range; use as a context manager.

    cuts: one number of bytes for each coming answer, after which the connection is closed.
    stalls: one number of bytes for each coming answer, after which nothing comes until the server is closed.
    stall_all: never answer anything.
    pause: seconds between blocks.
    ranges: understand Range; careless: do so even where If-Range says that the file has changed.
    """

    def __init__(self, files: dict[str, bytes], etag: str | None = '"1"') -> None:
        self.files, self.etag = files, etag
        self.cuts: list[int] = []
        self.stalls: list[int] = []
        self.stall_all = False
        self.pause = 0.0
        self.ranges, self.careless = True, False
        self.asked: list[tuple[str, str | None]] = []
        self.closing = threading.Event()

    def __enter__(self) -> FileServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.closing.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{path}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.lstrip("/")
        wanted = request.headers.get("Range")
        self.asked.append((path, wanted))
        if self.stall_all:
            self.closing.wait()
            return
        if path not in self.files:
            request.send_error(404)
            return
        body, start = self.files[path], 0
        fresh = self.careless or request.headers.get("If-Range") == self.etag
        if wanted and self.ranges and fresh:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if self.etag:
            request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send(request, body[start:])

    def send(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        stall = self.stalls.pop(0) if self.stalls else None
        cut = self.cuts.pop(0) if self.cuts else stall
        shown = body if cut is None else body[:cut]
        for at in range(0, len(shown), BLOCK):
            request.wfile.write(shown[at : at + BLOCK])
            time.sleep(self.pause)
        if stall is not None:
            self.closing.wait()
        request.close_connection = True
