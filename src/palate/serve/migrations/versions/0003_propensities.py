"""Propensities of items instead of those of places, and the probability of a place to be explored."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add it, and drop the propensities that are there, which are those of exploring a place."""
    op.add_column("impressions", sa.Column("explored", sa.Float))
    op.execute("UPDATE impressions SET propensity = NULL")


def downgrade() -> None:
    """Take it away."""
    op.execute("UPDATE impressions SET propensity = NULL")
    op.drop_column("impressions", "explored")
