"""Experiments, the arms of impressions, and a name for the store that bundles refitted from it carry."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add them."""
    op.create_table(
        "experiments",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("started", sa.Float),
        sa.Column("stopped", sa.Float),
    )
    op.add_column("impressions", sa.Column("experiment", sa.String(100)))
    op.add_column("impressions", sa.Column("arm", sa.String(40)))
    op.add_column("impressions", sa.Column("row_arms", sa.Text))
    there = sa.text("experiment IS NOT NULL")
    op.create_index(
        "impressions_of_experiment", "impressions", ["experiment"], sqlite_where=there, postgresql_where=there
    )
    named = sa.table("settings", sa.column("name", sa.String), sa.column("content", sa.Text))
    op.bulk_insert(named, [{"name": "store", "content": uuid4().hex}])


def downgrade() -> None:
    """Take them away."""
    op.execute("DELETE FROM settings WHERE name = 'store'")
    op.drop_index("impressions_of_experiment", "impressions")
    for name in ("row_arms", "arm", "experiment"):
        op.drop_column("impressions", name)
    op.drop_table("experiments")
