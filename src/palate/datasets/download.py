"""Get a remote file whole or not at all: resumed, checked, and under its own name only when it is complete.

While a file arrives it is called ``NAME.part``, with the address and version it comes from in ``NAME.part.json``.
``NAME`` appears by an atomic rename after the last byte was checked, so a file of that name can be trusted.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from palate.errors import SourceError

__all__ = ["Log", "cache_folder", "checksum_of", "fetch", "locked", "pip_download", "replace_with"]

Log = Callable[[str], None]

BLOCK = 1 << 17
ATTEMPTS = 4


def cache_folder() -> Path:
    """Where downloads are kept: ``PALATE_CACHE``, else ``palate`` in the user's cache folder."""
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
    progress: bool = True,
    log: Log | None = None,
) -> Path:
    """Download ``url`` to the file ``to`` and return it; a file that is there already is returned as it is.

    A download that was cut off or killed goes on where it stopped if the server still has the same version.
    Several processes may ask for the same file: one downloads, the others wait for it.

    Args:
        url: http or https address.
        to: the file to make; its folder is created.
        checksum: "md5:..." or any other name that hashlib knows; None checks the length alone.
        size: bytes that the file must have, or None.
        timeout: seconds to wait for the first answer and for each block.
        progress: show a bar where the standard error is a terminal.
        log: told in one line each what happens.

    Raises:
        SourceError: no answer, a truncated answer, another size, or a wrong checksum.
    """
    say = log or (lambda _: None)
    with locked(to, say):
        if to.exists():
            return to
        part = to.with_name(to.name + ".part")
        _download(_Job(url, part, size, timeout, progress, say))
        if checksum is not None and (found := checksum_of(part, checksum)) != checksum:
            _discard(part)
            raise SourceError(f"{url}: checksum is {found}, expected {checksum}; the file was deleted: try again later")
        replace_with(part, to)
        _discard(part)
    return to


def replace_with(new: Path, to: Path) -> None:
    """Give the finished file ``new`` the name ``to``, after its bytes have reached the disk."""
    with new.open("r+b") as file:
        os.fsync(file.fileno())
    os.replace(new, to)


def checksum_of(path: Path, like: str = "md5:") -> str:
    """The checksum of a file, as "NAME:hex", with the algorithm that ``like`` begins with."""
    algorithm = like.partition(":")[0]
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


@contextmanager
def locked(path: Path, log: Log) -> Iterator[None]:
    """Hold the right to make ``path``; the system gives it back when the process ends, however it ends.

    Raises:
        SourceError: the folder of ``path`` cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("a+b")
    except OSError as error:
        advice = "set PALATE_CACHE to a folder that can be written to"
        raise SourceError(f"{path.parent} cannot be written to ({error.strerror}): {advice}") from None
    with lock as file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log(f"{path.name}: another process is getting it, waiting")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def pip_download(requirement: str, folder: Path, *, timeout: float = 60.0) -> Path:
    """Download one wheel, without its dependencies, through the pip of this Python, and return its path.

    Raises:
        SourceError: there is no pip, it took longer than ``timeout`` seconds, or it failed.
    """
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"]
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
    progress: bool
    log: Log


@dataclass(frozen=True)
class _Origin:
    """Which version of which file the bytes of a part belong to."""

    url: str
    version: str
    total: int | None


def _download(job: _Job) -> None:
    """Fill the part to its last byte; a cut connection is taken up again as long as bytes arrive."""
    url, part = job.url, job.part
    for attempt in range(1, ATTEMPTS + 1):
        before = _length(part)
        try:
            return _transfer(job)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and part.exists():
                _discard(part)
                continue
            raise SourceError(f"{url}: the server answered {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = _reason(error, job.timeout)
            if attempt == ATTEMPTS or _length(part) <= before:
                kept = f" ({_length(part):,} bytes are kept to go on from)" if _length(part) else ""
                raise SourceError(f"{url}: {reason}{kept}") from None
            job.log(f"{url}: {reason} after {_length(part):,} bytes, going on")


def _transfer(job: _Job) -> None:
    """One connection: append what is missing, or start afresh if the file is no longer the same."""
    url, part, size = job.url, job.part, job.size
    start, known = _progress_of(part, url)
    if known is not None and start == known.total:
        return
    with _open(url, start, known, job.timeout) as response:
        origin = _origin_of(url, response, start)
        resumed = response.status == 206 and origin == known
        if response.status == 206 and not resumed:
            if not start:
                raise ConnectionError("a part was sent where the whole file was asked for")
            job.log(f"{url}: changed there, starting again")
            _discard(part)
            return _transfer(job)
        if origin.total is not None and size is not None and origin.total != size:
            _discard(part)
            raise SourceError(f"{url}: offers {origin.total:,} bytes, expected {size:,}: the file has changed there")
        if resumed:
            job.log(f"{url}: going on from byte {start:,}")
        else:
            if start:
                job.log(f"{url}: changed there or cannot be resumed, starting again")
            part.unlink(missing_ok=True)
            _origin_path(part).write_text(json.dumps(asdict(origin)))
        _copy(response, part, origin.total, job.progress)
    whole = origin.total if origin.total is not None else size
    if whole is not None and _length(part) != whole:
        raise ConnectionError(f"ended at {_length(part):,} of {whole:,} bytes")


def _copy(response: http.client.HTTPResponse, part: Path, total: int | None, progress: bool) -> None:
    console = Console(stderr=True)
    name = TextColumn(part.name.removesuffix(".part"))
    columns = (name, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, disable=not (progress and console.is_terminal))
    with part.open("ab") as file, bar:
        task = bar.add_task("", total=total, completed=file.tell())
        while block := response.read1(BLOCK):
            file.write(block)
            bar.advance(task, len(block))


def _open(url: str, start: int, known: _Origin | None, timeout: float) -> http.client.HTTPResponse:
    """Ask for the bytes from ``start`` on; no part of asking may take longer than the timeout."""
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

    # The system's resolver knows no timeout: ask in a thread that can be left behind.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=timeout + 1)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _progress_of(part: Path, url: str) -> tuple[int, _Origin | None]:
    """How many bytes of ``url`` the part holds, and their version; 0 where it cannot be told what they are."""
    try:
        origin = _Origin(**json.loads(_origin_path(part).read_text()))
    except (OSError, ValueError, TypeError):
        return 0, None
    start = _length(part)
    return (start, origin) if start and origin.url == url and origin.version else (0, None)


def _origin_of(url: str, response: http.client.HTTPResponse, start: int) -> _Origin:
    headers = response.headers
    etag = headers.get("ETag", "")
    # A weak tag does not promise equal bytes, so it may not be used to resume (RFC 9110, 13.1.5).
    version = headers.get("Last-Modified", "") if etag.startswith("W/") or not etag else etag
    if response.status == 206:
        span, _, total = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        right = span.partition("-")[0] == str(start)
        return _Origin(url, version if right else "", int(total) if total.isdigit() else None)
    length = headers.get("Content-Length", "")
    return _Origin(url, version, int(length) if length.isdigit() else None)


def _reason(error: Exception, timeout: float) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {timeout:g} s"
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _origin_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _origin_path(part).unlink(missing_ok=True)
