"""The store: what was said to the server and must outlive it, in SQLite or PostgreSQL, through one code path.

One thread writes. It takes all writes that wait, puts them into one transaction and acknowledges them after the commit,
so that an acknowledged write is durable and many clients share one flush to the disk (group commit). SQLite runs with
a write-ahead log and ``synchronous=FULL``, which flushes at every commit.

    rows = await store.add_events(events)     # those that are new; a repeated event_id is not stored again
    await store.write(lambda connection: connection.execute(...))
    found = await store.read(lambda connection: connection.execute(...).all())
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event, make_url, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from palate.errors import DataError, StorageError
from palate.serve import tables, tracing

T = TypeVar("T")
GROUP_ROWS = 2_000  # rows of one transaction at most: bounds the time until its first write is acknowledged
WAITING = 20_000  # writes that may wait; more are refused, so that a slow disk does not fill the memory
LOCK = 7_266_283  # of PostgreSQL's advisory locks
ITEM, USER = "$item", "$user"  # rows of the log that announce a change of an item or a user to other servers
logger = logging.getLogger(__name__)


class StoreUnavailableError(StorageError):
    """The database does not answer or cannot write; the request may be repeated."""


class Event(NamedTuple):
    """A row of the log to be stored; fields as in ``tables.events``."""

    event_id: str
    user_id: str
    item_id: str
    type: str
    value: float | None
    time: float
    received: float
    recommendation_id: str | None = None
    context: str | None = None


class Stored(NamedTuple):
    """An event with its place in the log."""

    seq: int
    event: Event


@dataclass(eq=False)
class _Write:
    """A write that waits: events, or any other change; ``done`` is completed in the loop of the asker."""

    events: Sequence[Event]
    change: Callable[[Connection], Any] | None
    done: asyncio.Future[Any] | None


class Store:
    """A database and the thread that writes to it.

    Args:
        url: ``sqlite:///file.db`` or ``postgresql://user@host/name``.
        applied: called in the event loop with the events of each commit, in the order of ``seq``, before their writes
            are acknowledged.

    Raises:
        DataError: the URL is not one of a supported database.
        StoreUnavailableError: the database cannot be opened.
    """

    def __init__(self, url: str, applied: Callable[[list[Stored]], None] = lambda _: None) -> None:
        self.engine = open_engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.applied = applied
        self.available = True
        self.commits = 0
        self.stored = 0
        self.commit_seconds = 0.0  # of the latest commit
        self.announced: set[int] = set()  # places in the log of the changes that this process has announced
        self._waiting: queue.Queue[_Write | None] = queue.Queue(WAITING)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="palate-store", daemon=True)
        self.migrate()

    def migrate(self) -> None:
        """Create the tables, or bring those of an earlier version up to date."""
        from palate.serve.migrations import upgrade

        try:
            upgrade(self.engine)
        except (DBAPIError, OSError) as error:
            raise unavailable(error) from None

    def start(self) -> None:
        """Start the writing thread; call it in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Write all that waits, then end the thread."""
        if self._thread.is_alive():
            await asyncio.to_thread(self._waiting.put, None)
            await asyncio.to_thread(self._thread.join)
        self.engine.dispose()

    @property
    def waiting(self) -> int:
        """Writes that wait."""
        return self._waiting.qsize()

    async def add_events(self, rows: Sequence[Event]) -> list[Stored]:
        """Store events; those whose ``event_id`` is new, with their places in the log.

        Raises:
            StoreUnavailableError: they are not stored.
        """
        return cast("list[Stored]", await self._ask(rows, None))

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Run a change in the next transaction and return its result after the commit.

        Raises:
            StoreUnavailableError: it did not happen.
        """
        return cast(T, await self._ask((), change))

    def announce(self, connection: Connection, kind: str, ids: Iterable[str]) -> None:
        """Tell other servers on the database, within a change, of changed items or users; SQLite serves only one.

        Args:
            connection: that of the change.
            kind: ``ITEM`` or ``USER``.
            ids: what is to be read again.
        """
        if self.is_sqlite:
            return
        now, event = time.time(), tables.events
        rows = [
            {
                "event_id": secrets.token_urlsafe(12),
                "user_id": one if kind == USER else "",
                "item_id": one if kind == ITEM else "",
                "type": kind,
                "time": now,
                "received": now,
                "undone": False,
            }
            for one in ids
        ]
        self.announced.update(connection.execute(event.insert().returning(event.c.seq), rows).scalars())

    def later(self, change: Callable[[Connection], Any]) -> bool:
        """Run a change in some transaction, without an answer; False where too much waits already."""
        # Half of the places stay free for writes that a client waits for.
        if self.waiting > WAITING // 2:
            return False
        self._waiting.put_nowait(_Write((), change, None))
        return True

    async def read(self, query: Callable[[Connection], T]) -> T:
        """The result of a query, run in another thread.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        return await asyncio.to_thread(self.read_now, query)

    def read_now(self, query: Callable[[Connection], T]) -> T:
        """The result of a query, in this thread."""
        try:
            with self.engine.connect() as connection:
                return query(connection)
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise unavailable(error) from None

    async def _ask(self, rows: Sequence[Event], change: Callable[[Connection], Any] | None) -> Any:
        done = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait(_Write(rows, change, done))
        except queue.Full:
            raise StoreUnavailableError(f"{WAITING:,} writes wait for the database: try again in a second") from None
        with tracing.span("store"):
            return await done

    # The writing thread.

    def _run(self) -> None:
        stopped = False
        while not stopped:
            group: list[_Write] = []
            size = 0
            item = self._waiting.get()
            while item is not None:
                group.append(item)
                size += max(1, len(item.events))
                if size >= GROUP_ROWS:
                    break
                try:
                    item = self._waiting.get_nowait()
                except queue.Empty:
                    break
            stopped = item is None
            if group:
                self._commit(group)

    def _commit(self, group: list[_Write]) -> None:
        started = time.perf_counter()
        try:
            with self.engine.begin() as connection:
                if not self.is_sqlite:
                    # Two servers on one database commit in the order of ``seq``: a reader that has seen n misses
                    # nothing below n.
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
                results = self._write(connection, group)
        except Exception as error:
            if len(group) > 1 and not isinstance(error, OperationalError | InterfaceError | PoolTimeout):
                for one in group:  # the fault of one write must not fail the others
                    self._commit([one])
                return
            failure = unavailable(error) if isinstance(error, DBAPIError | PoolTimeout) else error
            self.available = not isinstance(failure, StoreUnavailableError)
            logger.warning("%d writes failed: %s", len(group), failure)

            def refuse() -> None:
                for one in group:
                    if one.done is not None and not one.done.done():
                        one.done.set_exception(failure)

            self._tell(refuse)
            return
        self.available = True
        self.commits += 1
        self.commit_seconds = time.perf_counter() - started

        def acknowledge() -> None:
            rows = [row for result in results if isinstance(result, _New) for row in result]
            self.stored += len(rows)
            if rows:
                self.applied(rows)
            for one, result in zip(group, results, strict=True):
                if one.done is not None and not one.done.done():
                    one.done.set_result(result)

        self._tell(acknowledge)

    def _tell(self, call: Callable[[], Any]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop has ended: no request waits any more
            logger.debug("a write ended after the server")

    def _write(self, connection: Connection, group: list[_Write]) -> list[Any]:
        """The result of each write; runs of events are stored by one statement."""
        results: list[Any] = []
        place = 0
        while place < len(group):
            end = place
            while end < len(group) and group[end].change is None:
                end += 1
            if end > place:
                results += self._insert(connection, [one.events for one in group[place:end]])
                place = end
                continue
            change = group[place].change
            assert change is not None
            results.append(change(connection))
            place += 1
        return results

    def _insert(self, connection: Connection, batches: list[Sequence[Event]]) -> list[_New]:
        rows = {row.event_id: row for batch in reversed(batches) for row in reversed(batch)}
        insert = (sqlite if self.is_sqlite else postgresql).insert(tables.events)
        statement = insert.on_conflict_do_nothing(index_elements=["event_id"]).returning(
            tables.events.c.event_id, tables.events.c.seq
        )
        # In the order of arrival: a dictionary made backwards keeps the first of equal ids.
        given = [{**row._asdict(), "undone": False} for row in reversed(rows.values())]
        found = {row[0]: row[1] for row in connection.execute(statement, given)} if given else {}
        # An id twice among the batches belongs to the first.
        return [
            _New(sorted(Stored(found.pop(row.event_id), row) for row in batch if row.event_id in found))
            for batch in batches
        ]


class _New(list[Stored]):
    """The new events of one write."""


def open_engine(url: str) -> Engine:
    """The engine of a database, with the settings that make its commits durable.

    Raises:
        DataError: the URL is not one of a supported database.
    """
    try:
        parts = make_url(url)
    except ArgumentError:
        raise DataError(f"store={url!r} is no URL: write sqlite:///file.db or postgresql://user@host/name") from None
    if parts.get_backend_name() == "sqlite":
        if not parts.database or parts.database == ":memory:":
            raise DataError(f"store={url!r} names no file: write sqlite:///file.db")
        return _sqlite_engine(parts.set(drivername="sqlite"), Path(parts.database))
    if parts.get_backend_name() in ("postgresql", "postgres"):
        return create_engine(
            parts.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,  # a connection that the database closed is replaced instead of failing a write
            pool_timeout=5,
            connect_args={"connect_timeout": 5, "options": "-c statement_timeout=30000"},
        )
    raise DataError(f"store={parts.drivername}: write sqlite:///file.db or postgresql://user@host/name")


def _sqlite_engine(url: Any, path: Path) -> Engine:
    try:
        # Made by us, since SQLite would make it readable by all; its log files follow the mode of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreUnavailableError(
            f"cannot open {path} ({error.strerror}): give a file in a writable folder"
        ) from None
    engine = create_engine(url, connect_args={"timeout": 10, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {setting}")

    return engine


def unavailable(error: BaseException) -> StoreUnavailableError:
    """The error of a database in one line."""
    reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    return StoreUnavailableError(f"the database does not take it ({reason}): nothing was stored, try again later")


def last_seq(connection: Connection) -> int:
    """The newest place in the log, 0 where it is empty."""
    return connection.execute(select(tables.events.c.seq).order_by(tables.events.c.seq.desc()).limit(1)).scalar() or 0


def store_name(connection: Connection) -> str:
    """The name of the store: bundles refitted from it carry it, since places in the log mean nothing elsewhere."""
    query = select(tables.values.c.content).where(tables.values.c.name == "store")
    return str(connection.execute(query).scalar_one())
