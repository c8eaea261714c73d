"""Columns of objects and of lists of objects, as JSON and Parquet have them, taken apart."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl


def flat_columns(schema: Mapping[str, pl.DataType]) -> dict[str, pl.Expr]:
    """The columns of a table whose objects are taken apart: {"user": {"id": 7}} has a column user.id.

    A list of objects, such as the items of an order, gives a list for each of their fields.
    """
    found: dict[str, pl.Expr] = {}

    def add(name: str, dtype: pl.DataType, path: pl.Expr) -> None:
        if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct):
            for field in dtype.inner.fields:
                if not isinstance(field.dtype, pl.List | pl.Struct):
                    found[f"{name}.{field.name}"] = path.list.eval(pl.element().struct.field(field.name))
            return
        if not isinstance(dtype, pl.Struct):
            found[name] = path
            return
        for field in dtype.fields:
            # Extended JSON of MongoDB: {"$oid": "5f..."}, {"$date": "2021-..."}.
            inner = name if len(dtype.fields) == 1 and field.name.startswith("$") else f"{name}.{field.name}"
            add(inner, field.dtype, path.struct.field(field.name))  # type: ignore[arg-type]

    for name, dtype in schema.items():
        add(name, dtype, pl.col(name))
    return found
