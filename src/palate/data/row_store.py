"""Row stores: the rows of a log as integers in files that are mapped into memory, for logs larger than memory.

    STORE/store.json    manifest: name, rule for positive rows, notes, fingerprint, statistics, digest of each file
    STORE/rows.arrow    user, item, weight, time: one Arrow record batch, so that each column is one array
    STORE/users.arrow   the ids in map order; items.arrow, also with titles
    STORE/*_features.arrow

``read_interactions`` takes the folder of a store where it takes a file; ``prepare`` makes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from palate.data.dataset import Dataset, Interactions, Note
from palate.data.feedback import Feedback
from palate.data.ids import IdMap
from palate.errors import DataError
from palate.storage import (
    file_record,
    read_json,
    read_manifest,
    replacing,
    verify_file,
    write_json,
    write_manifest,
)

MANIFEST, KIND, VERSION = "store.json", "row store", 1
SHARD = 1 << 22  # rows read between two points from which a killed run resumes


class Spill:
    """Columns in files while a log is read, so that they take no memory of the process.

    Args:
        folder: an existing folder; shards of a killed run are resumed.
        key: identifies the log and how it is read: shards of another key are ignored.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key, self._files = folder, key, 0
        state = read_json(folder / "state.json")
        resumed = isinstance(state, dict) and state.get("key") == key
        self._state: dict[str, Any] = state if resumed else {"key": key, "rows": 0, "shards": []}

    @property
    def rows(self) -> int:
        """Rows in the shards."""
        return int(self._state["rows"])

    def shards(self) -> Iterable[tuple[pl.DataFrame, dict[str, pl.Series]]]:
        """The columns of each shard, and the texts by column whose codes occur in it for the first time."""
        for number, coded in enumerate(self._state["shards"]):
            files = {name: self._folder / f"texts-{number}-{place}.arrow" for place, name in enumerate(coded)}
            yield self._mapped(number), {name: pl.read_ipc(file)["text"] for name, file in files.items()}

    def add(self, columns: Mapping[str, pl.Series], texts: Mapping[str, pl.Series]) -> pl.DataFrame:
        """Write a shard, of columns of texts the codes, and the texts that are new in it; map it into memory."""
        number = len(self._state["shards"])
        for place, text in enumerate(texts.values()):
            with replacing(self._folder / f"texts-{number}-{place}.arrow") as temporary:
                text.to_frame("text").write_ipc(temporary)
        frame = pl.DataFrame(columns)
        with replacing(self._folder / f"shard-{number}.arrow") as temporary:
            frame.write_ipc(temporary, compression="uncompressed")
        shards = [*self._state["shards"], list(texts)]
        self._state = {"key": self._key, "rows": self.rows + len(frame), "shards": shards}
        write_json(self._folder / "state.json", self._state)
        return self._mapped(number)

    def keep(self, parts: Iterable[pl.Series]) -> pl.Series:
        """Numbers without nulls, part by part, as one mapped column."""
        self._files += 1
        path, n_rows, dtype = self._folder / f"column-{self._files}.bin", 0, np.dtype(np.int32)
        with path.open("wb") as file:
            for part in parts:
                values = np.ascontiguousarray(part.to_numpy())
                n_rows, dtype = n_rows + len(values), values.dtype
                file.write(values.data)
        if not n_rows:
            return pl.Series(np.empty(0, dtype))
        buffer = pa.memory_map(str(path)).read_buffer()
        column = pl.from_arrow(pa.Array.from_buffers(pa.from_numpy_dtype(dtype), n_rows, [None, buffer]))
        assert isinstance(column, pl.Series)
        return column

    def _mapped(self, number: int) -> pl.DataFrame:
        return _mapped(self._folder / f"shard-{number}.arrow")


def _mapped(path: Path) -> pl.DataFrame:
    frame = pl.from_arrow(pa.ipc.open_file(pa.memory_map(str(path))).read_all(), rechunk=False)
    assert isinstance(frame, pl.DataFrame)
    return frame


def kept(spill: Spill | None, column: pl.Series, change: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """A column of numbers without nulls that ``change`` makes of another, in memory or, part by part, in a file."""
    if spill is not None:
        return spill.keep(map(change, column.get_chunks()))
    # Part by part here too: temporary columns as long as the file would take more memory than the rows.
    parts = [change(part) for part in column.get_chunks()]
    return pl.concat(parts, rechunk=False) if len(parts) > 1 else parts[0]


def save_store(dataset: Dataset, folder: Path) -> None:
    """Write a store into an empty folder; ``replace_folder`` then gives it its name."""
    rows = dataset.interactions
    columns = {"user": rows.user, "item": rows.item, "weight": rows.weight, "time": rows.time}
    # Not by pa.array and to_numpy, which import pandas: that takes longer than all else.
    arrays = {
        name: pa.Array.from_buffers(pa.from_numpy_dtype(one.dtype), len(one), [None, pa.py_buffer(one)])
        for name, one in columns.items()
        if one is not None
    }
    batch = pa.RecordBatch.from_arrays(list(arrays.values()), list(arrays))
    with replacing(folder / "rows.arrow") as temporary, pa.ipc.new_file(str(temporary), batch.schema) as writer:
        writer.write_batch(batch)
    items = dataset.items.ids.to_frame("id")
    tables = {
        "users": dataset.users.ids.to_frame("id"),
        "items": items if dataset.titles is None else items.with_columns(dataset.titles.alias("title")),
        "user_features": dataset.user_features,
        "item_features": dataset.item_features,
    }
    for name, table in tables.items():
        if table is not None:
            with replacing(folder / f"{name}.arrow") as temporary:
                table.write_ipc(temporary, compression="uncompressed")
    names = ["rows", *(name for name, table in tables.items() if table is not None)]
    sides = {"user": (rows.user, dataset.n_users), "item": (rows.item, dataset.n_items)}
    counts = {
        side: sum(np.bincount(ids[first : first + SHARD], minlength=n) for first in range(0, len(ids), SHARD))
        for side, (ids, n) in sides.items()
    }
    levels = {"lowest": 0.0, "median": 0.5, "p90": 0.9, "p99": 0.99, "highest": 1.0}
    content = {
        "name": dataset.name,
        "columns": dataset.columns,
        "pandas": dataset.pandas,
        "feedback": dataset.feedback.record(),
        "notes": [asdict(one) for one in dataset.notes],
        "fingerprint": dataset.fingerprint.record(),
        "statistics": {
            "times": None if rows.time is None else [float(rows.time.min()), float(rows.time.max())],
            "weights": [float(rows.weight.min()), float(rows.weight.max())],
            "positive_rows": int(dataset.positive.sum()),
            **{
                f"rows_per_{side}": {name: float(np.quantile(count, level)) for name, level in levels.items()}
                for side, count in counts.items()
            },
        },
        "files": {name: file_record(folder / f"{name}.arrow") for name in names},
    }
    write_manifest(folder / MANIFEST, KIND, VERSION, content)


def is_store(data: Any) -> bool:
    """Whether ``data`` names the folder of a row store."""
    return isinstance(data, str | Path) and (Path(data) / MANIFEST).is_file()


def load_store(folder: Path) -> Dataset:
    """The data set of a store, its rows mapped into memory, after checking every file.

    Raises:
        BundleError: a file is missing, changed, cut short, or of a newer format.
        DataError: the files do not fit together.
    """
    manifest = read_manifest(folder / MANIFEST, KIND, VERSION)
    paths = {name: verify_file(folder, record) for name, record in manifest["files"].items()}
    try:
        columns = {column.name: column.to_numpy() for column in _mapped(paths.pop("rows"))}
        tables = {name: _mapped(path) for name, path in paths.items()}
        items = tables["items"]
        return Dataset(
            name=manifest["name"],
            users=IdMap(tables["users"]["id"]),
            items=IdMap(items["id"]),
            interactions=Interactions(columns["user"], columns["item"], columns["weight"], columns.get("time")),
            feedback=Feedback(**manifest["feedback"]),
            user_features=tables.get("user_features"),
            item_features=tables.get("item_features"),
            titles=items["title"] if "title" in items.columns else None,
            notes=tuple(Note(**one) for one in manifest["notes"]),
            pandas=manifest["pandas"],
            columns=manifest["columns"],
        )
    except (KeyError, TypeError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise DataError(f"{folder} is not a usable row store ({error}): prepare it again") from error
