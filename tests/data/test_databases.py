import io
import os
import shutil
import sqlite3
import subprocess
import zipfile
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import polars as pl
import pytest

from palate.data.frame import to_frame
from palate.data.readers import read_interactions
from palate.errors import DataError

ROWS = [("u1", 1, 5.0), ("u2", 2, 3.0), ("u1", 2, 4.0)]
IDS = [UUID(int=7 << 100), UUID(int=9 << 100)]


def rows(data, **options):
    return to_frame(read_interactions(data, **options)).rows()


def test_sqlite(tmp_path):
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders (user, item, rating)")
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", ROWS)
    assert rows(path) == rows(f"sqlite:///{path}") == ROWS
    assert rows(path, query="SELECT user AS who, item FROM orders", user="who") == [(*row[:2], 1.0) for row in ROWS]
    with connection:
        connection.execute("CREATE TABLE other (x)")
        connection.execute("INSERT INTO orders VALUES (7, 1, 2)")
    with pytest.raises(
        DataError, match=r"shop.db: the database has 2 tables \('orders', 'other'\): name one with --table"
    ):
        read_interactions(path)
    assert rows(path, table="orders") == [*ROWS, ("7", 1, 2.0)]
    with pytest.raises(DataError, match="the database answers: no such column: x"):
        read_interactions(path, query="SELECT x FROM orders")
    connection.close()


def test_duckdb(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute('CREATE TABLE orders ("user" VARCHAR, item INTEGER, rating DECIMAL(4, 1))')
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", ROWS)
    assert rows(path) == rows(f"duckdb:///{path}", table="orders") == ROWS
    with pytest.raises(DataError, match=r"shop.duckdb: the database answers: Catalog Error"):
        read_interactions(path, table="nothing")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    pytest.importorskip("adbc_driver_postgresql")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders or (os.geteuid() == 0 and shutil.which("runuser") is None):
        pytest.skip("PostgreSQL is not installed")
    home = Path("/tmp") / f"palate-pg-{os.getpid()}"  # a socket's path is short, and another account must reach it
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []

    def run(*command):
        subprocess.run([*as_user, *map(str, command)], check=True, capture_output=True, cwd="/tmp", timeout=120)

    try:
        run(folders[-1] / "initdb", "-D", home / "data", "-U", "palate", "-A", "trust", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync=off"
        run(folders[-1] / "pg_ctl", "-D", home / "data", "-o", options, "-w", "-l", home / "log", "start")
        try:
            yield f"postgresql://palate:secret@/postgres?host={home}"
        finally:
            run(folders[-1] / "pg_ctl", "-D", home / "data", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_postgresql(postgres):
    import adbc_driver_postgresql.dbapi as driver

    with driver.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE orders (who uuid, item integer, rating numeric(4, 1), at timestamptz)")
        values = ", ".join(
            f"('{IDS[user == 'u2']}', {item}, {rating}, '2024-05-0{item} 10:00:00+00')" for user, item, rating in ROWS
        )
        cursor.execute(f"INSERT INTO orders VALUES {values}")
        connection.commit()
    dataset = read_interactions(postgres, table="orders", user="who", timestamp="at")
    assert to_frame(dataset).select("user_id", "item_id", "rating").rows() == [
        (str(IDS[user == "u2"]), item, rating) for user, item, rating in ROWS
    ]
    assert dataset.interactions.time[0] == datetime.fromisoformat("2024-05-01T10:00:00+00:00").timestamp()
    found = rows(postgres, query="SELECT who, item, rating FROM orders WHERE rating > 2 ORDER BY rating", user="who")
    assert [row[1] for row in found] == [2, 2, 1]
    with pytest.raises(DataError, match="the database answers") as caught:
        read_interactions(postgres, query="SELECT nothing FROM orders")
    assert "secret" not in str(caught.value)
    with pytest.raises(DataError, match="the database answers") as caught:
        read_interactions("postgresql://palate:secret@127.0.0.1:1/shop", query="SELECT 1")
    assert "secret" not in str(caught.value)


def workbook(sheets):
    """A small Excel workbook, written by hand."""
    out = io.BytesIO()
    space = "http://schemas.openxmlformats.org"
    main, rels = f"{space}/spreadsheetml/2006/main", f"{space}/officeDocument/2006/relationships"
    package = f"{space}/package/2006"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    with zipfile.ZipFile(out, "w") as archive:
        overrides = names = links = ""
        for number, (name, table) in enumerate(sheets.items(), 1):
            cells = "".join(
                "<row>"
                + "".join(
                    f"<c><v>{one}</v></c>"
                    if isinstance(one, int | float)
                    else f'<c t="inlineStr"><is><t>{one}</t></is></c>'
                    for one in row
                )
                + "</row>"
                for row in table
            )
            sheet = f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>'
            archive.writestr(f"xl/worksheets/sheet{number}.xml", sheet)
            overrides += f'<Override PartName="/xl/worksheets/sheet{number}.xml" ContentType="{kind}.worksheet+xml"/>'
            names += f'<sheet name="{name}" sheetId="{number}" r:id="rId{number}"/>'
            links += f'<Relationship Id="rId{number}" Type="{rels}/worksheet" Target="worksheets/sheet{number}.xml"/>'
        archive.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>{overrides}</Types>',
        )
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="rId1" '
            f'Type="{rels}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/workbook.xml", f'<workbook xmlns="{main}" xmlns:r="{rels}"><sheets>{names}</sheets></workbook>'
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{package}/relationships">{links}</Relationships>'
        )
    return out.getvalue()


def test_excel(tmp_path):
    pytest.importorskip("fastexcel")
    path = tmp_path / "log.xlsx"
    path.write_bytes(workbook({"about": [["text"], ["x"]], "log": [["user", "item", "rating"], *ROWS]}))
    assert rows(path, table="log") == ROWS
    with pytest.raises(DataError, match=r"log.xlsx: no sheet 'x': the sheets are 'about', 'log'"):
        read_interactions(path, table="x")
    path.write_bytes(workbook({"log": [["user", "item", "rating"], *ROWS]}))
    assert rows(path) == ROWS


def test_parquet_columns_of_all_kinds(tmp_path):
    path = tmp_path / "log.parquet"
    times = [[datetime(2024, 1, 2), datetime(2024, 1, 3)], [], [datetime(2024, 1, 4)]]
    lists = {"user": ["a", "b", "c"], "items": [[1, 2], [], [2]], "time": times}
    pl.DataFrame(lists).write_parquet(path)
    dataset = read_interactions(path, item="items")
    assert to_frame(dataset).select("user_id", "item_id").rows() == [("a", 1), ("a", 2), ("c", 2)]
    notes = {note.text: note.rows for note in dataset.notes}
    assert notes["lists in a row, read as one interaction per element"] == 3
    assert notes["an empty list: no interaction"] == 1
    pl.DataFrame({**lists, "time": [times[0], [], times[0]]}).write_parquet(path)
    with pytest.raises(DataError, match="the lists of a row differ in length"):
        read_interactions(path, item="items")
    columns = {
        "categorical": (pl.Series(["x", "y", "x"], dtype=pl.Categorical), ["x", "y", "x"]),
        "enum": (pl.Series(["x", "y", "x"], dtype=pl.Enum(["y", "x"])), ["x", "y", "x"]),
        "text bytes": (pl.Series([b"x", b"yy", b"x"]), ["x", "yy", "x"]),
        "uuid bytes": (pl.Series([IDS[at].bytes for at in (0, 1, 0)]), [str(IDS[at]) for at in (0, 1, 0)]),
        "decimal": (pl.Series([Decimal(7), Decimal(8), Decimal(7)]), [7, 8, 7]),
        "unsigned": (pl.Series([7, 8, 7], dtype=pl.UInt8), [7, 8, 7]),
    }
    for name, (column, expected) in columns.items():
        pl.DataFrame({"user": column, "item": [1, 2, 3]}).write_parquet(path)
        assert [row[0] for row in rows(path)] == expected, name
