import bz2
import gzip
import lzma
import os
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from palate.data.frame import to_frame
from palate.data.readers import read_interactions, read_table
from palate.errors import DataError
from titles import digest

HEADER = b"user,item,rating\n"
# Ids of tests hold these bytes and must be the same in every process: no time in gzip's header.
GOOD = HEADER + b"1,2,5\n2,3,4\n"
MANY = HEADER + b"%d,2,5\n" * 50_000 % (*range(50_000),)


@pytest.fixture
def write(tmp_path):
    def _write(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return _write


def member(archive, ending):
    folder = os.environ.get("PALATE_DATA")
    if not folder or not (Path(folder) / archive).exists():
        pytest.skip(f"PALATE_DATA has no {archive}")
    with zipfile.ZipFile(Path(folder) / archive) as file:
        return file.read(next(name for name in file.namelist() if name.endswith(ending)))


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("plain.csv", GOOD, {}),
        ("bom.csv", b"\xef\xbb\xbf" + GOOD, {}),
        ("windows.csv", GOOD.replace(b"\n", b"\r\n") + b"\r\n", {}),
        ("blank_end.csv", GOOD + b"\n\n", {}),
        ("no_last_newline.csv", GOOD[:-1], {}),
        ("tabs.tsv", GOOD.replace(b",", b"\t"), {}),
        ("semicolons.csv", GOOD.replace(b",", b";"), {}),
        ("bars.txt", GOOD.replace(b",", b"|"), {}),
        ("colons.dat", GOOD.replace(b",", b"::"), {}),
        ("blanks.txt", GOOD.replace(b",", b"  ").replace(b"\n", b" \r\n "), {}),
        ("tab.txt", GOOD.replace(b",", b"\t"), {"separator": "tab"}),
        ("excel.csv", b"sep=;\n" + GOOD.replace(b",", b";"), {}),
        ("old_mac.csv", GOOD.replace(b"\n", b"\r"), {}),
        ("odd.txt", GOOD.replace(b",", b"^"), {"separator": "^"}),
        ("packed.csv.gz", gzip.compress(GOOD, mtime=0), {}),
        ("packed.csv", gzip.compress(GOOD, mtime=0), {}),
        ("not_packed.csv.gz", GOOD, {}),
        ("packed.bz2", bz2.compress(GOOD), {}),
        ("packed.xz", lzma.compress(GOOD), {}),
        ("packed.zst", pa.compress(GOOD, "zstd", asbytes=True), {}),
        ("utf16.csv", GOOD.decode().encode("utf-16"), {"encoding": "utf-16"}),
        ("bare.csv", GOOD[len(HEADER) :], {"header": False, "names": ["user", "item", "rating"]}),
    ],
)
def test_shapes_of_text(write, name, content, options):
    path = write(name, content)
    assert read_table(path, **options).to_dict(as_series=False) == {"user": [1, 2], "item": [2, 3], "rating": [5, 4]}
    dataset = read_interactions(path, **options)
    assert to_frame(dataset).rows() == [(1, 2, 5.0), (2, 3, 4.0)]
    assert [str(note) for note in dataset.notes] == ["every row is positive (rating at least 4): 2 rows"]


def test_parquet_by_content_not_name(tmp_path):
    frame = pl.DataFrame({"user": ["a", "b"], "item": [1, 2], "note": [None, "x"]})
    frame.write_parquet(tmp_path / "table.bin")
    assert read_table(tmp_path / "table.bin").equals(frame)
    assert read_interactions(tmp_path / "table.bin").users.ids.to_list() == ["a", "b"]


def test_columns_are_typed_whole(write):
    path = write("t.csv", b'a,b,c,d,e\n1,007,1.5,x,\n2,8,2,"y, ""z""\nw",5\n')
    table = read_table(path)
    assert table.dtypes == [pl.Int64, pl.String, pl.Float64, pl.String, pl.Int64]
    assert table.row(1) == (2, "8", 2.0, 'y, "z"\nw', 5)
    assert table["b"][0] == "007"
    assert table["e"][0] is None


def test_latin_1_is_asked_for(write):
    path = write("films.csv", "user,item\nZoë,Amélie\nb,x\n".encode("latin-1"))
    with pytest.raises(DataError, match=r'films.csv: line 2 is not UTF-8.*encoding="latin-1" \(--encoding latin-1\)'):
        read_interactions(path)
    assert read_interactions(path, encoding="latin-1").users.ids.to_list() == ["Zoë", "b"]
    path = write("films.csv", "user,item\nZoë,“Amélie”\nb,x\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"--encoding cp1252"):
        read_interactions(path)


def test_movielens_100k_as_it_is(write):
    ratings = write("u.data", member("ml-100k.zip", "/u.data"))
    items = member("ml-100k.zip", "/u.item")
    with pytest.raises(DataError, match=r"looks like a row.*pass --columns user,item,rating,time \(names=\["):
        read_interactions(ratings)
    dataset = read_interactions(ratings, names=["user_id", "item_id", "rating", "timestamp"])
    assert (len(dataset), dataset.n_users, dataset.n_items, dataset.explicit) == (100_000, 943, 1_682, True)
    films = read_table(
        write("u.item", items), header=False, encoding="latin-1", names=["id", "title", *(f"c{i}" for i in range(22))]
    )
    assert films.shape == (1682, 24)
    assert digest(films["title"][0]) == "51d25ab04bdb"


def test_movielens_csv_with_titles(write):
    ratings = write("ratings.csv", member("ml-latest-small.zip", "ratings.csv"))
    movies = write("movies.csv", member("ml-latest-small.zip", "movies.csv"))
    dataset = read_interactions(ratings, item_features=movies, name="small")
    assert (dataset.name, len(dataset), dataset.n_users, dataset.n_items) == ("small", 100_836, 610, 9_724)
    assert digest(dataset.titles[int(dataset.items.rows([1])[0])]) == "51d25ab04bdb"
    assert dataset.item_features.columns == ["title", "genres"]
    assert {note.text: note.rows for note in dataset.notes} == {
        "item features of ids without interactions, left out": 18
    }


def test_sentinel_ratings_of_anime(write):
    path = write("rating.csv", member("anime.zip", "rating.csv"))
    watched = read_interactions(path, duplicates="keep")
    assert len(watched) == 520_609
    assert [n.rows for n in watched.notes if "rating -1 looks like a sentinel" in n.text] == [520_609 - 419_943]
    rated = read_interactions(path, sentinels=(-1,), duplicates="keep")
    assert (len(rated), rated.n_users, rated.n_items) == (419_943, 4_714, 7_157)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.csv", HEADER + b"1,2,5\n2,3,abc\n", r"bad.csv: .*'rating' in 1 row: row 2 \(line 3\): 'abc'"),
        ("short.csv", HEADER + b"1,2,5\n2,3\n", r"no rating in column 'rating' in 1 row: row 2 \(line 3\)"),
        ("quoted.csv", HEADER + b'"1\n",2,x\n2,3,4\n', r"row 1 \(line 2\): 'x'"),
        ("long.csv", HEADER + b"1,2,5\n2,3,4,5\n", r"long.csv: line 3 has 4 fields instead of 3 \('2,3,4,5'\)"),
        ("open.csv", HEADER + b'"1,2,5,6\n2,3,4\n', r"open.csv: line 2 .*is a quotation mark left open"),
        ("late.csv", HEADER + b"1,2,5\n" * 20_000 + b"1,\xe9,3\n", r"late.csv: line 20002 is not UTF-8"),
        ("empty.csv", b"", r"empty.csv: the file is empty"),
        ("blank.csv", b"\n \n", r"blank.csv: the file is empty"),
        ("header.csv", HEADER, r"header.csv: no rows"),
        ("twice.csv", b"user,user,item\n1,2,3\n", r"column 'user' occurs more than once"),
        ("other.csv", b"a,b\nx,y\n", r"other.csv: no column looks like the user: the columns are 'a', 'b'"),
        ("junk.csv", bytes(range(256)) * 9, r"junk.csv: not a text file"),
        ("utf16.csv", GOOD.decode().encode("utf-16"), r"UTF-16: pass encoding="),
        ("junk.parquet", b"PAR1" + bytes(99), r"junk.parquet: not a readable Parquet file"),
        ("cut.csv.gz", gzip.compress(MANY, mtime=0)[:-999], r"is the file whole"),
        ("wide.csv", b"x" * 9_999 + b",item\n1,2\n", r"looks like the user: the columns are 'x{56}\.\.\., 'item'"),
    ],
)
def test_broken_files_give_one_line(write, name, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read_interactions(write(name, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "klingon"}, "encoding='klingon' is unknown"),
        ({"separator": "a"}, "separator='a': must be a mark such as"),
        ({"separator": "::"}, "no column looks like the user: the columns are 'user,item,rating'"),
        ({"names": ["user"]}, "1 names for 3 columns"),
        ({"user": "usr"}, "no column 'usr' for the user, did you mean 'user'"),
    ],
)
def test_options_that_make_no_sense(write, options, message):
    with pytest.raises(DataError, match=message):
        read_interactions(write("good.csv", GOOD), **options)


def test_no_file(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.csv does not exist"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="the folder has no files"):
        read_table(tmp_path)


def test_flawed_rows_can_be_dropped(write):
    path = write("bad.csv", HEADER + b"1,2,5\n,3,4\n2,3,abc\n2,9,1\n")
    dataset = read_interactions(path, drop_invalid=True)
    assert to_frame(dataset).rows() == [(1, 2, 5.0), (2, 9, 1.0)]
    assert sorted(note.rows for note in dataset.notes) == [1, 1]


def test_a_million_rows(tmp_path):
    rng = np.random.default_rng(0)
    rows = 1_000_000
    pl.DataFrame(
        {
            "user_id": pl.Series(rng.integers(6_000, size=rows)).cast(pl.String).str.replace("^", "u"),
            "item_id": pl.Series(rng.integers(4_000, size=rows)).cast(pl.String).str.replace("^", "i"),
            "rating": rng.integers(1, 6, size=rows),
            "timestamp": rng.integers(1_000_000_000, 1_600_000_000, size=rows),
        }
    ).write_csv(tmp_path / "large.csv")
    dataset = read_interactions(tmp_path / "large.csv")
    assert (dataset.n_users, dataset.n_items) == (6_000, 4_000)
    assert len(dataset) + sum(note.rows for note in dataset.notes) == rows


@pytest.mark.parametrize(
    ("ids", "odd"),
    [
        (["2.10", "2.1", "3.0"], "2.100"),
        (["1e5", "100000x", "7e1"], "100000"),
        (["007", "7", "08"], "0007"),
        ([str(2**64 + 1), str(2**64 + 2), str(2**80)], str(2**64)),
        (["7", "8", "9"], "007"),
    ],
)
def test_ids_of_tables_are_matched_as_they_are_written(tmp_path, ids, odd):
    log, people, things = (tmp_path / name for name in ("log.csv", "people.csv", "things.csv"))
    log.write_text("customer_id,sku\n" + "".join(f"{a},{b}\n" for a in ids for b in ids))
    rows = "".join(f"{place},{one}\n" for place, one in enumerate([*ids, odd]))
    people.write_text("age,Customer ID\n" + rows)
    things.write_text("price,sku\n" + rows)
    data = read_interactions(log, user_features=people, item_features=things)
    for features, known in ((data.user_features, data.users), (data.item_features, data.items)):
        found = dict(zip(known.ids.cast(pl.String), features.to_series(), strict=True))
        assert found == {one: place for place, one in enumerate(ids)}
    assert sum("without interactions, left out" in str(note) for note in data.notes) == 2


def test_a_damaged_arrow_file_is_refused(tmp_path):
    texts = pa.array([f"a long identifier of user {row}" for row in range(20)], pa.string_view())
    table = pa.table({"user": texts, "item": pa.array(range(20))})
    path = tmp_path / "log.arrow"
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table)
    whole = path.read_bytes()
    assert read_table(path)["user"].to_list() == texts.to_pylist()
    # The place of a text in its buffer follows its length, its first four letters and the number of the buffer.
    at = whole.index(b"a lo\0\0\0\0") + 8
    path.write_bytes(whole[:at] + b"\0\0\0\x40" + whole[at + 4 :])
    with pytest.raises(DataError, match=r"is it whole\?"):
        read_table(path)


def test_a_column_without_a_name_is_read(tmp_path):
    pq.write_table(pa.table({"": [1, 2], "user": ["a", "b"], "item": ["x", "y"]}), tmp_path / "log.parquet")
    assert read_table(tmp_path / "log.parquet")[""].to_list() == [1, 2]
    assert "not used: ''" in read_interactions(tmp_path / "log.parquet").columns


def test_a_column_name_with_nul_is_refused_with_an_encoding(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"c\0ustomer,item\na,x\nb,y\n")
    with pytest.raises(DataError, match=r"NUL character.*encoding='utf-16'"):
        read_interactions(tmp_path / "log.csv", encoding="cp1252")
