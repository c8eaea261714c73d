"""The tables of the migrations are those of the code, from each revision on, on each database."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from palate.errors import DataError
from palate.serve import migrations, tables
from palate.serve.search import TitleIndex, fold
from palate.serve.store import open_engine

REVISIONS = [one.revision for one in ScriptDirectory(migrations.__path__[0]).walk_revisions()]


def test_the_newest_revision_is_named():
    assert ScriptDirectory(migrations.__path__[0]).get_current_head() == migrations.HEAD


@pytest.mark.parametrize("revision", REVISIONS)
def test_migrations_lead_to_the_tables_of_the_code(store, revision):
    engine = open_engine(store)
    migrations.upgrade(engine, revision)
    migrations.upgrade(engine)
    migrations.upgrade(engine)  # a second server finds them as they are
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        assert connection.execute(text("select count(*) from events")).scalar() == 0
    engine.dispose()


@pytest.mark.parametrize("url", ["events.db", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "http://x"])
def test_another_url_is_refused(url):
    with pytest.raises(DataError, match=r"sqlite:///file\.db"):
        open_engine(url)


def test_titles_are_found_by_words_and_their_beginnings():
    index = TitleIndex([("1", "Amélie (2001)"), ("2", "The Amelia Story"), ("3", None), ("4", "Straße nach Amel")])
    assert fold("STRASSE") == fold("Straße")
    assert sorted(index.find("amel")) == [(0, "1"), (1, "2"), (1, "4")]
    assert index.find("story am") == [(2, "2")]
    assert index.find("strasse") == [(0, "4")]
    assert index.find("3") == [(0, "3")]
    assert index.find(" ,. ") == []
    index.put("1", "Other")
    assert "1" not in {key for _, key in index.find("amel")}
    index.remove("2")
    assert index.find("amelia") == []
