"""A split as a folder: Parquet files and a JSON manifest with their checksums.

    split.json                          how, notes, names, fingerprint; SHA-256 of each file below, and of itself
    users.parquet, items.parquet        id (and title), in the order of the row numbers
    train.parquet, test.parquet         user, item, weight, time: row numbers, in the order of the rows
    user_features, item_features, candidates (.parquet)    where the split has them

A save fills a sibling folder and renames it into place, so that a process that is killed leaves the split that was
there before or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl

from palate.data.dataset import Dataset, Interactions, Note
from palate.data.ids import IdMap
from palate.data.splits.split import Candidates, Split
from palate.errors import BundleError, DataError

__all__ = ["load_split", "save_split"]

MANIFEST = "split.json"
FORMAT = "palate-split"
VERSION = 1


def save_split(split: Split, folder: str | os.PathLike[str]) -> None:
    """Write a split to a folder; an older split there is replaced, anything else is left alone.

    Raises:
        BundleError: the folder holds something else, or cannot be written.
    """
    target = Path(folder).resolve()
    if target.exists() and not _replaceable(target):
        raise BundleError(f"{target} exists and is not a split: choose another folder or remove it")
    stage = target.with_name(f".{target.name}.new-{secrets.token_hex(4)}")
    try:
        stage.mkdir(parents=True)
        _fill(stage, split)
        _swap(stage, target)
    except OSError as error:
        raise BundleError(f"could not write a split to {target} ({error}): choose another folder") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def load_split(path: str | os.PathLike[str]) -> Split:
    """Read a saved split after checking every file of it.

    Raises:
        BundleError: a file is missing, changed, cut short, or of a newer format.
    """
    folder = Path(path).resolve()
    if not folder.exists() and _aside(folder).exists():
        folder = _aside(folder)  # a save was killed between its two renames: the older split is whole
    facts = _read_manifest(folder)
    try:
        for name, digest in facts["files"].items():
            _verify(folder / name, digest)
        return _from_frames({name: pl.read_parquet(folder / name) for name in facts["files"]}, facts)
    except (KeyError, TypeError, DataError, pl.exceptions.PolarsError) as error:
        raise BundleError(f"{folder} is not a usable split ({error}): save it again") from error


def _fill(folder: Path, split: Split) -> None:
    files = {}
    for name, frame in _to_frames(split).items():
        with (folder / name).open("wb") as file:
            frame.write_parquet(file)
            file.flush()
            os.fsync(file.fileno())
        files[name] = _sha256(folder / name)
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "how": split.how,
        "notes": [asdict(note) for note in split.notes],
        "train": _about(split.train),
        "test": _about(split.test),
        "candidates": None if split.candidates is None else split.candidates.how,
        "fingerprint": split.fingerprint,
        "files": files,
    }
    with (folder / MANIFEST).open("w", encoding="utf-8") as manifest:
        json.dump({**facts, "checksum": _checksum(facts)}, manifest, indent=1, ensure_ascii=False)
        manifest.flush()
        os.fsync(manifest.fileno())
    _sync(folder)


def _about(rows: Dataset) -> dict[str, Any]:
    return {"name": rows.name, "explicit": rows.explicit, "notes": [asdict(note) for note in rows.notes]}


def _to_frames(split: Split) -> dict[str, pl.DataFrame]:
    data = split.train
    frames = {"users.parquet": data.users.ids.to_frame("id"), "items.parquet": data.items.ids.to_frame("id")}
    if data.titles is not None:
        frames["items.parquet"] = frames["items.parquet"].with_columns(data.titles.alias("title"))
    for name, features in (("user_features", data.user_features), ("item_features", data.item_features)):
        if features is not None:
            frames[f"{name}.parquet"] = features
    for side, rows in (("train", data.interactions), ("test", split.test.interactions)):
        columns = {"user": rows.user, "item": rows.item, "weight": rows.weight, "time": rows.time}
        frames[f"{side}.parquet"] = pl.DataFrame({name: c for name, c in columns.items() if c is not None})
    if split.candidates is not None:
        columns = {"user": split.candidates.users, "negatives": split.candidates.negatives}
        frames["candidates.parquet"] = pl.DataFrame(columns)
    return frames


def _from_frames(frames: dict[str, pl.DataFrame], facts: dict[str, Any]) -> Split:
    def interactions(frame: pl.DataFrame) -> Interactions:
        columns = {column.name: column.to_numpy(writable=True) for column in frame.get_columns()}
        return Interactions(columns["user"], columns["item"], columns["weight"], columns.get("time"))

    def notes(entries: Iterable[dict[str, Any]]) -> tuple[Note, ...]:
        return tuple(Note(**entry) for entry in entries)

    about, items = facts["train"], frames["items.parquet"]
    train = Dataset(
        about["name"],
        IdMap(frames["users.parquet"]["id"]),
        IdMap(items["id"]),
        interactions(frames["train.parquet"]),
        about["explicit"],
        frames.get("user_features.parquet"),
        frames.get("item_features.parquet"),
        items["title"] if "title" in items.columns else None,
        notes(about["notes"]),
    )
    about = facts["test"]
    held = interactions(frames["test.parquet"])
    test = replace(
        train, interactions=held, name=about["name"], explicit=about["explicit"], notes=notes(about["notes"])
    )
    candidates = None
    if facts["candidates"] is not None:
        listed = frames["candidates.parquet"]
        candidates = Candidates(listed["user"].to_numpy(), listed["negatives"].to_numpy(), facts["candidates"])
    return Split(train, test, facts["how"], notes(facts["notes"]), candidates)


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{folder} holds no split ({MANIFEST} is missing): save one there first") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder / MANIFEST} cannot be read ({error}): save the split again") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise BundleError(f"{folder / MANIFEST} is not the manifest of a split: save the split again")
    if facts.get("version") != VERSION:
        raise BundleError(
            f"{folder} has format version {facts.get('version')}, this Palate reads {VERSION}: upgrade Palate"
        )
    checksum = facts.pop("checksum", None)
    if checksum != _checksum(facts):
        raise BundleError(f"{folder / MANIFEST} was changed after it was saved: save the split again")
    return facts


def _verify(path: Path, digest: str) -> None:
    try:
        found = _sha256(path)
    except OSError as error:
        raise BundleError(f"{path} is missing or unreadable ({error.strerror}): save the split again") from error
    if found != digest:
        raise BundleError(f"{path} was changed or cut short after it was saved: save the split again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _replaceable(folder: Path) -> bool:
    """An empty folder, or one whose manifest says that it is a split."""
    if not folder.is_dir():
        return False
    try:
        return bool(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return not any(folder.iterdir())


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _swap(stage: Path, target: Path) -> None:
    """Put a finished folder in the place of another; a folder cannot be replaced in one step, so two renames."""
    aside = _aside(target)
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
        target.rename(aside)
    stage.rename(target)
    _sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
