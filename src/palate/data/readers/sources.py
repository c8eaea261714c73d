"""Files as streams of bytes: compression is recognized by the first bytes, not by the name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from palate.errors import DataError
from palate.progress import Progress, ProgressEvent, silent

HEAD = 65_536
CHUNK = 1 << 23
# What the decompressors raise for a damaged or truncated file.
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException)


@dataclass(frozen=True)
class Opened:
    """A file opened for reading.

    Args:
        name: its name in messages.
        path: where the file is.
        stream: its content, decompressed.
        head: the first bytes of the content, which ``stream`` gives again.
        packed: whether the file is compressed.
        file: the file itself; its position shows how far reading is.
        size: bytes of the file.
    """

    name: str
    path: Path
    stream: BinaryIO
    head: bytes
    packed: bool
    file: BinaryIO
    size: int

    def chunks(self, progress: Progress = silent, size: int = CHUNK) -> Iterator[bytes]:
        """The content in parts of at most ``size`` bytes."""
        chunk = self.head
        while chunk:
            yield chunk
            progress(ProgressEvent(f"read {self.name}", self.file.tell(), self.size, "byte"))
            try:
                chunk = self.stream.read(size)
            except DAMAGED as error:
                raise DataError(f"{self.name}: cannot be read ({brief(error)}): is the file whole?") from error


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """A file opened for reading, whatever it is compressed with: gzip, Zstandard, bzip2, xz, LZ4 or zip.

    Raises:
        DataError: there is no such file, it is empty or damaged, or it is an archive of several files.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file in it")
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: check the path") from error
    with file:
        start = file.read(8)
        file.seek(0)
        try:
            stream = _unpacked(file, start, path)
            head = _read(stream, HEAD)
        except DAMAGED as error:
            raise DataError(f"{path.name}: cannot be read ({brief(error)}): is the file whole?") from error
        if not head.strip():
            raise DataError(f"{path.name}: the file is empty")
        yield Opened(path.name, path, stream, head, stream is not file, file, path.stat().st_size)


def brief(error: Exception) -> str:
    """The first line of an error, for a message of one line."""
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__


def _unpacked(file: BinaryIO, start: bytes, path: Path) -> BinaryIO:
    if start.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if start.startswith(b"BZh"):
        return cast(BinaryIO, bz2.BZ2File(file))
    if start.startswith(b"\xfd7zXZ\x00"):
        return cast(BinaryIO, lzma.LZMAFile(file))
    for magic, name in ((b"\x28\xb5\x2f\xfd", "zstd"), (b"\x04\x22\x4d\x18", "lz4")):
        if start.startswith(magic):
            return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(file, "r"), name))
    if start.startswith(b"PK\x03\x04"):
        return _only_member(file, path)
    return file


def _only_member(file: BinaryIO, path: Path) -> BinaryIO:
    archive = zipfile.ZipFile(file)
    # Finder of macOS adds a hidden copy of each file.
    members = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        names = ", ".join(one.filename for one in members[:5])
        more = ", ..." if len(members) > 5 else ""
        raise DataError(
            f"{path.name}: the zip archive has {len(members)} files ({names}{more}): unpack it and name one"
        )
    return cast(BinaryIO, archive.open(members[0]))


def _read(stream: BinaryIO, size: int) -> bytes:
    """At least one byte and at most ``size``: a compressed stream may give less than asked for."""
    parts = io.BytesIO()
    while parts.tell() < size and (part := stream.read(size - parts.tell())):
        parts.write(part)
    return parts.getvalue()
