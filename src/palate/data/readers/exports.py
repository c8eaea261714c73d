"""Exports of shops and analytics services, known by their columns: GA4, Segment, Shopify and WooCommerce.

Their rows are events or orders: the user stands in one of several columns, the items are a list in each row, and many
rows are about no item. Here they become one row per user and item, and a note says what was taken from where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import polars as pl

from palate.data.columns import plain
from palate.data.dataset import Note
from palate.data.readers.options import Table


class Export(NamedTuple):
    """A kind of export. Of several columns for one thing, the first with a value counts.

    Args:
        name: in the note.
        marks: columns that it always has.
        user, item, quantity, timestamp: columns by what they hold; a lower-case path names objects inside JSON.
        event: the column of event types, which keeps its name.
        order: the column that rows of one order share; only the first of them may name the user and the time.
    """

    name: str
    marks: tuple[str, ...]
    user: tuple[str, ...]
    item: tuple[str, ...]
    timestamp: tuple[str, ...]
    quantity: tuple[str, ...] = ()
    event: str = ""
    order: str = ""


EXPORTS = (
    Export(
        "GA4 (BigQuery)",
        marks=("user_pseudo_id", "event_name"),
        user=("user_pseudo_id",),  # user_id is known after a login only: one person would be two users
        item=("items.item_id", "item_id"),
        timestamp=("event_timestamp",),
        event="event_name",
    ),
    Export(
        "Segment",
        marks=("anonymousId", "event"),
        user=("userId", "anonymousId"),
        item=("properties.products.product_id", "properties.product_id", "product_id"),
        timestamp=("timestamp", "originalTimestamp", "sentAt", "receivedAt"),
        event="event",
    ),
    Export(
        "Shopify orders",
        marks=("Lineitem quantity", "Lineitem name"),
        user=("Customer ID", "Email"),
        item=("Lineitem sku", "Lineitem name"),
        timestamp=("Created at", "Paid at"),
        quantity=("Lineitem quantity",),
        order="Name",
    ),
    Export(
        "Shopify orders (JSON)",
        marks=("line_items.variant_id", "created_at"),
        user=("customer.id", "email"),
        item=("line_items.product_id", "line_items.sku"),
        timestamp=("created_at", "processed_at"),
        quantity=("line_items.quantity",),
    ),
    Export(
        "WooCommerce orders",
        marks=("line_items.product_id", "date_created"),
        user=("customer_id", "billing.email"),
        item=("line_items.product_id", "line_items.sku"),
        timestamp=("date_created_gmt", "date_created"),
        quantity=("line_items.quantity",),
    ),
)


def recognized(table: Table, chosen: Sequence[str]) -> Table:
    """The table as one row per user and item where it is a known export and no column of users or items was named."""
    names = {plain(name): name for name in table.names}
    for export in EXPORTS:
        user, item, quantity, timestamp = (
            tuple(names[plain(one)] for one in columns if plain(one) in names)
            for columns in (export.user, export.item, export.quantity, export.timestamp)
        )
        found = export._replace(
            user=user,
            item=item,
            quantity=quantity,
            timestamp=timestamp,
            event=names.get(plain(export.event), ""),
            order=names.get(plain(export.order), ""),
        )
        known = all(plain(mark) in names for mark in export.marks) and found.user and found.item
        if known and not set(chosen) - {found.event}:
            return ExportTable(table, found)
    return table


class ExportTable:
    """The rows of an export: user_id, item_id, and where known quantity, timestamp and the column of event types."""

    def __init__(self, table: Table, export: Export) -> None:
        self.name, self.untyped = table.name, table.untyped
        self.line: Callable[[int], int] | None = None  # a row of the file may become several rows, or none
        self._table, self._export = table, export
        self._rows, self._without = 0, {"item": 0, "user": 0}
        self._taken = {
            name: columns
            for name, columns in (
                ("user_id", export.user),
                ("item_id", export.item),
                ("quantity", export.quantity),
                ("timestamp", export.timestamp),
                (export.event, (export.event,)),
            )
            if columns and name
        }
        self.names = list(self._taken)

    def batches(self, wanted: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The rows with the columns of ``wanted``; rows without user or item are left out and counted."""
        export = self._export
        needed = [name for columns in self._taken.values() for name in columns]
        needed = list(dict.fromkeys([*needed, *([export.order] if export.order else [])]))
        last: pl.DataFrame | None = None  # a batch may end within an order
        for batch in self._table.batches(needed):
            frame = batch
            if export.order:
                frame = batch if last is None else pl.concat([last, batch], how="vertical_relaxed")
                shared = [*export.user, *export.timestamp]
                filled = [pl.col(name).forward_fill().over(export.order) for name in shared]
                frame = frame.with_columns(_given(frame, name).alias(name) for name in shared).with_columns(filled)
                last, frame = frame.tail(1).select(batch.columns), frame.tail(len(batch))
            rows = frame.select(_first(frame, columns).alias(name) for name, columns in self._taken.items())
            lists = [name for name, dtype in rows.schema.items() if isinstance(dtype, pl.List)]
            rows = rows.explode(lists) if lists else rows
            for role in self._without:
                missing = rows[f"{role}_id"].is_null()
                self._without[role] += int(missing.sum())
                rows = rows.filter(~missing)
            self._rows += len(rows)
            yield rows.select(wanted)

    def notes(self) -> list[Note]:
        """What was taken from where, and the rows that were left out."""
        name, event = self._export.name, self._export.event
        roles = [f"{one} from {' or '.join(columns)}" for one, columns in self._taken.items() if one != event]
        roles += [f"--event {event} for types of events"] if event else []
        missing = [
            Note(f"dropped: row of the export without {role}", rows, "dropped")
            for role, rows in self._without.items()
            if rows
        ]
        return [Note(f"read as an export of {name} ({', '.join(roles)})", self._rows), *missing]


def _given(frame: pl.DataFrame, name: str) -> pl.Expr:
    """A column without empty texts and, of users, without the 0 by which WooCommerce marks a guest."""
    column = pl.col(name)
    if frame.schema[name] == pl.String:
        column = pl.when(column.str.strip_chars() != "").then(column)
    return pl.when(column.cast(pl.String) != "0").then(column) if plain(name) == "customerid" else column


def _first(frame: pl.DataFrame, columns: Sequence[str]) -> pl.Expr:
    """The first of the columns that has a value; a list where one of them holds lists."""
    nested = any(isinstance(frame.schema[name], pl.List) for name in columns)
    if not nested:
        return pl.coalesce(_given(frame, name) for name in columns)
    parts = []
    for name in columns:
        column = pl.col(name)
        if isinstance(frame.schema[name], pl.List):
            parts.append(pl.when(column.list.len() > 0).then(column))
        else:
            parts.append(pl.when(_given(frame, name).is_not_null()).then(pl.concat_list(column)))
    return pl.coalesce(parts)
