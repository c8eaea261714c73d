"""The formats of the named data sets, against known facts about the real files."""

from __future__ import annotations

import csv
import gzip
import io
import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from palate.datasets.formats import (
    ML_100K_GENRES,
    Archive,
    ncf_items,
    read_anime,
    read_ml_1m,
    read_ml_100k,
    read_ml_csv,
    read_ncf,
)
from palate.errors import DataError
from titles import digest


def real(name: str) -> Path:
    """A real data set, or a skip that says what is missing."""
    folder = os.environ.get("PALATE_DATA")
    if not folder or not (Path(folder) / name).exists():
        pytest.skip(f"{name} is not in PALATE_DATA ({folder})")
    return Path(folder) / name


def copied(archive: Archive, folder: Path, changed: dict[str, bytes] | None = None) -> Path:
    """A folder with the files of an archive, some of them changed."""
    for name, member in archive.members.items():
        if not member.endswith("/"):
            (folder / name).write_bytes((changed or {}).get(name, archive.read(name)))
    return folder


def ids_in_order(dataset, n=3):
    rows = dataset.interactions
    users, items = dataset.users.external(rows.user[:n]), dataset.items.external(rows.item[:n])
    return list(zip(users, items, rows.weight[:n].tolist(), rows.time[:n].tolist(), strict=True))


def feature(dataset, item_id, column):
    return dataset.item_features[column][int(dataset.items.rows([item_id])[0])]


def title(dataset, item_id):
    return dataset.titles[int(dataset.items.rows([item_id])[0])]


def test_ml_100k():
    dataset = read_ml_100k(Archive.open(real("ml-100k.zip")))
    assert (len(dataset), dataset.n_users, dataset.n_items, dataset.explicit) == (100_000, 943, 1_682, True)
    assert ids_in_order(dataset, 2) == [(196, 242, 3.0, 881250949.0), (186, 302, 3.0, 891717742.0)]
    assert digest(title(dataset, 1)) == "51d25ab04bdb"
    assert digest(title(dataset, 543)) == "c9c89958bf95"
    assert feature(dataset, 1, "genres").to_list() == ["Animation", "Children's", "Comedy"]
    assert feature(dataset, 1412, "year") == 1995
    assert feature(dataset, 267, "year") is None
    assert dataset.user_features.row(0, named=True) == {
        "age": 24,
        "gender": "M",
        "occupation": "technician",
        "zip": "85711",
    }
    assert dataset.user_features["zip"].str.len_chars().min() == 5


def test_ml_100k_genres_are_in_the_order_of_its_genre_file():
    lines = Archive.open(real("ml-100k.zip")).read("u.genre").decode().split()
    assert [line.partition("|")[0] for line in lines] == ML_100K_GENRES


def test_ml_1m():
    dataset = read_ml_1m(Archive.open(real("ml-1m.zip")))
    assert (len(dataset), dataset.n_users, dataset.n_items, dataset.explicit) == (1_000_209, 6_040, 3_706, True)
    assert ids_in_order(dataset, 2) == [(1, 1193, 5.0, 978300760.0), (1, 661, 3.0, 978302109.0)]
    assert digest(title(dataset, 260)) == "3cf470c33b10"
    assert digest(title(dataset, 73)) == "c9c89958bf95"
    assert feature(dataset, 1, "genres").to_list() == ["Animation", "Children's", "Comedy"]
    assert dataset.user_features.row(0) == ("F", 1, 10, "48067")
    assert any("177" in str(note) for note in dataset.notes)


def test_ml_latest_small():
    dataset = read_ml_csv(Archive.open(real("ml-latest-small.zip")), "ml-latest-small")
    assert (len(dataset), dataset.n_users, dataset.n_items) == (100_836, 610, 9_724)
    assert ids_in_order(dataset, 1) == [(1, 1, 4.0, 964982703.0)]
    assert feature(dataset, 1, "genres").to_list() == ["Adventure", "Animation", "Children", "Comedy", "Fantasy"]
    without = dataset.item_features.filter(pl.col("genres").list.len() == 0)
    assert 0 < len(without) < 50
    assert digest(title(dataset, 11)) == "f6c9cbd7ffab"


def test_kaggles_layout_of_movielens_gives_the_same_rows(tmp_path):
    archive = Archive.open(real("ml-latest-small.zip"))
    official = read_ml_csv(archive, "official")
    ratings = csv.DictReader(io.StringIO(archive.read("ratings.csv").decode()))
    with (tmp_path / "rating.csv").open("w", newline="") as file:
        table = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        table.writerow(["userId", "movieId", "rating", "timestamp"])
        for row in ratings:
            when = datetime.fromtimestamp(int(row["timestamp"]), UTC).strftime("%Y-%m-%d %H:%M:%S")
            table.writerow([int(row["userId"]), int(row["movieId"]), float(row["rating"]), when])
    (tmp_path / "movie.csv").write_bytes(archive.read("movies.csv"))
    kaggle = read_ml_csv(Archive.open(tmp_path), "kaggle")
    assert kaggle.fingerprint == official.fingerprint
    assert kaggle.titles.equals(official.titles)


def test_anime_drops_and_counts_what_was_not_rated():
    archive = Archive.open(real("anime.zip"))
    dataset = read_anime(archive)
    assert (len(dataset), dataset.n_users, dataset.n_items) == (419_943, 4_714, 7_157)
    assert dataset.interactions.weight.min() == 1
    assert dataset.interactions.time is None
    assert sum(note.rows for note in dataset.notes if "sentinel" in note.text) == 520_609 - 419_943
    assert title(dataset, 9969) == "Gintama'"
    assert feature(dataset, 1, "genres").to_list() == ["Action", "Adventure", "Comedy", "Drama", "Sci-Fi", "Space"]
    assert (feature(dataset, 1, "type"), feature(dataset, 1, "episodes")) == ("TV", 26)
    assert dataset.item_features is not None
    assert dataset.item_features.columns == ["title", "genres", "type", "episodes", "members"]
    assert any("computed from rows that will be held out" in note.text for note in dataset.notes)
    kept = read_anime(archive, keep_unrated=True)
    assert len(kept) == 520_609
    assert (kept.interactions.weight == -1).sum() == 520_609 - 419_943


def test_ncf_files():
    archive = Archive.open(real("ncf-ml-1m"))
    train, test, negatives = read_ncf(archive)
    assert (len(train), len(test), negatives.shape) == (994_169, 6_040, (6_040, 99))
    assert test.row(0) == (0, 25, 5, 978824351)
    first = gzip.decompress(real("ncf-ml-1m/ml-1m.test.negative.gz").read_bytes()).split(b"\n")[0].split(b"\t")
    assert negatives[0].tolist() == [int(item) for item in first[1:]]
    assert (negatives == test["item_id"].to_numpy()[:, None]).any(axis=1).sum() == 156
    items = ncf_items(archive, Archive.open(real("ml-1m.zip")))
    assert items is not None
    assert items.row(0)[:2] == (0, 1193)
    assert digest(items.row(0)[2]) == "b29184573ab0"
    assert items["title"].null_count() == 0


def test_ncf_negatives_of_other_test_rows_are_refused(tmp_path):
    archive = Archive.open(real("ncf-ml-1m"))
    lines = archive.read("ml-1m.test.negative").splitlines(keepends=True)
    lines[5], lines[6] = lines[6], lines[5]
    folder = copied(archive, tmp_path, {"ml-1m.test.negative": b"".join(lines)})
    with pytest.raises(DataError, match=r"line 6 of ml-1m\.test\.negative is for \(6,"):
        read_ncf(Archive.open(folder))


def test_a_folder_a_zip_and_gzipped_files_read_alike(tmp_path):
    archive = Archive.open(real("ml-latest-small.zip"))
    folder = copied(archive, tmp_path)
    (folder / "ratings.csv.gz").write_bytes(gzip.compress((folder / "ratings.csv").read_bytes()))
    (folder / "ratings.csv").unlink()
    assert read_ml_csv(Archive.open(folder), "x").fingerprint == read_ml_csv(archive, "x").fingerprint


def test_rows_keep_the_order_of_the_file():
    archive = Archive.open(real("ml-100k.zip"))
    dataset = read_ml_100k(archive)
    items = np.array([int(line.split(b"\t")[1]) for line in archive.read("u.data").splitlines()])
    assert (dataset.items.external(dataset.interactions.item).to_numpy() == items).all()


def test_damaged_archives_are_named(tmp_path):
    whole = real("ml-100k.zip").read_bytes()
    half = tmp_path / "half.zip"
    half.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"half\.zip: not a readable zip"):
        Archive.open(half)
    rotten = bytearray(whole)
    with zipfile.ZipFile(real("ml-100k.zip")) as file:
        at = file.getinfo("ml-100k/u.data").header_offset + 5_000
    rotten[at : at + 64] = bytes(64)
    (tmp_path / "rotten.zip").write_bytes(rotten)
    with pytest.raises(DataError, match=r"rotten\.zip: ml-100k/u\.data is damaged"):
        read_ml_100k(Archive.open(tmp_path / "rotten.zip"))
    with pytest.raises(DataError, match="No such file"):
        Archive.open(tmp_path / "none.zip")


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"movieId,title,genres\n1,x\n2,y,z,w\n"])
def test_strange_files_are_named_not_a_traceback(tmp_path, content):
    folder = copied(Archive.open(real("ml-latest-small.zip")), tmp_path, {"movies.csv": content})
    with pytest.raises(DataError, match=f"{tmp_path.name}.*not in the expected format"):
        read_ml_csv(Archive.open(folder), "x")
