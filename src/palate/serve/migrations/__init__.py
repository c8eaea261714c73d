"""The versions of the tables, as Alembic revisions; a server upgrades its store when it starts."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, inspect, text

HEAD = "0003"  # the newest revision


def upgrade(engine: Engine, revision: str = HEAD) -> None:
    """Bring the tables to a revision, the newest unless named; processes that start together take turns."""
    with engine.connect() as connection:
        if inspect(connection).has_table("alembic_version"):
            found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
            if found == revision:
                return  # Alembic takes half a second to import
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(7266284)"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
