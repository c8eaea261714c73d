"""Lists of all known users in one Parquet file: streamed, in bounded memory, and resumed after a crash.

    .lists.parquet.parts/about.json    manifest: the model, catalog, history and options that the parts belong to
    .lists.parquet.parts/00000.npz     the integers of one chunk of users; it exists only when it is complete
    lists.parquet                      all parts behind each other, with external ids, once every part exists

The parts of a call that was killed, or ran out of space, stay beside the file. The next call with the same manifest
computes only the missing ones; otherwise they are removed, as they are after an error that would happen again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from torch import nn

from palate import storage
from palate.data.ids import stable_hashes
from palate.errors import BundleError, DataError, PalateError, StorageError
from palate.progress import Progress, ProgressEvent, silent
from palate.recommend.state import State
from palate.recommend.top_n import SOURCES, Answer, RecommendOptions, chunks, recommend
from palate.rules.rerank import traces

ABOUT = "about.json"
KIND, VERSION = "batch of lists", 1


def write_all(state: State, path: Path, options: RecommendOptions, *, progress: Progress = silent) -> int:
    """Write the lists of all known users to ``path``; the number of rows written.

    Raises:
        DataError: ``path`` cannot be written, or another process is writing it.
    """
    if path.is_dir():
        raise DataError(f"cannot write {path}, it is a folder: give the name of a file")
    folder, parts = path.with_name(f".{path.name}.parts"), chunks(len(state.users), state)
    try:
        folder.mkdir(exist_ok=True)
        with storage.lock(folder / ".lock", wait=False):
            for left in path.parent.glob(f".*-{path.name}"):
                if storage.is_temporary(left.name):
                    left.unlink()  # of a call that was killed while it merged: this one holds the lock
            _keep_parts_of(folder, _about(state, options, parts))
            files = [folder / f"{number:05}.npz" for number in range(len(parts))]
            for part, file in zip(parts, files, strict=True):
                if not file.exists():
                    _write_part(state, part, options, file)
                progress(ProgressEvent("recommend", part.stop, len(state.users), "user"))
            written = _merge(state, files, parts, options, path)
    except StorageError:
        raise DataError(f"another process is writing into {folder}: wait for it, or give another file") from None
    except PalateError:
        shutil.rmtree(folder)  # it would happen again: parts left behind would only take space
        raise
    except OSError as error:
        raise DataError(f"cannot write {path} ({error}): give a file in an existing, writable folder") from None
    shutil.rmtree(folder)
    return written


def _keep_parts_of(folder: Path, about: dict[str, Any]) -> None:
    """Remove the parts that belong to something else than ``about``."""
    try:
        found = storage.read_manifest(folder / ABOUT, KIND, VERSION)
    except BundleError:
        found = {}
    if found != {"kind": KIND, "version": VERSION, **about}:
        for file in folder.glob("*.npz"):
            file.unlink()
        storage.write_manifest(folder / ABOUT, KIND, VERSION, about)


def _about(state: State, options: RecommendOptions, parts: list[slice]) -> dict[str, Any]:
    """Everything that the lists are a function of."""
    content = hashlib.sha256()
    for name, tensor in cast(nn.Module, state.model).state_dict().items():
        content.update(name.encode())
        content.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    for ids in (state.users, state.items):
        content.update(ids.digest.encode())
    for column in (state.seen.offsets, state.seen.items, state.popularity):
        content.update(np.ascontiguousarray(column).tobytes())
    about = {
        "content": content.hexdigest(),
        "users": [part.stop for part in parts],
        "k": options.k,
        "exclude_seen": options.exclude_seen,
        "rules": None if options.rules is None else asdict(options.rules.rules),
        "at": options.at,
        "index": None if state.index is None else asdict(state.index.info),
        "cold": asdict(options.cold),
    }
    plain: dict[str, Any] = json.loads(json.dumps(about, default=str))
    return plain


def _write_part(state: State, part: slice, options: RecommendOptions, path: Path) -> None:
    """The answer to one chunk of users, as integers: ids and titles are looked up once, in the final file."""
    rows = np.arange(part.start, part.stop)
    keys = stable_hashes(state.users.ids[part]) if options.cold.explore else None
    answer = recommend(state, rows, options, keys=keys)
    arrays = {name: array for name, array in answer._asdict().items() if array is not None}
    with storage.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _merge(state: State, files: list[Path], parts: list[slice], options: RecommendOptions, path: Path) -> int:
    """The parts as one file, one after the other; the number of its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    users, items = (_text(ids.ids) for ids in (state.users, state.items))
    sources, titles = pa.array(SOURCES), None if state.titles is None else _text(state.titles)

    def table(answer: Answer, first: int) -> Any:
        columns = {
            "user_id": users.take(pa.array(answer.owners + first)),
            "item_id": items.take(pa.array(answer.items)),
            "rank": pa.array(answer.ranks.astype(np.int32)),
            "score": pa.array(answer.scores),
            "source": sources.take(pa.array(answer.sources)),
        }
        if titles is not None:
            columns["title"] = titles.take(pa.array(answer.items))
        if answer.moved is not None and answer.by_score is not None:
            columns["rule"] = _text(traces(answer.by_score, answer.moved, answer.ranks))
        return pa.table(columns)

    written = 0
    schema = table(recommend(state, np.zeros(0, np.int64), options), 0).schema
    # Scores hardly repeat: a dictionary of them would be built only to be dropped.
    repeated = [name for name in schema.names if name != "score"]
    with (
        storage.replacing(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=repeated) as writer,
    ):
        for file, part in zip(files, parts, strict=True):
            with np.load(file) as arrays:
                rows = table(Answer(**arrays), part.start)
            writer.write_table(rows)
            written += len(rows)
    return written


def _text(column: pl.Series) -> Any:
    """A column in the plain types of Arrow, which every reader of Parquet knows."""
    return column.to_arrow(compat_level=pl.CompatLevel.oldest())
