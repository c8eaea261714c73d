"""Checks of a bundle whose digests are right: a program that writes the folder can write digests, too, even by mistake.

Sizes are bounded by those of the files before anything is allocated. Then every length, range, type, uniqueness and
finiteness that an answer relies on is checked, by whole columns: a load fails here or its answers cannot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.errors import BundleError

AGAIN = "save the bundle again"
# Columns of equal values are tiny files. What is beyond these is no table of interactions.
ROWS_PER_BYTE, UNPACKED_PER_BYTE, SPARE = 512, 512, 1 << 24
NUMBERS = {"BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"}
FLOATS = ("float16", "float32", "float64")
NUMBERS |= {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


@cache
def _fields() -> dict[str, Any]:
    from pydantic import ConfigDict, Field, TypeAdapter

    count = Annotated[int, Field(ge=0, lt=2**40)]
    record = dict[str, str | count]
    kinds: dict[str, Any] = {
        "created": str,
        "data": str,
        "recipe": dict[str, str | dict[str, Any]],
        "sizes": dict[str, count | dict[str, Any]],
        "trained_on": dict[str, str | count] | None,
        "split": str | None,
        "candidates": str | None,
        "metrics": list[dict[str, Any]],
        "versions": dict[str, str],
        "index": dict[str, str | float | int | dict[str, float | int]] | None,
        "cold": dict[str, Any],
        "feedback": dict[str, str | float | int | None],
        "files": dict[str, record],
    }
    return {name: TypeAdapter(kind, config=ConfigDict(strict=True)) for name, kind in kinds.items()}


def check_manifest(manifest: Mapping[str, Any]) -> None:
    """Check the types of everything in a manifest.

    Raises:
        BundleError: a field is missing or of another type.
    """
    from pydantic import ValidationError

    try:
        json.dumps(manifest, allow_nan=False)
    except ValueError as error:
        raise BundleError(f"the bundle is malformed (its manifest: {error}): {AGAIN}") from None
    for name, kind in _fields().items():
        if name not in manifest:
            if name == "feedback":
                continue
            raise BundleError(f"the bundle is malformed (its manifest lacks {name}): {AGAIN}")
        try:
            kind.validate_python(manifest[name])
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, (name, *first["loc"])))
            raise BundleError(f"the bundle is malformed ({place}: {first['msg']}): {AGAIN}") from None
    needed: dict[str, dict[str, Any]] = {
        "recipe": {"name": str, "fields": dict},
        "sizes": {"users": int, "items": int},
        "feedback": {"kind": str, "lowest": int | float, "min_rating": int | float | None},
        "trained_on": {"rows": int, "digest": str, "users": int, "items": int, "ids": str},
    }
    for name, keys in needed.items():
        found = manifest.get(name)
        if found is None:  # bundles of older versions have no feedback
            continue
        wrong = [key for key, kind in keys.items() if key not in found or not isinstance(found[key], kind)]
        if wrong:
            state = "is of another type" if wrong[0] in found else "is missing"
            raise BundleError(f"the bundle is malformed ({name}.{wrong[0]} {state}): {AGAIN}")


def read_table(path: Path) -> pl.DataFrame:
    """A Parquet file whose size in memory is in proportion to that of the file.

    Raises:
        BundleError: it unpacks to more than its size allows, or cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = path.stat().st_size
    try:
        about = pq.read_metadata(path)
        unpacked = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
        if about.num_rows > ROWS_PER_BYTE * size + SPARE or unpacked > UNPACKED_PER_BYTE * size + SPARE:
            raise BundleError(
                f"{path.name} has {size:,} bytes and claims {about.num_rows:,} rows, {unpacked:,} bytes: {AGAIN}"
            )
        return pl.read_parquet(path).rechunk()  # one copy here instead of one per reader
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = " ".join(str(error).split())[:200]
        raise BundleError(f"{path.name} is malformed ({reason}): {AGAIN}") from None


def check_tables(users: pl.DataFrame, items: pl.DataFrame, seen: pl.DataFrame, sizes: Mapping[str, Any]) -> None:
    """Check the tables of a bundle, each for itself and against each other.

    Raises:
        BundleError: the first column that does not fit.
    """
    for name, table in (("users", users), ("items", items)):
        if table.height != sizes[name]:
            raise BundleError(f"the bundle has {table.height:,} {name} instead of {sizes[name]:,}: {AGAIN}")
        ids = _column(table, f"{name}.id", pl.Int64, pl.String)
        # Ids of a new map are ascending, which is found in a third of the time.
        if not (ids[1:] > ids[:-1]).all() and ids.n_unique() != len(ids):
            raise BundleError(f"{name}.id holds an id twice: {AGAIN}")
    _known(users, "users", {"id", "seen"})
    _known(items, "items", {"id", "popularity", "title"})
    _known(seen, "seen", {"item", "weight", "time"})
    _finite(items, "items.popularity", pl.Float32, low=0.0)
    if "title" in items.columns and items["title"].dtype != pl.String:
        raise BundleError(f"items.title holds {items['title'].dtype} instead of String: {AGAIN}")
    rows = _column(seen, "seen.item", pl.Int32).to_numpy()
    if len(rows) and int(rows.view(np.uint32).max()) >= items.height:  # as such a negative number is large
        raise BundleError(f"seen.item holds row numbers outside of the {items.height:,} items: {AGAIN}")
    _finite(seen, "seen.weight", pl.Float32)
    counts = _column(users, "users.seen", pl.Int64).to_numpy()
    # Each one first: the sum of large numbers may wrap around to the right one.
    if len(counts) and not 0 <= int(counts.min()) <= int(counts.max()) <= seen.height:
        raise BundleError(f"users.seen holds counts outside of 0 to {seen.height:,}: {AGAIN}")
    if int(counts.sum()) != seen.height:
        raise BundleError(f"users.seen counts {int(counts.sum()):,} events, there are {seen.height:,}: {AGAIN}")
    if "time" in seen.columns:
        times = _finite(seen, "seen.time", pl.Float64)
        back = times[1:] < times[:-1]
        first = np.cumsum(counts)
        back[first[(first > 0) & (first < seen.height)] - 1] = False  # a new user may begin earlier
        if back.any():
            raise BundleError(f"seen.time is not in order within a user: {AGAIN}")


def check_weights(path: Path, recipe: str, built: Mapping[str, Any], own: tuple[str, ...]) -> None:
    """Check names, shapes and types of the tensors in a file, before any of them is read.

    Args:
        path: a file of safetensors.
        recipe: its name.
        built: the state dict of the model that the recipe builds.
        own: names of further tensors: vectors of 64-bit integers.

    Raises:
        BundleError: the file holds another model.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, no mapping
            found = {
                name: (tuple(one.get_shape()), NUMBERS.get(one.get_dtype(), one.get_dtype()))
                for name, one in slices.items()
            }
    except SafetensorError as error:
        raise BundleError(f"{path.name} is malformed ({' '.join(str(error).split())}): {AGAIN}") from None
    for name in own:
        shape, kind = found.pop(name, ((0,), "int64"))
        if len(shape) != 1 or kind != "int64":
            raise BundleError(f"{path.name} holds {name} of shape {shape} and type {kind}: {AGAIN}")
    wanted = {name: (tuple(one.shape), str(one.dtype).removeprefix("torch.")) for name, one in built.items()}
    floats: dict[str, str] = {}
    for name in sorted({*found, *wanted}):
        if name not in found or name not in wanted:
            state = "missing" if name in wanted else "not one of its tensors"
            raise BundleError(f"{path.name} does not fit the recipe {recipe} ({name} is {state}): {AGAIN}")
        (shape, kind), (its_shape, its_kind) = found[name], wanted[name]
        if name.endswith("_extra_state"):  # of any length
            shape, its_shape = shape[:-1], its_shape[:-1]
        # A model may be kept in doubles or halves, as a whole; NumPy has no bfloat16.
        same = kind == its_kind or (kind in FLOATS and its_kind in FLOATS and floats.get(its_kind, kind) == kind)
        if shape != its_shape or not same:
            raise BundleError(
                f"{path.name} does not fit the recipe {recipe} ({name} has shape {shape}, {kind} "
                f"instead of {its_shape}, {floats.get(its_kind, its_kind)}): {AGAIN}"
            )
        if "float" in its_kind:
            floats.setdefault(its_kind, kind)


def _known(table: pl.DataFrame, name: str, columns: set[str]) -> None:
    other = [one for one in table.columns if one not in columns and not one.startswith("feature:")]
    if other:
        raise BundleError(f"{name} has a column {other[0]!r}, which no save writes: {AGAIN}")


def _column(table: pl.DataFrame, name: str, *kinds: Any) -> pl.Series:
    column = name.partition(".")[2]
    if column not in table.columns:
        raise BundleError(f"the bundle is malformed ({name} is missing): {AGAIN}")
    found = table[column]
    if found.dtype not in kinds:
        raise BundleError(f"{name} holds {found.dtype} instead of {' or '.join(map(str, kinds))}: {AGAIN}")
    if found.null_count():
        raise BundleError(f"{name} holds nulls: {AGAIN}")
    return found


def _finite(table: pl.DataFrame, name: str, kind: Any, low: float = -np.inf) -> NDArray[Any]:
    values = _column(table, name, kind).to_numpy()
    # One pass: a sum is finite only if all values are, unless it overflows.
    with np.errstate(all="ignore"):
        fine = bool(np.isfinite(values.sum())) or bool(np.isfinite(values).all())
    if not fine or values.min(initial=0.0) < low:
        raise BundleError(f"{name} holds values that are not finite{' or below 0' if low == 0 else ''}: {AGAIN}")
    return values
