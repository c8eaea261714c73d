"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "events",
        sa.Column("seq", Number, primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.String(200), nullable=False, unique=True),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("type", sa.String(100), nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("received", sa.Float, nullable=False),
        sa.Column("recommendation_id", sa.String(100)),
        sa.Column("context", sa.Text),
        sa.Column("undone", sa.Boolean, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("events_of_user", "events", ["user_id", "seq"])
    op.create_index("events_of_item", "events", ["item_id", "seq"])
    op.create_table(
        "impressions",
        sa.Column("recommendation_id", sa.String(100), primary_key=True),
        sa.Column("first_rank", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.Text),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("scenario", sa.String(200)),
        sa.Column("items", sa.Text, nullable=False),
        sa.Column("sources", sa.Text, nullable=False),
        sa.Column("propensity", sa.Text),
    )
    op.create_index("impressions_of_user", "impressions", ["user_id", "time"])
    op.create_table(
        "items",
        sa.Column("item_id", sa.Text, primary_key=True),
        sa.Column("title", sa.Text),
        sa.Column("features", sa.Text),
        sa.Column("hidden", sa.Boolean, nullable=False),
        sa.Column("in_stock", sa.Boolean, nullable=False),
        sa.Column("expires", sa.Float),
        sa.Column("updated", sa.Float, nullable=False),
    )
    op.create_table(
        "users",
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("features", sa.Text),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.Column("updated", sa.Float, nullable=False),
    )
    op.create_table(
        "keys",
        sa.Column("key_id", sa.String(40), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("salt", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(128), nullable=False),
        sa.Column("created", sa.Float, nullable=False),
    )
    op.create_table(
        "settings",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Drop every table."""
    for name in ("settings", "keys", "users", "items", "impressions", "events"):
        op.drop_table(name)
