"""The versions of the tables, as Alembic revisions; a server upgrades its store when it starts."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, text


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the tables to a revision, the newest unless named; processes that start together take turns."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(7266284)"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
