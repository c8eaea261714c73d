"""Load exported vectors into PostgreSQL with pgvector, and recommend in SQL.

    palate export bundles/quickstart --vectors vectors
    python examples/pgvector.py vectors postgresql://shop@localhost/shop --user u0001

Replaces the tables palate_users and palate_items in one transaction: readers see the old rows or the new ones. Needs
psycopg (pip install 'palate[serve]') and the right to create the extension, or a database that has it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl
import psycopg
from psycopg import sql

NEAREST = """
SELECT item_id, title, -(vector <#> (SELECT vector FROM palate_users WHERE user_id = %(user)s)) AS score
FROM palate_items
ORDER BY vector <#> (SELECT vector FROM palate_users WHERE user_id = %(user)s)
LIMIT %(k)s
"""  # <#> is the negative product: PostgreSQL scans its indexes in ascending order only


def load(connection: psycopg.Connection, table: str, rows: pl.DataFrame) -> None:
    """Replace a table by (id, title, vector) rows, copied in binary-free text as pgvector reads it: [0.1,0.2]."""
    key, width = rows.columns[0], rows["vector"].dtype.size
    if "title" not in rows.columns:
        rows = rows.with_columns(title=pl.lit(None, pl.String))
    name = sql.Identifier(table)
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
    columns = sql.SQL("CREATE TABLE {} ({} text PRIMARY KEY, title text, vector vector({}) NOT NULL)")
    connection.execute(columns.format(name, sql.Identifier(key), sql.Literal(width)))
    copy = sql.SQL("COPY {} ({}, title, vector) FROM STDIN").format(name, sql.Identifier(key))
    with connection.cursor() as cursor, cursor.copy(copy) as stream:
        for identifier, title, vector in rows.select(key, "title", "vector").iter_rows():
            stream.write_row((str(identifier), title, f"[{','.join(map(str, vector))}]"))


def main() -> None:
    """Load both tables, index the items, and list the best for a user."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="written by palate export --vectors")
    parser.add_argument("database", help="URL of the database")
    parser.add_argument("--user", help="then list the best items of this user")
    parser.add_argument("-k", type=int, default=10)
    arguments = parser.parse_args()
    with psycopg.connect(arguments.database) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        for table in ("users", "items"):
            load(connection, f"palate_{table}", pl.read_parquet(arguments.folder / f"{table}.parquet"))
        # An approximate index; exact below some ten thousand items, where it costs more than it saves.
        connection.execute("CREATE INDEX ON palate_items USING hnsw (vector vector_ip_ops)")
    if arguments.user is not None:
        with psycopg.connect(arguments.database) as connection:
            for item, title, score in connection.execute(NEAREST, {"user": arguments.user, "k": arguments.k}):
                print(item, title or "", f"{score:.4f}", sep="\t")


if __name__ == "__main__":
    main()
