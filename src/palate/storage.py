"""Durable files: atomic replacement, locks between processes, digests and manifests. The only module that does these.

    with storage.replacing(path) as temporary:      # the file appears under its name whole, or not at all
        frame.write_parquet(temporary)
    with storage.lock(folder / ".lock", wait=False): ...

A folder format (bundle, split, comparison, study, batch of lists) is described by one manifest: a JSON file with
``kind``, ``version``, ``files`` (name, sha256, bytes of each file) and ``checksum`` over everything else.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout

from palate.errors import BundleError, StorageError

__all__ = [
    "backup_of",
    "digest_file",
    "digest_json",
    "file_record",
    "is_temporary",
    "lock",
    "move_into_place",
    "read_json",
    "read_manifest",
    "replace_folder",
    "replacing",
    "sync",
    "verify_file",
    "write_content",
    "write_json",
    "write_manifest",
]

TEMPORARY = ".palate-tmp-"
JSON_BYTES, JSON_DEPTH = 64 << 20, 64
FULL = 1 << 20  # bytes free on a disk on which torch cannot write


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an error.

    The bytes are on the disk before the name is; permissions follow the umask or those of the file replaced. After an
    error the temporary file is removed and the old file, if any, is unchanged. A link stays, and the file that it
    names is replaced; a device or a pipe is written as it is.

    Raises:
        OSError: the system cannot write, whatever exception the library that writes has made of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        yield path
        return
    target = path.resolve()
    temporary = _temporary(target)
    with _system_errors(temporary, path):
        try:
            yield temporary
            move_into_place(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def move_into_place(temporary: Path, path: Path) -> None:
    """Give a finished file of the same folder its name; its bytes are on the disk before the name is."""
    sync(temporary)
    # Libraries that make their file with mkstemp (safetensors) leave mode 0600, whatever the umask.
    if path.exists():
        mode = path.stat().st_mode & 0o777
    else:
        mask = os.umask(0o077)  # it cannot be read without being set
        os.umask(mask)
        mode = 0o666 & ~mask
    temporary.chmod(mode)
    os.replace(temporary, path)
    sync(path.parent)


def write_content(folder: Path, stem: str, suffix: str, write: Callable[[Path], object]) -> dict[str, Any]:
    """Write a file under the name of its content, ``stem-<16 hex digits>suffix``, and return its manifest record.

    Equal content has an equal name, so a save never changes a file that an older manifest names.

    Args:
        folder: an existing folder.
        stem, suffix: the two ends of the name, for example "weights" and ".safetensors".
        write: called with the temporary path to write to.
    """
    temporary = _temporary(folder / f"{stem}{suffix}")
    with _system_errors(temporary, folder / f"{stem}{suffix}"):
        try:
            write(temporary)
            digest = digest_file(temporary)
            path = folder / f"{stem}-{digest[:16]}{suffix}"
            move_into_place(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return {"name": path.name, "sha256": digest, "bytes": path.stat().st_size}


def replace_folder(stage: Path, target: Path) -> None:
    """Put the finished folder ``stage`` in the place of ``target``.

    A folder cannot be replaced in one step: a process killed between the two renames leaves the old one, whole, as
    ``.NAME.old`` beside it (``backup_of``).
    """
    backup = backup_of(target)
    if target.exists():
        shutil.rmtree(backup, ignore_errors=True)
        target.rename(backup)
    stage.rename(target)
    sync(target.parent)
    shutil.rmtree(backup, ignore_errors=True)


def backup_of(folder: Path) -> Path:
    """Where ``replace_folder`` keeps the old folder until the new one is in place."""
    return folder.with_name(f".{folder.name}.old")


def is_temporary(name: str) -> bool:
    """Whether ``replacing`` made a file of this name: left over if no save is running."""
    return name.startswith(TEMPORARY)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    if path.is_dir() and sys.platform == "win32":
        return  # Windows has no handle for the names of a folder
    # Windows flushes only handles that may write; elsewhere the file may be read-only.
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file ``path``; the system releases it when the process ends, however it ends.

    Raises:
        StorageError: ``wait`` is False and another process holds it.
    """
    try:
        with FileLock(path, timeout=-1 if wait else 0):
            yield
    except Timeout:
        raise StorageError(f"another process holds {path}: wait until it ends") from None


def digest_file(path: Path) -> str:
    """SHA-256 of a file, as 64 hex digits."""
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(content: Any) -> str:
    """SHA-256 of a JSON value, as 64 hex digits; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_record(path: Path) -> dict[str, Any]:
    """The record of a file in a manifest: name, sha256, bytes."""
    return {"name": path.name, "sha256": digest_file(path), "bytes": path.stat().st_size}


def verify_file(folder: Path, record: Mapping[str, Any]) -> Path:
    """The path of a file of a manifest whose size and digest are as recorded.

    Raises:
        BundleError: it is missing, cut short or changed, or the record names a path outside the folder.
    """
    name = str(record["name"])
    if name in ("", ".", "..") or Path(name).name != name or "\\" in name:
        raise BundleError(f"{folder} names a file {name!r} outside itself: save it again")
    path = folder / name
    try:
        size, digest = path.stat().st_size, digest_file(path)
    except OSError as error:
        raise BundleError(f"{path} is missing or unreadable ({error.strerror}): copy or save it again") from error
    if size != record["bytes"]:
        raise BundleError(f"{path} has {size:,} bytes instead of {record['bytes']:,}: copy or save it again")
    if digest != record["sha256"]:
        raise BundleError(f"{path} was changed after it was saved (checksum differs): copy or save it again")
    return path


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def read_json(path: Path) -> Any:
    """The content of a JSON file; None if it is missing or cannot be parsed."""
    try:
        return _parsed(path)
    except (OSError, ValueError):
        return None


def write_manifest(path: Path, kind: str, version: int, content: Mapping[str, Any]) -> None:
    """Write a manifest with its checksum; from here on it describes the folder."""
    manifest = {"kind": kind, "version": version, **content}
    write_json(path, {**manifest, "checksum": digest_json(manifest)})


def read_manifest(path: Path, kind: str, version: int) -> dict[str, Any]:
    """A manifest whose kind, version and checksum are right.

    Raises:
        BundleError: it is missing, unreadable, changed, of another kind or of a newer version.
    """
    try:
        manifest = _parsed(path)
    except FileNotFoundError:
        raise BundleError(f"{path.parent} is not a {kind} ({path.name} is missing): give the folder of one") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({error}): save the {kind} again") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        raise BundleError(f"{path} is not the manifest of a {kind}: give the folder of one")
    found = manifest.get("version")
    if not isinstance(found, int) or not 1 <= found <= version:
        raise BundleError(
            f"{path.parent} has format version {found}, this Palate reads up to {version}: upgrade Palate"
        )
    checksum = manifest.pop("checksum", None)
    if checksum != digest_json(manifest):
        raise BundleError(f"{path} was changed after it was saved (checksum differs): save the {kind} again")
    return manifest


def _parsed(path: Path) -> Any:
    """The content of a JSON file, bounded in size and depth, so that what walks through it later cannot overflow."""
    with _opened(path) as file:
        text = file.read(JSON_BYTES + 1)
    if len(text) > JSON_BYTES:
        raise ValueError(f"more than {JSON_BYTES:,} bytes")
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("too deeply nested") from None
    level = [content]
    for _ in range(JSON_DEPTH):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return content
    raise ValueError(f"nested more than {JSON_DEPTH} deep")


def _opened(path: Path) -> io.BufferedReader:
    # A pipe would be waited for without end.
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.open("rb")


@contextmanager
def _system_errors(temporary: Path, path: Path) -> Iterator[None]:
    """Raise what libraries make of a full disk as the OSError that it is, with the path that a person has given."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number is not None and cast(OSError, error).filename not in (None, str(temporary)):
            raise
        # safetensors and polars: "... (os error 28)".
        if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):
            number = int(found[1])
        if number is None and "inline_container" in str(error) and shutil.disk_usage(path.parent).free < FULL:
            number = errno.ENOSPC  # torch says only that it could not write
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from None


def _temporary(path: Path) -> Path:
    # Beside the target: a rename between two file systems is a copy, which a crash can cut in half.
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
