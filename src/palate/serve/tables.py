"""The tables of the store. ``migrations`` builds them step by step; a test compares the two.

Times are seconds since 1970 in UTC. Ids are texts. JSON is stored as text, so that SQLite and PostgreSQL agree.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()
# SQLite numbers rows by itself only in a column of type INTEGER.
Number = BigInteger().with_variant(Integer, "sqlite")

# A log that only grows, except that ``undone`` is set. Besides feedback it has rows of type $undo, $merge and
# $delete-user, so that a server that reads on from its last ``seq`` learns of everything.
events = Table(
    "events",
    metadata,
    Column("seq", Number, primary_key=True, autoincrement=True),
    Column("event_id", String(200), nullable=False, unique=True),
    Column("user_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("type", String(100), nullable=False),
    Column("value", Float),
    Column("time", Float, nullable=False),
    Column("received", Float, nullable=False),
    Column("recommendation_id", String(100)),
    Column("context", Text),
    Column("undone", Boolean, nullable=False, default=False),
    Index("events_of_user", "user_id", "seq"),
    Index("events_of_item", "item_id", "seq"),
    sqlite_autoincrement=True,  # a number is never given twice, even after the newest row was deleted
)

impressions = Table(
    "impressions",
    metadata,
    Column("recommendation_id", String(100), primary_key=True),
    Column("first_rank", Integer, primary_key=True),
    Column("user_id", Text),
    Column("time", Float, nullable=False),
    Column("model", String(200), nullable=False),
    Column("scenario", String(200)),
    Column("items", Text, nullable=False),
    Column("sources", Text, nullable=False),
    Column("propensity", Text),  # of each item, the probability to be in the list, where exploration drew
    Column("explored", Float),  # the probability of a place to be explored, likewise
    Column("experiment", String(100)),
    Column("arm", String(40)),
    Column("row_arms", Text),  # of interleaved lists: the arm of each row
    Index("impressions_of_user", "user_id", "time"),
)
_in_experiment = impressions.c.experiment.is_not(None)
Index(
    "impressions_of_experiment",
    impressions.c.experiment,
    sqlite_where=_in_experiment,
    postgresql_where=_in_experiment,
)

experiments = Table(
    "experiments",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("content", Text, nullable=False),
    Column("state", String(20), nullable=False),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("stopped", Float),
)

items = Table(
    "items",
    metadata,
    Column("item_id", Text, primary_key=True),
    Column("title", Text),
    Column("features", Text),
    Column("hidden", Boolean, nullable=False, default=False),
    Column("in_stock", Boolean, nullable=False, default=True),
    Column("expires", Float),
    Column("updated", Float, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("features", Text),
    Column("deleted", Boolean, nullable=False, default=False),
    Column("updated", Float, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("key_id", String(40), primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", String(20), nullable=False),
    Column("salt", String(64), nullable=False),
    Column("digest", String(128), nullable=False),
    Column("created", Float, nullable=False),
)

values = Table(
    "settings",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("content", Text, nullable=False),
)
