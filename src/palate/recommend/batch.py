"""Lists of all known users in one Parquet file: streamed, in bounded memory, and resumed after a crash.

    .lists.parquet.parts/about.json     what is being written: model, catalog, history, wish
    .lists.parquet.parts/00000.parquet  one part per chunk of users, there only when it is whole
    lists.parquet                       all parts behind each other, once every one of them is there

A call finds the parts of one that was killed, or ran out of space, beside the file it writes. If ``about.json`` says
the same, they count; if not, they are removed, as they are after an error that would come again.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl
from torch import nn

from palate.errors import DataError, PalateError
from palate.recommend.top_n import RecommendOptions, answer, chunks, empty

if TYPE_CHECKING:
    from palate.recommend.recommender import Recommender

__all__ = ["write_all"]

ABOUT = "about.json"


def write_all(recommender: Recommender, path: Path, wish: RecommendOptions, *, progress: bool = False) -> int:
    """Write the lists of all known users to ``path``; the number of rows written.

    Raises:
        DataError: ``path`` cannot be written, or another process is writing it.
    """
    from rich.progress import track

    if path.is_dir():
        raise DataError(f"cannot write {path}, it is a folder: give the name of a file")
    folder = path.with_name(f".{path.name}.parts")
    users = recommender.users.ids
    parts = chunks(len(users), recommender)
    try:
        with _parts_of(folder, _about(recommender, wish, parts)):
            files = [folder / f"{number:05}.parquet" for number in range(len(parts))]
            todo = [(part, file) for part, file in zip(parts, files, strict=True) if not file.exists()]
            for part, file in track(todo, "Recommending", total=len(todo), disable=not progress):
                rows = np.arange(part.start, part.stop, dtype=np.int32)
                history = recommender.seen.select(rows)
                rows = np.where(history.counts > 0, rows, -1)
                known = recommender.user_features
                features = None if known is None else known[part]
                _write(answer(recommender, users[part], rows, history, wish, features), file)
            written = _merge(files, _arrow(empty(recommender, users.dtype, wish)).schema, path)
            shutil.rmtree(folder)
    except OSError as error:
        raise DataError(f"cannot write {path} ({error}): give a file in an existing, writable folder") from None
    return written


@contextmanager
def _parts_of(folder: Path, about: dict[str, Any]) -> Iterator[None]:
    """The folder of parts, locked, holding nothing but parts of what ``about`` says."""
    folder.mkdir(exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another process is writing into {folder}: wait for it, or give another file") from None
        told = folder / ABOUT
        if not (told.exists() and json.loads(told.read_bytes()) == about):
            for file in folder.glob("*.parquet"):
                file.unlink()
            told.write_text(json.dumps(about, indent=2))
        try:
            yield
        except PalateError:
            shutil.rmtree(folder)
            raise


def _about(recommender: Recommender, wish: RecommendOptions, parts: list[slice]) -> dict[str, Any]:
    """What the lists are a function of."""
    content = hashlib.sha256()
    for name, tensor in cast(nn.Module, recommender.model).state_dict().items():
        content.update(name.encode())
        content.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    for ids in (recommender.users, recommender.items):
        content.update(ids.digest.encode())
    for column in (recommender.seen.offsets, recommender.seen.items, recommender.popularity):
        content.update(np.ascontiguousarray(column).tobytes())
    index = None if recommender.index is None else dataclasses.asdict(recommender.index.info)
    rules = None if wish.rules is None else dataclasses.asdict(wish.rules.rules)
    asked = {
        "k": wish.k,
        "exclude_seen": wish.exclude_seen,
        "rules": rules,
        "at": wish.at,
        "index": index,
        "cold": asdict(wish.cold),
    }
    about = {"content": content.hexdigest(), "users": [part.stop for part in parts], **asked}
    plain: dict[str, Any] = json.loads(json.dumps(about, default=str))
    return plain


def _write(frame: pl.DataFrame, path: Path) -> None:
    """One part: under its name only when it is whole."""
    import pyarrow.parquet as pq

    temporary = path.with_suffix(".tmp")
    pq.write_table(_arrow(frame), temporary, compression="zstd")
    _take_place(temporary, path)


def _merge(files: list[Path], schema: Any, path: Path) -> int:
    """The parts as one file, one after the other; the number of its rows."""
    import pyarrow.parquet as pq

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    written = 0
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for file in files:
                table = pq.read_table(file)
                writer.write_table(table)
                written += len(table)
        _take_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return written


def _take_place(temporary: Path, path: Path) -> None:
    with open(temporary, "rb") as done:
        os.fsync(done.fileno())
    os.replace(temporary, path)


def _arrow(frame: pl.DataFrame) -> Any:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())
