"""The files of a bundle: written under the name of their content, checked when read, replaced in one step.

What a save has written and the manifest does not name is swept away at its end, by whoever holds the lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from palate.errors import BundleError

if TYPE_CHECKING:
    from torch import Tensor

    from palate.retrieval import Approximate

__all__ = [
    "KIND",
    "MANIFEST",
    "PARTS",
    "check_target",
    "checked",
    "digest",
    "locked",
    "read_manifest",
    "write_manifest",
    "write_part",
]

KIND = "palate bundle"
MANIFEST = "manifest.json"
PARTS = ("weights", "users", "items", "seen")
SUFFIXES = {**dict.fromkeys(PARTS, "parquet"), "weights": "safetensors", "index": "faiss"}
CONTENT_NAME = re.compile(rf"({'|'.join(SUFFIXES)})-[0-9a-f]{{16}}\.(safetensors|parquet|faiss)")
LEFTOVER = re.compile(rf"\.({'|'.join([*SUFFIXES, MANIFEST])})\.tmp")


def digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of what a manifest says, its own checksum left out."""
    content = {key: value for key, value in manifest.items() if key != "self"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What manifest.json says, unchecked; None if it is missing, unreadable or somebody else's."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("kind") == KIND else None


def _ours(folder: Path) -> set[str]:
    """Names in the folder that saves of bundles have written, finished or not."""
    return {name for name in os.listdir(folder) if CONTENT_NAME.fullmatch(name) or LEFTOVER.fullmatch(name)}


def _sweep(folder: Path) -> None:
    """Remove what saves have written and the manifest does not name: the old bundle, or half a new one."""
    named = {record["name"] for record in (read_manifest(folder) or {"files": {}})["files"].values()}
    for name in _ours(folder) - named:
        (folder / name).unlink()


def check_target(folder: Path) -> None:
    """Refuse a place that a bundle must not be written to; raises BundleError."""
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"{folder} is a file: choose a folder for the bundle")
    if folder.is_dir() and read_manifest(folder) is None:
        foreign = sorted(set(os.listdir(folder)) - _ours(folder))
        if foreign:
            raise BundleError(
                f"{folder} is not empty and no bundle (it holds {foreign[0]}): choose another folder or delete it"
            )


@contextmanager
def locked(folder: Path) -> Iterator[Any]:
    """Keep other saves out of the folder and leave no litter; gives a function that makes its entries durable."""
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield lambda: os.fsync(handle)
    finally:
        _sweep(folder)
        os.close(handle)


def write_part(folder: Path, part: str, content: pl.DataFrame | dict[str, Tensor] | Approximate) -> dict[str, Any]:
    """Write one part under the name of its content; its record for the manifest."""
    from safetensors.torch import save_file

    temporary = folder / f".{part}.tmp"
    if isinstance(content, pl.DataFrame):
        content.write_parquet(temporary)
    elif isinstance(content, dict):
        save_file(content, temporary)
    else:
        content.codes.write(temporary)
    with open(temporary, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    name = f"{part}-{digest[:16]}.{SUFFIXES[part]}"
    os.replace(temporary, folder / name)
    return {"name": name, "sha256": digest, "bytes": (folder / name).stat().st_size}


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Put the manifest, with its checksum, into the place of the old one: from here on the bundle is the new one."""
    temporary = folder / f".{MANIFEST}.tmp"
    with open(temporary, "wb") as file:
        file.write(json.dumps({**manifest, "self": digest(manifest)}, indent=2).encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / MANIFEST)


def checked(folder: Path, record: Mapping[str, Any]) -> Path:
    """The path of a file that has the size and checksum of its record; raises BundleError, or OSError if it is gone."""
    if not CONTENT_NAME.fullmatch(record["name"]):
        raise BundleError(f"bundle {folder} names a file {record['name']!r}, which no save writes: save it again")
    path = folder / str(record["name"])
    size = path.stat().st_size
    if size != record["bytes"]:
        raise BundleError(f"{path} has {size:,} bytes instead of {record['bytes']:,}: copy or save the bundle again")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != record["sha256"]:
        raise BundleError(f"{path} was changed after it was saved (checksum differs): copy or save the bundle again")
    return path
