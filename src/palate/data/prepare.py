"""Any log that ``read_interactions`` reads, as a row store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from palate.data.dataset import Dataset
from palate.data.readers import read_interactions
from palate.data.readers.sources import Data, is_url, places
from palate.data.row_store import VERSION, Spill, is_store, load_store, save_store
from palate.errors import DataError
from palate.progress import Progress, silent
from palate.storage import backup_of, digest_json, lock, replace_folder


def prepare(data: Data, out: str | os.PathLike[str], *, progress: Progress = silent, **reading: Any) -> Dataset:
    """Write the rows of a log to a row store and return its data set, the rows mapped into memory.

    Rows, ids, notes and fingerprint are those of ``read_interactions`` with the same arguments. Columns are kept in
    files beside ``out`` while they are read, so memory holds the ids and what judging one column takes, about a dozen
    bytes per row. A run that is killed resumes behind the last part that it has written
    (four million rows) if log and arguments are the same; the store appears when it is whole.

    Args:
        data: as in ``read_interactions``.
        out: folder of the store; an older store there is replaced, anything else is refused.
        progress: called while files are read.
        reading: the other arguments of ``read_interactions``.

    Raises:
        DataError: the log cannot be read, or ``out`` is something else.
        StorageError: another process prepares the same store.
    """
    target = Path(out).absolute()
    if backup_of(target).exists() and not target.exists():
        backup_of(target).rename(target)  # killed between two renames: the older store is whole
    if target.exists() and not is_store(target) and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{out} exists and is not a row store: choose another folder (--out)")
    stage = target.with_name(f".{target.name}.part")
    stage.mkdir(parents=True, exist_ok=True)
    with lock(stage / ".lock", wait=False):
        files = [
            str(place) if is_url(place) or not Path(place).is_file() else [str(Path(place).absolute()), *_state(place)]
            for place in places(data)
        ]
        spill = Spill(stage, digest_json([VERSION, files, {name: repr(value) for name, value in reading.items()}]))
        dataset = read_interactions(data, **reading, progress=progress, spill=spill)
        made = stage / "store"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        save_store(dataset, made)
        replace_folder(made, target)
    shutil.rmtree(stage, ignore_errors=True)
    return load_store(target)


def _state(place: str | Path) -> tuple[int, int]:
    found = Path(place).stat()
    return found.st_size, found.st_mtime_ns
