"""Files of many forms and places give the rows that one plain CSV file gives."""

import gzip
import io
import json
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import polars as pl
import pyarrow as pa
import pytest

from palate.data.frame import to_frame
from palate.data.readers import read_interactions, read_table
from palate.errors import DataError

CSV = b"user,item,rating\nu1,a,5\nu2,b,3\nu1,b,4\n"
ROWS = [("u1", "a", 5.0), ("u2", "b", 3.0), ("u1", "b", 4.0)]
JSON = [b'{"user": "u1", "item": "a", "rating": 5}', b'{"rating": 3, "item": "b", "user": "u2"}']
JSON.append(b'{"user": "u1", "item": "b", "rating": 4.0, "extra": {"x": [1]}}')


def rows(data, **options):
    return to_frame(read_interactions(data, **options)).rows()


def zipped(**members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return out.getvalue()


def parquet():
    out = io.BytesIO()
    pl.read_csv(CSV).write_parquet(out)
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"\n".join(JSON),
        b"\xef\xbb\xbf" + b"\r\n\r\n".join(JSON) + b"\n",
        b"[" + b",\n".join(JSON) + b"]",
        gzip.compress(b"\n".join(JSON), mtime=0),
        zipped(log_csv=CSV),
        gzip.compress(parquet(), mtime=0),
        zipped(log_parquet=parquet()),
        zipped(log_csv_gz=gzip.compress(CSV, mtime=0)),
        zipped(log_zip=zipped(log_csv=CSV)),
        gzip.compress(gzip.compress(CSV, mtime=0), mtime=0),
    ],
    ids=[
        *("json lines", "bom, blank lines", "json array", "json gz", "zip", "parquet gz", "parquet zip", "gz in a zip"),
        *("zip in a zip", "gz twice"),
    ],
)
def test_formats_by_content(tmp_path, content):
    (tmp_path / "log.bin").write_bytes(content)
    assert rows(tmp_path / "log.bin") == ROWS


def test_arrow_files(tmp_path):
    pl.read_csv(CSV).write_ipc(tmp_path / "log.arrow")
    assert rows(tmp_path / "log.arrow") == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped(a_csv=CSV, b_csv=CSV), r"the zip archive has 2 files \(a.csv, b.csv\): unpack it and name one"),
        (zipped(), "the zip archive has 0 files"),
        (b"\n".join(JSON) + b'\n{"user": 7\n', "line 4 is not a JSON record"),
        (b'[{"user": 7}', "not well-formed JSON"),
        (pa.compress(CSV * 99, "zstd", asbytes=True)[:-9], "is the file whole"),
        (bytes(257) + b"ustar" + bytes(99), "a tar archive"),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    (tmp_path / "log.bin").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_interactions(tmp_path / "log.bin")


def test_several_files_are_one_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "part-10.csv").write_bytes(b"item,user,rating\nb,u1,4\n")
    (folder / "part-9.csv").write_bytes(CSV[: CSV.index(b"u1,b")])
    (folder / "_SUCCESS").write_bytes(b"")
    (folder / "README.md").write_bytes(b"about")
    for data in (folder, "log", "log/part-*.csv", [folder / "part-9.csv", "log/part-10.csv"]):
        assert rows(data) == ROWS
    dataset = read_interactions("log")
    assert dataset.name == "log"
    assert "2 files read as one table: 3 rows" in map(str, dataset.notes)
    (folder / "2020").mkdir()
    (folder / "2020/part-1.csv").write_bytes(b"user,item,rating\nu9,b,4\n")
    left_out = "taken from the folders '2020' inside, which are not read: name them, or 'log/**/*.csv': 0 rows"
    assert left_out.replace("*.csv", "*") in map(str, read_interactions("log").notes)
    assert len(read_interactions("log/**/*.csv")) == 4
    (folder / "part-10.csv").write_bytes(b"user,item,rating\nu1,b,x\n")
    with pytest.raises(DataError, match=r"row 3 \(part-10.csv line 2\): 'x'"):
        read_interactions(folder)
    (folder / "part-10.csv").write_bytes(b"user,item\nu1,b\n")
    with pytest.raises(
        DataError, match=r"part-10.csv has the columns 'user', 'item', part-9.csv has 'user', 'item', 'r"
    ):
        read_interactions(folder)
    with pytest.raises(DataError, match="no file matches the pattern"):
        read_interactions("log/none-*.csv")


def test_folders_of_partitions_are_one_table_with_their_columns(tmp_path):
    frame = pl.DataFrame({"user": [f"u{i % 9}" for i in range(60)], "sku": [i % 7 for i in range(60)]})
    values = [("view", "2021-09-13"), ("view", "2021-09-14"), ("buy%20now", "2021-09-13")]
    for event, day in values:
        folder = tmp_path / "log" / f"event={event}" / f"date={day}"
        folder.mkdir(parents=True)
        frame.write_parquet(folder / "part-0.parquet")
    (tmp_path / "log" / "_SUCCESS").write_bytes(b"")
    weights = {"view": 1, "buy now": 10}
    for data in (tmp_path / "log", str(tmp_path / "log/event=*/*/*.parquet")):
        dataset = read_interactions(data, duplicates="keep")
        assert len(dataset) == 180
        assert "time=date (UTC)" in dataset.columns  # of all files, not of the first one
        assert "event (2 values: view 67 %, buy now 33 % — use --event event)" in dataset.columns
        assert sorted({one % 86_400 for one in dataset.interactions.time.tolist()}) == [0]
        weighted = read_interactions(data, event="event", event_weights=weights, duplicates="keep")
        assert sorted(weighted.interactions.weight.tolist()) == [1] * 120 + [10] * 60
    # The name of a folder above the one that was given is no column.
    inside = read_interactions(tmp_path / "log/event=view", duplicates="keep")
    assert (len(inside), "event" in inside.columns) == (120, False)
    single = read_interactions(tmp_path / "log/event=view/date=2021-09-13/part-0.parquet")
    assert single.columns == "columns: user=user item=sku"
    for day in ("2021", "2022"):
        (tmp_path / "plain" / day).mkdir(parents=True)
    with pytest.raises(DataError, match=r"no files of interactions: name one of its folders \('2021', '2022'\)"):
        read_interactions(tmp_path / "plain")


def test_standard_input(monkeypatch):
    for content in (CSV, gzip.compress(CSV, mtime=0), parquet(), zipped(log_csv=CSV), b"\n".join(JSON)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
        assert rows("-") == ROWS


@pytest.fixture
def server():
    """A web server, which also answers as an S3 store does where the path begins with a bucket."""
    files = {"/log.csv.gz": gzip.compress(CSV, mtime=0), "/log.parquet": parquet(), "/bucket/log.csv": CSV}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            path = self.path.partition("?")[0]
            content = files.get(path)
            if content is None and path == "/cut.csv":
                self.send_response(200)
                self.send_header("Content-Length", "999")
                self.end_headers()
                self.wfile.write(CSV)
                return
            if content is None:
                self.send_error(404)
                return
            span = self.headers.get("Range")
            first, last = span.removeprefix("bytes=").split("-") if span else ("0", "")
            part = content[int(first) : int(last) + 1 if last else None]
            self.send_response(206 if span else 200)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
            self.send_header("ETag", '"x"')
            if span:
                self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
            self.end_headers()
            if body:
                self.wfile.write(part)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_web_addresses(server):
    assert rows(f"http://{server}/log.csv.gz?key=secret") == ROWS
    assert read_interactions(f"http://{server}/log.csv.gz?key=secret").name == "log"
    assert rows(f"http://{server}/log.parquet") == ROWS
    with pytest.raises(DataError, match=r"^none.csv: the server answers 404"):
        read_table(f"http://{server}/none.csv?key=secret")
    with pytest.raises(DataError, match=r"the connection ended after .* of 999 bytes"):
        read_table(f"http://{server}/cut.csv")
    with pytest.raises(DataError, match="the server cannot be reached"):
        read_table("http://127.0.0.1:1/x.csv")
    with pytest.raises(DataError, match="ftp:// cannot be read: choose https"):
        read_table("ftp://127.0.0.1/x.csv")


def test_cloud_addresses(server, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    address = f"?scheme=http&endpoint_override={server}&region=us-east-1"
    assert rows(f"s3://bucket/log.csv{address}") == ROWS
    with pytest.raises(DataError, match=r"^none.csv: cannot be opened"):
        read_table(f"s3://bucket/none.csv{address}")


def test_objects_in_json_are_taken_apart(tmp_path):
    path = tmp_path / "log.jsonl"
    rows = [
        {"user": {"id": f"0{n % 3}"}, "what": {"sku": n % 4, "price": n}, "ts": {"$date": "2021-01-02"}}
        for n in range(9)
    ]
    for text in ("\n".join(map(json.dumps, rows)), json.dumps(rows)):
        path.write_text(text)
        with pytest.raises(
            DataError, match=r"no column looks like the item: .*'user.id', 'what.sku', 'what.price', 'ts'"
        ):
            read_interactions(path)
        dataset = read_interactions(path, item="what.sku", duplicates="keep")
        assert dataset.users.ids.to_list() == ["00", "01", "02"]
        assert dataset.items.ids.to_list() == [0, 1, 2, 3]
        assert dataset.interactions.time.tolist() == [1609545600] * 9


@pytest.mark.parametrize("indent", [None, 1])
def test_records_inside_one_object(tmp_path, indent):
    path = tmp_path / "export.json"
    rows = [{"user": n % 3, "item": n % 4} for n in range(9)]
    path.write_text(json.dumps({"count": 9, "data": rows}, indent=indent))
    assert to_frame(read_interactions(path, duplicates="keep"))["user_id", "item_id"].rows() == [
        (n % 3, n % 4) for n in range(9)
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_the_encoding_that_is_named_reads_the_file(tmp_path, encoding):
    path = tmp_path / "log.csv"
    path.write_bytes("user,item\nZoë,a\nmax,b\n".encode(encoding))
    with pytest.raises(DataError, match=rf"the file is UTF-..: pass .*\(--encoding {encoding}\)$"):
        read_interactions(path)
    assert read_interactions(path, encoding=encoding).users.ids.to_list() == ["Zoë", "max"]


def test_comments_above_a_table_are_left_out_and_counted(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("# exported, by a tool\n#\n# user\titem\n7\t1\n8\t2\n")
    dataset = read_interactions(path)
    assert to_frame(dataset)["user_id", "item_id"].rows() == [(7, 1), (8, 2)]
    assert [note.rows for note in dataset.notes if "begin with # or %" in note.text] == [2]
    path.write_text("# a tool\nuser,item\nu1,a\nu2,\n")
    with pytest.raises(DataError, match=r"no id in column 'item' in 1 row: row 2 \(line 4\)"):
        read_interactions(path)
    path.write_text("%%MatrixMarket matrix coordinate integer general\n2 2 2\n1 1 5\n2 2 3\n")
    with pytest.raises(DataError, match=r"a Matrix Market file: read it with scipy.io.mmread"):
        read_interactions(path)


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_objects_in_parquet_are_taken_apart(tmp_path, form):
    events = [[{"sku": "a", "stars": 5}, {"sku": "b", "stars": 3}], [{"sku": "a", "stars": 4}], []]
    frame = pl.DataFrame({"buyer": [{"id": "u1"}, {"id": "u2"}, {"id": "u3"}], "lines": events, "at": [1, 2, 3]})
    path = tmp_path / f"orders.{form}"
    frame.write_parquet(path) if form == "parquet" else frame.write_ipc(path)
    dataset = read_interactions(path, user="buyer.id", item="lines.sku", rating="lines.stars", timestamp="")
    assert dataset.to_frame().rows() == [("u1", "a", 5), ("u1", "b", 3), ("u2", "a", 4)]
    assert "rows with an empty list" in str(dataset.notes) or "empty" in str(dataset.notes)
    assert "not used: at" in dataset.columns


def test_a_damaged_column_name_in_parquet_is_refused(tmp_path):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"usernames": ["a", "b"], "items": ["x", "y"]}).write_parquet(path)
    path.write_bytes(path.read_bytes().replace(b"usernames", b"user\xfdames"))
    with pytest.raises(DataError, match=r"log.parquet: (not a readable|cannot be read)"):
        read_interactions(path, user="user", item="items")
