"""Service: everything behind the routes, started and stopped with the event loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Row, delete, select, update

from palate.recommend.cold_start import DAY
from palate.serve import tables, tracing
from palate.serve.answers import SESSION, Answers
from palate.serve.deployment import Deployment
from palate.serve.items import Items, load_items
from palate.serve.live import DELETE_USER, MERGE, UNDO, Live
from palate.serve.models import Models
from palate.serve.problems import Problem
from palate.serve.schemas import FeedbackEvent
from palate.serve.settings import Settings
from palate.serve.store import ITEM, USER, Event, Store, Stored, store_name
from palate.serve.stream import Stream
from palate.serve.tokens import token

CHUNK = 20_000  # events read at a time when the live state is rebuilt
POLL_SECONDS = 0.25  # between looks at the log that other servers write, too
logger = logging.getLogger(__name__)


class Service:
    """The store, the live state and the bundles of one process.

    Args:
        settings: the settings.
        bundles: loaded ones; the first answers.
    """

    def __init__(self, settings: Settings, bundles: list[Deployment]) -> None:
        self.settings = settings
        self.store = Store(settings.store, self._applied)
        self.store_name = self.store.read_now(store_name)
        for one in bundles:
            one.join(self.store_name)
        first = bundles[0]
        live = Live(settings.events, first)
        self.answers = Answers(settings, first, Items(first), live, self.store)
        self.models = Models(settings, self.store, self.store_name, bundles, self.answers)
        self.stream = Stream()
        self.on_events: Callable[[list[Stored]], None] = lambda _: None  # called with what was applied
        self.started = time.time()
        self.ready = False
        self._own: set[int] = set()  # places in the log that this process wrote and has applied already
        self._polled = 0
        self._poller: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Rebuild the live state from the store, then take requests."""
        # Millions of events that stay: the collector would look through all of them again and again while they are
        # read, and later within requests.
        gc.disable()
        try:
            await asyncio.to_thread(self._rebuild)
        finally:
            gc.enable()
        gc.freeze()
        self.store.start()
        if not self.store.is_sqlite:
            self._poller = asyncio.create_task(self._poll())
        self.ready = True

    async def stop(self) -> None:
        """Write what waits and close the store."""
        self.ready = False
        self.answers.impressions.flush()
        if self._poller is not None:
            self._poller.cancel()
        await self.store.stop()

    # Feedback.

    def user_key(self, user_id: str | None, session_id: str | None) -> str:
        """The key of a user or of a session in the store.

        Raises:
            Problem: none or both are given.
        """
        if (user_id is None) == (session_id is None):
            raise Problem(422, "give one of user_id and session_id")
        if user_id is not None:
            if user_id.startswith(SESSION):
                raise Problem(422, f"a user_id must not begin with {SESSION}: give session_id")
            return self.answers.deployment.canonical(self.answers.deployment.users, user_id)
        return SESSION + str(session_id)

    def event(self, given: FeedbackEvent, now: float) -> Event:
        """A row of the log.

        Raises:
            Problem: the type is unknown, or the user is missing.
        """
        if given.type not in self.settings.events:
            raise Problem(422, f"unknown event type {given.type!r}: there are {', '.join(self.settings.events)}")
        if self.settings.events[given.type].rated and given.value is None:
            raise Problem(422, f"an event of type {given.type!r} needs a value, the rating")
        if given.time is not None and given.time > now + DAY:
            raise Problem(422, f"time={given.time:.0f} is in the future: give seconds since 1970, not milliseconds")
        deployment = self.answers.deployment
        return Event(
            given.event_id or token(),
            self.user_key(given.user_id, given.session_id),
            deployment.canonical(deployment.items, given.item_id),
            given.type,
            given.value,
            now if given.time is None else given.time,
            now,
            given.recommendation_id,
            None if given.context is None else orjson.dumps(given.context).decode(),
        )

    async def feedback(self, events: Iterable[FeedbackEvent]) -> tuple[list[Event], list[Stored]]:
        """Store events; all of them, and those that are new. The next answer knows them."""
        now = time.time()
        with tracing.span("validate"):
            rows = [self.event(one, now) for one in events]
        return rows, await self.store.add_events(rows)

    async def undo(self, event_id: str) -> bool:
        """Take an event back; False where no such event is stored, or it was taken back before."""
        table = tables.events

        def find(connection: Connection) -> tuple[int, str, str] | None:
            # The update is the test, so that two requests cannot both take it back.
            found = connection.execute(
                update(table)
                .where(
                    table.c.event_id == event_id,
                    table.c.undone.is_(False),
                    table.c.type.not_in([UNDO, MERGE, DELETE_USER]),
                )
                .values(undone=True)
                .returning(table.c.seq, table.c.user_id, table.c.item_id)
            ).first()
            return None if found is None else (found[0], found[1], found[2])

        found = await self.store.write(find)
        if found is None:
            return False
        await self._control(UNDO, found[1], found[2], float(found[0]))
        return True

    async def merge(self, session_id: str, user_id: str) -> int:
        """Give the events of a session to a user; their number."""
        table, session, user = tables.events, SESSION + session_id, self.user_key(user_id, None)

        def move(connection: Connection) -> int:
            moved = connection.execute(
                update(table).where(table.c.user_id == session, table.c.type.not_in([MERGE])).values(user_id=user)
            )
            connection.execute(
                update(tables.impressions).where(tables.impressions.c.user_id == session).values(user_id=user)
            )
            return moved.rowcount

        moved = await self.store.write(move)
        if moved:
            await self._control(MERGE, user, session, None)
        return moved

    async def delete_user(self, user_id: str) -> int:
        """Delete a user with all data; the number of deleted events. Answers treat the id as unknown from now on."""
        user = self.user_key(user_id, None)

        def remove(connection: Connection) -> int:
            mine = tables.events.c.user_id == user
            gone = connection.execute(delete(tables.events).where(mine, tables.events.c.type.not_like("$%"))).rowcount
            connection.execute(delete(tables.events).where(mine))
            connection.execute(delete(tables.impressions).where(tables.impressions.c.user_id == user))
            connection.execute(delete(tables.users).where(tables.users.c.user_id == user))
            connection.execute(
                tables.users.insert(), {"user_id": user, "features": None, "deleted": True, "updated": time.time()}
            )
            return gone

        gone = await self.store.write(remove)
        await self._control(DELETE_USER, user, "", None)
        return gone

    async def _control(self, kind: str, user: str, item: str, value: float | None) -> None:
        now = time.time()
        await self.store.add_events([Event(token(), user, item, kind, value, now, now)])

    # Live state.

    def _applied(self, rows: list[Stored]) -> None:
        if not self.store.is_sqlite:
            self._own.update(row.seq for row in rows)
        self._take(rows)

    def _take(self, rows: list[Stored]) -> None:
        self.answers.live.apply(rows)
        for _, event in rows:
            if event.type == DELETE_USER:
                self.answers.features.pop(event.user_id, None)
        self.on_events(rows)

    def _rebuild(self) -> None:
        """The live state of everything in the store."""
        answers = self.answers
        self.models.restore()
        answers.items.put(*self.store.read_now(load_items))
        self.store.read_now(answers.experiments.load)
        users = self.store.read_now(lambda connection: connection.execute(select(tables.users)).all())
        for user in users:
            self._take_user(user)
        after = 0
        while rows := self.store.read_now(lambda connection, after=after: read_log(connection, after, CHUNK)):  # type: ignore[misc]
            # Rows that were moved or deleted are as they are now; only what is still true is replayed.
            kept = [row for row in rows if not row.event.type.startswith("$")]
            answers.live.apply(kept)
            after = rows[-1].seq
        self._polled = answers.live.seq = after

    async def _poll(self) -> None:
        """Take over what other servers have written to the same database."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                rows = await self.store.read(lambda connection: read_log(connection, self._polled, CHUNK))
                if rows:
                    others = [row for row in rows if row.seq not in self._own and row.seq not in self.store.announced]
                    await self._take_changes([row.event for row in others if row.event.type in (ITEM, USER)])
                    self._polled = rows[-1].seq
                    self._take([row for row in others if row.event.type not in (ITEM, USER)])
                    self._own = {seq for seq in self._own if seq > self._polled}
                    self.store.announced.difference_update(row.seq for row in rows)
            except Exception as error:  # a database that is gone comes back
                logger.warning("the log cannot be read: %s", error)

    async def _take_changes(self, announced: list[Event]) -> None:
        """Read the items and users again that other servers have changed."""
        changed = {event.item_id for event in announced if event.type == ITEM}
        if changed:
            items = self.answers.items
            found = {one.item_id: one for one in await self.store.read(lambda part: load_items(part, changed))}
            for item_id in changed:
                if item_id in found:
                    items.put(found[item_id])
                else:
                    items.remove(item_id)
        names = {event.user_id for event in announced if event.type == USER}
        if names:
            query = select(tables.users).where(tables.users.c.user_id.in_(names))
            for user in await self.store.read(lambda part: part.execute(query).all()):
                self._take_user(user)

    def _take_user(self, user: Row[Any]) -> None:
        """A row of the table of users."""
        if user.deleted:
            self.answers.live.deleted.add(user.user_id)
        if user.features is not None or not user.deleted:
            self.answers.features[user.user_id] = orjson.loads(user.features or "{}")


def read_log(connection: Connection, after: int, limit: int) -> list[Stored]:
    """Events of the log that were not taken back, after a place, in order."""
    table = tables.events
    columns = (table.c.seq, table.c.event_id, table.c.user_id, table.c.item_id, table.c.type, table.c.value)
    query = (
        select(*columns, table.c.time, table.c.received)
        .where(table.c.seq > after, table.c.undone.is_(False))
        .order_by(table.c.seq)
        .limit(limit)
    )
    return [Stored(seq, Event(*rest)) for seq, *rest in connection.execute(query).all()]


def load_bundles(paths: list[Path], trusted_key: Path | None = None) -> list[Deployment]:
    """Load bundles, the first of which answers.

    Raises:
        BundleError: one is missing, damaged, or not signed by a trusted key.
    """
    return [Deployment.load(path, trusted_key) for path in paths]
