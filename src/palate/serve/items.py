"""Items as the shop knows them: changes over the catalog of the bundle (title, hidden, expiry, stock, new items).

A hidden, expired or sold out item is in no list. New items are listed at once by models that rank by features; other
models find them by search and by id until the next training.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from sqlalchemy import Connection, Row, delete, select

from palate.errors import DataError, ModelError
from palate.serve import tables
from palate.serve.deployment import Deployment
from palate.serve.search import TitleIndex
from palate.serve.store import ITEM, Store


@dataclass(frozen=True, slots=True)
class Item:
    """What was said about an item since training; None leaves the value of the bundle."""

    item_id: str
    title: str | None = None
    features: Mapping[str, Any] | None = None
    hidden: bool = False
    in_stock: bool = True
    expires: float | None = None

    def listed(self, now: float) -> bool:
        """Whether lists may hold it."""
        return not self.hidden and self.in_stock and (self.expires is None or self.expires > now)

    def row(self, now: float) -> dict[str, Any]:
        """As a row of the store."""
        features = None if self.features is None else orjson.dumps(dict(self.features)).decode()
        return {
            "item_id": self.item_id,
            "title": self.title,
            "features": features,
            "hidden": self.hidden,
            "in_stock": self.in_stock,
            "expires": self.expires,
            "updated": now,
        }

    @classmethod
    def of(cls, row: Row[Any]) -> Item:
        """From a row of the store."""
        features = None if row.features is None else orjson.loads(row.features)
        return cls(row.item_id, row.title, features, row.hidden, row.in_stock, row.expires)


class Items:
    """The catalog of a deployment with all changes, by item id."""

    def __init__(self, deployment: Deployment, changes: Iterable[Item] = ()) -> None:
        self.deployment = deployment
        self.changes: dict[str, Item] = {}
        self.edits = 0
        self._expiring: list[tuple[float, str]] = []
        self._index: TitleIndex | None = None
        self.refused: dict[str, str] = {}  # why the features of an item are not used
        self.put(*changes)
        for item_id in deployment.added.keys() - self.changes.keys():  # deleted while another bundle answered
            deployment.list_item(deployment.items.row(item_id), False)

    def get(self, item_id: str) -> Item | None:
        """An item, or None where neither the bundle nor a change has it."""
        change = self.changes.get(item_id)
        if change is not None:
            return change
        return Item(item_id) if self.in_catalog(item_id) else None

    def in_catalog(self, item_id: str) -> bool:
        """Whether the bundle was trained with an item."""
        return self.deployment.items.row(item_id) >= 0 and item_id not in self.deployment.added

    def put(self, *items: Item) -> None:
        """Take changes over into the answers."""
        now = time.time()
        self.edits += 1
        self.changes.update({item.item_id: item for item in items})
        self._describe_to_model(items)
        for item in items:
            row = self.deployment.items.row(item.item_id)
            if row >= 0:
                self.deployment.list_item(row, item.listed(now))
            if item.expires is not None and item.expires > now:
                heapq.heappush(self._expiring, (item.expires, item.item_id))
            if self._index is not None:
                self._index.put(item.item_id, self.title(item.item_id))

    def _describe_to_model(self, items: Sequence[Item]) -> None:
        """Let the model and the rules see the features of items."""
        deployment, table = self.deployment, self.deployment.bundle.recommender.item_features
        if table is None:
            return
        added: dict[str, tuple[str | None, Mapping[str, Any]]] = {}
        patches: dict[int, Mapping[str, Any]] = {}
        for item in items:
            features = {name: value for name, value in (item.features or {}).items() if name in table.columns}
            row = deployment.items.row(item.item_id)
            if self.in_catalog(item.item_id):
                if features != deployment.patches.get(row, {}):
                    patches[row] = features
            elif (
                features and deployment.ranks_new_items and deployment.added.get(item.item_id, ("", {}))[1] != features
            ):
                added[item.item_id] = item.title, features
        if not added and not patches:
            return
        try:
            deployment.change_catalog(added, patches)
        except (DataError, ModelError) as error:
            if len(items) == 1:
                self.refused[items[0].item_id] = str(error)
            else:  # the features of one must not keep those of the others out
                for item in items:
                    self._describe_to_model([item])
            return
        for item in items:
            self.refused.pop(item.item_id, None)

    def remove(self, item_id: str) -> None:
        """Drop an item that only a change has made; one of the bundle is hidden instead."""
        self.changes.pop(item_id, None)
        self.edits += 1
        row = self.deployment.items.row(item_id)
        if row >= 0:
            self.deployment.list_item(row, item_id not in self.deployment.added)
        if self._index is not None:
            self._index.remove(item_id)

    def expire(self) -> None:
        """Take out what has expired since the last call."""
        now = time.time()
        while self._expiring and self._expiring[0][0] <= now:
            _, item_id = heapq.heappop(self._expiring)
            item, row = self.changes.get(item_id), self.deployment.items.row(item_id)
            if item is not None and row >= 0:
                self.deployment.list_item(row, item.listed(now))

    def listed(self, item_id: str) -> bool:
        """Whether lists may hold an item."""
        item = self.get(item_id)
        return item is not None and item.listed(time.time())

    def title(self, item_id: str) -> str | None:
        """The title of an item."""
        change = self.changes.get(item_id)
        if change is not None and change.title is not None:
            return change.title
        row = self.deployment.items.row(item_id)
        return None if row < 0 or self.deployment.titles is None else self.deployment.titles[row]

    def describe(self, item: Item) -> dict[str, Any]:
        """An item as it is answered."""
        deployment, row = self.deployment, self.deployment.items.row(item.item_id)
        features: dict[str, Any] = {}
        table = deployment.recommender.item_features
        if row >= 0 and table is not None and row < len(table):
            features = table.row(row, named=True)
        return {
            "item_id": item.item_id,
            "title": self.title(item.item_id),
            "features": {**features, **(item.features or {})},
            "hidden": item.hidden,
            "in_stock": item.in_stock,
            "expires": item.expires,
            "listed": item.listed(time.time()),
            "in_model": row >= 0,
            "events": int(deployment.recommender.popularity[row]) if row >= 0 else 0,
            **({"unused_features": self.refused[item.item_id]} if item.item_id in self.refused else {}),
        }

    def search(self, query: str, limit: int) -> list[str]:
        """Ids of listed items whose titles match, the most popular first among those that match equally well."""
        if self._index is None:
            ids = [*self.deployment.ids, *(one for one in self.changes if self.deployment.items.row(one) < 0)]
            self._index = TitleIndex((one, self.title(one)) for one in ids)
        popularity, rows = self.deployment.recommender.popularity, self.deployment.items
        found = []
        for place, item_id in self._index.find(query):
            row = rows.row(item_id)
            found.append((place, -float(popularity[row]) if row >= 0 else 0.0, item_id))
        ids = [item_id for _, _, item_id in heapq.nsmallest(limit + 100, found)]
        return [item_id for item_id in ids if self.listed(item_id)][:limit]

    def page(self, after: str | None, limit: int) -> tuple[list[str], str | None]:
        """Ids after a cursor, in the order of the catalog with new items behind it, and the next cursor."""
        ids = self.deployment.ids[: len(self.deployment.bundle.recommender.items)]
        start = int(after) if after else 0
        new = [one for one in self.changes if not self.in_catalog(one)]
        every = len(ids) + len(new)
        end = min(start + limit, every)
        page = [ids[n] if n < len(ids) else new[n - len(ids)] for n in range(start, end)]
        return page, str(end) if end < every else None

    async def save(self, store: Store, item: Item) -> None:
        """Store a change, then take it over."""
        row = item.row(time.time())

        def change(connection: Connection) -> None:
            connection.execute(delete(tables.items).where(tables.items.c.item_id == item.item_id))
            connection.execute(tables.items.insert(), row)
            store.announce(connection, ITEM, [item.item_id])

        await store.write(change)
        self.put(item)

    async def delete(self, store: Store, item_id: str) -> None:
        """Delete an item: one of the bundle stays known to the model, but is hidden."""
        if self.in_catalog(item_id):
            await self.save(store, replace(self.get(item_id) or Item(item_id), hidden=True))
            return

        def remove(connection: Connection) -> None:
            connection.execute(delete(tables.items).where(tables.items.c.item_id == item_id))
            store.announce(connection, ITEM, [item_id])

        await store.write(remove)
        self.remove(item_id)


def load_items(connection: Connection, ids: Collection[str] | None = None) -> list[Item]:
    """The changes of these items in the store, of all items unless named."""
    query = select(tables.items).order_by(tables.items.c.updated)
    if ids is not None:
        query = query.where(tables.items.c.item_id.in_(ids))
    return [Item.of(row) for row in connection.execute(query)]
