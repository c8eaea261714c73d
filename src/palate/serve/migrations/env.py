"""Alembic runs this file for every command; the connection comes from ``palate.serve.migrations.upgrade``."""

from alembic import context

from palate.serve.tables import metadata

if hasattr(context, "config"):  # an import outside of a command has no configuration
    context.configure(
        connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
    )
    with context.begin_transaction():
        context.run_migrations()
