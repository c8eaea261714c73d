"""Download a remote file completely or not at all; an interrupted download is resumed, and the checksum is verified.

While a file arrives it is called ``NAME.part``, and its address and version are in ``NAME.part.json``. ``NAME``
appears by an atomic rename after the last byte was checked, so a file of that name is complete.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import queue
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from palate.errors import SourceError, StorageError
from palate.progress import Progress, ProgressEvent, silent
from palate.storage import lock, move_into_place

BLOCK = 1 << 17  # bytes read at once, and the most between two progress events
ATTEMPTS = 4  # connections per call of ``fetch``


def cache_folder() -> Path:
    """The folder of downloads: ``PALATE_CACHE``, else ``palate`` in the user's cache folder."""
    if given := os.environ.get("PALATE_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "palate"


def fetch(
    url: str,
    to: Path,
    *,
    checksum: str | None = None,
    size: int | None = None,
    timeout: float = 5.0,
    progress: Progress = silent,
) -> Path:
    """Download ``url`` to the file ``to`` and return it; an existing file is returned as it is.

    An interrupted download is resumed if the server still has the same version. Of several processes that fetch the
    same file, one downloads and the others wait for it.

    Args:
        url: http or https address.
        to: the file to write; its folder is created.
        checksum: "md5:HEX", or the name of another algorithm of hashlib; None checks only the length.
        size: expected size in bytes, or None.
        timeout: seconds to wait for the first answer and for each block. Default: 5.
        progress: receives bytes done and in total, and a message when a download waits, is resumed or starts again.

    Raises:
        SourceError: no answer, a truncated answer, another size, or a wrong checksum.
    """
    with locked(to, progress):
        if to.exists():
            return to
        part = to.with_name(to.name + ".part")
        _download(_Job(url, part, size, timeout, f"download {to.name}", progress))
        # The bytes of a resumed download come from several connections, so only a checksum of the whole file counts.
        if checksum is not None and (found := checksum_of(part, checksum)) != checksum:
            _discard(part)
            raise SourceError(f"{url}: checksum is {found}, expected {checksum}; the file was deleted: try again later")
        move_into_place(part, to)
        _discard(part)
    return to


def checksum_of(path: Path, like: str = "md5:") -> str:
    """Checksum of a file as "ALGORITHM:HEX", with the algorithm of the checksum ``like``."""
    algorithm = like.partition(":")[0]
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


@contextmanager
def locked(path: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock for making the file ``path``, so that two processes do not download it twice.

    Raises:
        SourceError: the folder of ``path`` is not writable.
    """
    guard = path.with_name(path.name + ".lock")
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(lock(guard, wait=False))
            except StorageError:
                # Waiting for a large file takes minutes: without a message the command would seem to hang.
                progress(ProgressEvent(f"download {path.name}", message="another process downloads it, waiting"))
                held.enter_context(lock(guard))
        except OSError as error:
            advice = "set PALATE_CACHE to a writable folder"
            raise SourceError(f"{path.parent} is not writable ({error.strerror}): {advice}") from None
        yield


def pip_download(requirement: str, folder: Path, *, timeout: float = 60.0) -> Path:
    """Download one wheel, without its dependencies, through the pip of this Python, and return its path.

    Raises:
        SourceError: there is no pip, it took longer than ``timeout`` seconds, or it failed.
    """
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"]
    # pip's own patience (15 s, 5 retries) would keep an offline user waiting for a minute and a half.
    patience = ["--timeout", "5", "--retries", "0"]
    command = [sys.executable, "-m", "pip", "download", *options, *patience, "--dest", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise SourceError(f"pip did not deliver {requirement} within {timeout:g} s") from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip() or "no wheel arrived").splitlines()[-1]
        raise SourceError(f"pip could not get {requirement}: {reason}")
    return wheels[0]


@dataclass(frozen=True)
class _Job:
    url: str
    part: Path
    size: int | None
    timeout: float
    stage: str
    progress: Progress

    def say(self, message: str) -> None:
        self.progress(ProgressEvent(self.stage, message=message))

    def length(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0


@dataclass(frozen=True)
class _Origin:
    """The address, version and size in bytes of the file that a partial download belongs to."""

    url: str
    version: str
    total: int | None

    @classmethod
    def of(cls, url: str, response: http.client.HTTPResponse, start: int) -> _Origin:
        headers = response.headers
        etag = headers.get("ETag", "")
        # A weak tag does not promise equal bytes, so it may not be used to resume (RFC 9110, 13.1.5).
        version = headers.get("Last-Modified", "") if etag.startswith("W/") or not etag else etag
        total = headers.get("Content-Length", "")
        if response.status == 206:
            span, _, total = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            # Bytes from another place must not be appended: without a version the download starts again.
            version = version if span.partition("-")[0] == str(start) else ""
        return cls(url, version, int(total) if total.isdigit() else None)


def _download(job: _Job) -> None:
    """Complete the partial file; a lost connection is opened again as long as bytes arrive."""
    url, part = job.url, job.part
    for attempt in range(1, ATTEMPTS + 1):
        before = job.length()
        try:
            return _transfer(job)
        except urllib.error.HTTPError as error:
            error.close()
            # 416: the file on the server has become shorter than the part.
            if error.code == 416 and part.exists():
                _discard(part)
                continue
            raise SourceError(f"{url}: the server answered {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
            if isinstance(cause, TimeoutError):
                reason = f"no answer within {job.timeout:g} s"
            if attempt == ATTEMPTS or job.length() <= before:
                kept = f" ({job.length():,} bytes are kept; the next attempt resumes there)" if job.length() else ""
                raise SourceError(f"{url}: {reason}{kept}") from None
            job.say(f"{reason} after {job.length():,} bytes, connecting again")


def _transfer(job: _Job) -> None:
    """Append the missing bytes over one connection, or start again if the file has changed on the server."""
    url, part, size = job.url, job.part, job.size
    start, known = 0, None
    try:
        origin = _Origin(**json.loads(_origin_path(part).read_text()))
        if (kept := job.length()) and origin.url == url and origin.version:
            start, known = kept, origin
    except (OSError, ValueError, TypeError):
        pass  # bytes of unknown origin are never resumed
    if known is not None and start == known.total:
        return
    with _open(url, start, known, job.timeout) as response:
        origin = _Origin.of(url, response, start)
        resumed = response.status == 206 and origin == known
        if response.status == 206 and not resumed:
            if not start:
                raise ConnectionError("the server sent a part although the whole file was requested")
            # Some servers ignore If-Range and send the tail of a newer version.
            job.say("the file has changed on the server, starting again")
            _discard(part)
            return _transfer(job)
        if origin.total is not None and size is not None and origin.total != size:
            _discard(part)
            raise SourceError(f"{url}: offers {origin.total:,} bytes, expected {size:,}: the file has changed there")
        if resumed:
            job.say(f"resumed at byte {start:,}")
        else:
            if start:
                job.say("the file has changed on the server or cannot be resumed, starting again")
            part.unlink(missing_ok=True)
            _origin_path(part).write_text(json.dumps(asdict(origin)))
        whole = origin.total if origin.total is not None else size
        with part.open("ab") as file:
            # read1 returns the bytes that have arrived; read would lose up to a block when the connection breaks.
            while block := response.read1(BLOCK):
                file.write(block)
                job.progress(ProgressEvent(job.stage, file.tell(), whole, unit="byte"))
    if whole is not None and job.length() != whole:
        raise ConnectionError(f"ended at {job.length():,} of {whole:,} bytes")


def _open(url: str, start: int, known: _Origin | None, timeout: float) -> http.client.HTTPResponse:
    """Request the bytes from ``start`` on; the timeout covers resolving the name too."""
    request = urllib.request.Request(url, headers={"User-Agent": "palate", "Accept-Encoding": "identity"})
    if start and known is not None:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", known.version)
    answers: queue.Queue[http.client.HTTPResponse | Exception] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=timeout))
        except Exception as error:
            answers.put(error)

    # The system's resolver has no timeout: request in a thread that can be left behind.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=timeout + 1)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _origin_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _origin_path(part).unlink(missing_ok=True)
