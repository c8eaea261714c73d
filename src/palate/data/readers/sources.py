"""Where bytes come from: files, folders, patterns, standard input and URLs, decompressed whatever their names are."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import re
import shlex
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from palate.data.columns import listed, one_line
from palate.errors import DataError
from palate.progress import Progress, ProgressEvent, silent

HEAD = 65_536
CHUNK = 1 << 23
STDIN = "-"
WEB, CLOUD = ("http", "https"), ("s3", "gs", "gcs")
PARTITION = re.compile("[^=]+=")  # a folder that holds the rows with one value of a column: country=US
NO_DATA = ("readme", "license", "licence", "copying", "changelog")  # left out of a folder
TIMEOUT = 60.0  # seconds without an answer from a web server
# What the decompressors raise for a damaged or truncated file.
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException)

Place = str | Path
Data = Place | Sequence[Place]


@dataclass(frozen=True)
class Opened:
    """A file opened for reading.

    Args:
        name: its name in messages.
        stream: its content, decompressed.
        head: the first bytes of the content, which ``stream`` does not give again.
        file: the file itself; its position shows how far reading is.
        size: bytes of the file, or None where it is not known.
        progress: called with the bytes read.
    """

    name: str
    stream: BinaryIO
    head: bytes
    file: BinaryIO
    size: int | None
    progress: Progress = silent

    def chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        """The content in parts of at most ``size`` bytes.

        Raises:
            DataError: the file is damaged.
        """
        chunk = self.head
        while chunk:
            yield chunk
            if self.size is None or self.size > size:  # a small file is read before anybody looks
                self.progress(ProgressEvent(f"read {self.name}", self.file.tell(), self.size, "byte"))
            try:
                chunk = self.stream.read(size)
            except DAMAGED as error:
                raise DataError(f"{self.name}: cannot be read ({brief(error)}): is the file whole?") from error

    @property
    def path(self) -> str:
        """The path as the shell takes it, or FILE where the content is not that of a file."""
        path = getattr(self.file, "name", None)
        return shlex.quote(str(path)) if self.stream is self.file and isinstance(path, str | Path) else "FILE"

    @contextmanager
    def seekable(self) -> Iterator[BinaryIO]:
        """The content as a file in which any place can be read: a temporary copy where it is a stream."""
        if self.stream is self.file and self.file.seekable():
            self.file.seek(0)
            yield self.file
            return
        with tempfile.TemporaryFile() as copy:
            for chunk in self.chunks():
                copy.write(chunk)
            copy.seek(0)
            yield cast(BinaryIO, copy)


def is_url(place: Place) -> bool:
    """Whether a text is a URL, such as ``https://...`` or ``postgresql://...``."""
    return isinstance(place, str) and re.match(r"[a-z][a-z0-9+.-]+://", place, re.IGNORECASE) is not None


def exists(place: str) -> bool:
    """Whether there is something to read under a name: a file, a folder, files that match a pattern, or a URL."""
    return place == STDIN or is_url(place) or Path(place).exists() or bool(glob.glob(place))


def places(data: Data) -> list[Place]:
    """The files that ``data`` stands for: itself, those in a folder or of a pattern (by name), or those listed.

    Raises:
        DataError: there are none.
    """
    if not isinstance(data, str | Path):
        return [one for part in data for one in places(part)]
    if is_url(data) or data == STDIN:
        return [data]
    path = Path(data)
    if path.is_dir():
        files, folders = _inside(path)
        if not files:
            remedy = f"name one of its folders ({listed(folders)})" if folders else "name a file or a folder with files"
            raise DataError(f"{data}: the folder has no files of interactions: {remedy}")
        return [*sorted(files, key=_by_number)]
    if not path.exists() and re.search(r"[*?\[]", str(data)):
        found = [one for one in map(Path, glob.glob(str(data), recursive=True)) if one.is_file()]
        if not found:
            raise DataError(f"{data}: no file matches the pattern: check the path")
        return [*sorted(found, key=_by_number)]
    return [path]


def folders_left_out(data: Data) -> list[str]:
    """Names of the folders inside a folder of files that are not read, since they are no partitions."""
    if not isinstance(data, str | Path):
        return [name for part in data for name in folders_left_out(part)]
    return [] if is_url(data) or not Path(data).is_dir() else _inside(Path(data))[1]


def partition(data: Data, place: Place) -> dict[str, str | None]:
    """The columns in the names of folders below the one that was given: log/country=US/date=2021-09-13/part.parquet."""
    if isinstance(place, str):
        return {}
    given = [Path(one) for one in ([data] if isinstance(data, str | Path) else data) if not is_url(one)]
    # A pattern has its parts of the path from the first one with a wildcard on.
    fixed = (Path(*takewhile(lambda part: not re.search(r"[*?\[]", part), one.parts)) for one in given)
    below = [place.relative_to(root) for root in fixed if root != place and place.is_relative_to(root)]
    pairs = (part.split("=", 1) for part in (below[0].parts[:-1] if below else ()) if PARTITION.match(part))
    return {name: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value) for name, value in pairs}


def short_name(place: Place) -> str:
    """The last part of a path or URL, without what a URL carries behind it: that may be a key."""
    if place == STDIN:
        return "standard input"
    return Path(urlsplit(str(place)).path if is_url(place) else place).name or str(place)


@contextmanager
def opened(place: Place, progress: Progress = silent) -> Iterator[Opened]:
    """A file opened for reading, whatever it is compressed with: gzip, Zstandard, bzip2, xz, LZ4 or zip.

    Raises:
        DataError: there is no such file, it is empty or damaged, or it is an archive of several files.
    """
    name = short_name(place)
    raw, size = _raw(place, name)
    with ExitStack() as stack:
        file = stack.enter_context(raw)
        try:
            stream = _unpacked(file, name, stack)
            head = _read(stream, HEAD)
        except DAMAGED as error:
            raise DataError(f"{name}: cannot be read ({brief(error)}): is the file whole?") from error
        if not head.strip():
            raise DataError(f"{name}: the file is empty")
        yield Opened(name, stream, head, file, size, progress)


def brief(error: Exception) -> str:
    """The first line of an error, for a message of one line."""
    return one_line(str(error).strip().splitlines()[0][:120]) if str(error).strip() else type(error).__name__


def _inside(folder: Path) -> tuple[list[Path], list[str]]:
    """Files of interactions in a folder and in its partitions (country=US), and the names of other folders."""
    # Names that begin with a dot or an underline are marks of other programs, such as _SUCCESS.
    inside = [one for one in folder.iterdir() if one.name[0] not in "._" and one.stem.lower() not in NO_DATA]
    files, folders = [one for one in inside if one.is_file()], [one for one in inside if one.is_dir()]
    for one in folders:
        if PARTITION.match(one.name):
            files += _inside(one)[0]
    return files, sorted(one.name for one in folders if not PARTITION.match(one.name))


def _by_number(path: Path) -> list[Any]:
    """The order of names in which part-9 comes before part-10."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if at % 2 else part for at, part in enumerate(parts)]


def _raw(place: Place, name: str) -> tuple[io.BufferedReader, int | None]:
    """The bytes as they are stored, and their number where it is known."""
    if place == STDIN:
        return io.BufferedReader(_Stream(sys.stdin.buffer)), None
    scheme = urlsplit(str(place)).scheme.lower() if is_url(place) else ""
    if scheme in WEB:
        return _web(str(place), name)
    if scheme in CLOUD:
        return _cloud(str(place).replace("gcs://", "gs://", 1), name)
    path = Path(place)
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file in it")
    if path.is_fifo() and not str(path).startswith("/dev/"):  # the shell's <(COMMAND) has a writer
        raise DataError(f"{path} is a pipe, which waits until a process writes into it: give - and  < {path}")
    try:
        return path.open("rb"), path.stat().st_size
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: check the path") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}): check its rights") from error


def _web(url: str, name: str) -> tuple[io.BufferedReader, int | None]:
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    try:
        answer = urlopen(Request(url, headers={"User-Agent": "palate"}), timeout=TIMEOUT)
    except HTTPError as error:
        raise DataError(f"{name}: the server answers {error.code} {error.reason}: check the address") from error
    except (URLError, OSError) as error:
        raise DataError(f"{name}: the server cannot be reached ({brief(error)}): check the address") from error
    length = answer.headers.get("Content-Length")
    size = int(length) if length else None
    return io.BufferedReader(_Stream(answer, size)), size


def _cloud(url: str, name: str) -> tuple[io.BufferedReader, int | None]:
    from pyarrow import fs

    try:
        system, path = fs.FileSystem.from_uri(url)
        file = system.open_input_file(path)
        return io.BufferedReader(_Stream(file, file.size())), file.size()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{name}: cannot be opened ({brief(error)}): check the address and your credentials") from error


class _Stream(io.RawIOBase):
    """A stream that can't go back; it knows its position, and an end before ``size`` bytes is an error."""

    def __init__(self, source: Any, size: int | None = None) -> None:
        super().__init__()
        self._source, self._size, self._position = source, size, 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if not self.closed and self._source is not sys.stdin.buffer:
            self._source.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        part = self._source.read(len(buffer))
        buffer[: len(part)] = part
        self._position += len(part)
        if not part and self._size is not None and self._position < self._size:
            raise OSError(f"the connection ended after {self._position:,} of {self._size:,} bytes")
        return len(part)


def _unpacked(file: io.BufferedReader, name: str, stack: ExitStack) -> BinaryIO:
    start = file.peek(8)[:8]
    if start.startswith(b"\x1f\x8b"):
        return _unpacked(cast(io.BufferedReader, gzip.GzipFile(fileobj=file, mode="rb")), name, stack)
    if start.startswith(b"BZh"):
        return cast(BinaryIO, bz2.BZ2File(file))
    if start.startswith(b"\xfd7zXZ\x00"):
        return cast(BinaryIO, lzma.LZMAFile(file))
    for magic, codec in ((b"\x28\xb5\x2f\xfd", "zstd"), (b"\x04\x22\x4d\x18", "lz4")):
        if start.startswith(magic):
            return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(file, "r"), codec))
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _only_member(file, name, stack)
    return file


def _only_member(file: io.BufferedReader, name: str, stack: ExitStack) -> BinaryIO:
    if not file.seekable():
        copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        shutil.copyfileobj(file, copy)
        copy.seek(0)
        file = cast(io.BufferedReader, copy)
    archive = zipfile.ZipFile(file)
    # Finder of macOS adds a hidden copy of each file.
    members = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
    if any(one.filename == "xl/workbook.xml" for one in members):
        file.seek(0)  # an Excel workbook is a zip archive of its own
        return file
    if len(members) != 1:
        names = ", ".join(one.filename for one in members[:5])
        more = ", ..." if len(members) > 5 else ""
        raise DataError(f"{name}: the zip archive has {len(members)} files ({names}{more}): unpack it and name one")
    return _unpacked(cast(io.BufferedReader, archive.open(members[0])), name, stack)


def _read(stream: BinaryIO, size: int) -> bytes:
    """At least one byte and at most ``size``: a compressed stream may give less than asked for."""
    parts = io.BytesIO()
    while parts.tell() < size and (part := stream.read(size - parts.tell())):
        parts.write(part)
    return parts.getvalue()
