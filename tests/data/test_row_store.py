"""A prepared log is the log as the plain reader gives it; a killed run resumes, and nothing half made has a name."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from palate.data.prepare import prepare
from palate.data.readers import read_interactions, rows
from palate.data.row_store import MANIFEST, Spill
from palate.errors import BundleError, DataError, StorageError
from palate.storage import lock

RNG = np.random.default_rng(0)
N = 3000
LOG = pl.DataFrame(
    {
        "user": RNG.integers(1, 90, N),
        "item": RNG.integers(1, 60, N),
        "rating": RNG.integers(1, 6, N),
        "time": RNG.integers(1_500_000_000, 1_600_000_000, N),
    }
)
TEXTS = LOG.with_columns(pl.format("ü{}", "user").alias("user"))
# Integers at first, text from the middle on: what was read as numbers becomes text.
LATE = LOG.with_columns(
    item=pl.when(pl.int_range(N) > 2000).then(pl.format("x{}", "item")).otherwise(pl.format("{}", "item"))
)
DATES = LOG.with_columns(time=pl.from_epoch("time").dt.strftime("%Y-%m-%d %H:%M:%S"))
DIRTY = LOG.with_columns(rating=pl.when(pl.int_range(N) % 500 == 7).then(None).otherwise("rating"))
EVENTS = LOG.select(
    "user", "item", "time", event=pl.when(pl.col("rating") > 4).then(pl.lit("buy")).otherwise(pl.lit("view"))
)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(rows, "SHARD", 1)  # each batch is a shard


def written(frame, path):
    for number in range(3):  # several files, so that there are several batches
        part = frame.slice(number * 1000, 1000)
        getattr(part, f"write_{path.suffix[1:]}")(path.with_stem(f"{path.stem}-{number}"))
    return str(path.with_stem(f"{path.stem}-*"))


def assert_same(store, plain):
    assert store.fingerprint == plain.fingerprint
    assert (store.users, store.items) == (plain.users, plain.items)
    for name in ("user", "item", "weight", "time"):
        found, wanted = getattr(store.interactions, name), getattr(plain.interactions, name)
        assert (found is None) == (wanted is None)
        if wanted is not None:
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)
    for name in ("name", "notes", "columns", "feedback"):
        assert getattr(store, name) == getattr(plain, name), name


@pytest.mark.parametrize(
    ("frame", "reading"),
    [
        (LOG, {}),
        (LOG, {"duplicates": "keep"}),
        (LOG.drop("time"), {"weight": "rating", "duplicates": "sum"}),
        (TEXTS, {"min_rating": 2}),
        (LATE, {}),
        (DATES, {}),
        (DIRTY, {"drop_invalid": True, "sentinels": (3,)}),
        (EVENTS, {"event": "event", "event_weights": "view=1,buy=10"}),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_store_is_what_the_plain_reader_gives(frame, reading, suffix, tmp_path):
    log = written(frame, tmp_path / f"log{suffix}")
    made = prepare(log, tmp_path / "store", **reading)
    assert_same(made, read_interactions(log, **reading))
    assert_same(read_interactions(tmp_path / "store"), made)
    assert not list(tmp_path.glob(".*"))


def test_rows_of_a_store_are_mapped_and_not_read(tmp_path):
    made = prepare(written(LOG, tmp_path / "log.csv"), tmp_path / "store")
    assert not made.interactions.user.flags.owndata
    maps = Path("/proc/self/maps").read_text() if sys.platform == "linux" else "rows.arrow"
    assert "rows.arrow" in maps


def test_features_and_titles_are_kept(tmp_path):
    items = LOG.select("item").unique().sort("item").with_columns(title=pl.format("T{}", "item"), price=pl.lit(2.5))
    items.write_csv(tmp_path / "items.csv")
    reading = {"item_features": tmp_path / "items.csv"}
    log = written(LOG, tmp_path / "log.csv")
    made, plain = prepare(log, tmp_path / "store", **reading), read_interactions(log, **reading)
    assert made.item_features.equals(plain.item_features)
    assert made.titles.equals(plain.titles)


KILLED = """
import os, signal, sys
from palate.data import prepare, row_store
from palate.data.readers import rows
rows.SHARD = 1
add, save = row_store.Spill.add, prepare.save_store
def killed(*given):
    found = add(*given)
    if len(given[0]._state["shards"]) == 2 and sys.argv[3] == "read":
        os.kill(os.getpid(), signal.SIGKILL)
    return found
def saved(*given):
    save(*given)
    os.kill(os.getpid(), signal.SIGKILL)
row_store.Spill.add, prepare.save_store = killed, saved
prepare.prepare(sys.argv[1], sys.argv[2])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize(("moment", "left"), [("read", 1), ("save", 0)])
@pytest.mark.parametrize("frame", [TEXTS, LATE], ids=["texts", "late texts"])
def test_a_killed_run_resumes(tmp_path, monkeypatch, moment, left, frame):
    log, out = written(frame, tmp_path / "log.csv"), tmp_path / "store"
    run = subprocess.run(
        [sys.executable, "-c", KILLED, log, str(out), moment], capture_output=True, text=True, check=False
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert not out.exists()
    added, add = [], Spill.add
    monkeypatch.setattr(Spill, "add", lambda *given: added.append(1) or add(*given))
    assert_same(prepare(log, out), read_interactions(log))
    assert len(added) == left


def test_a_changed_log_starts_anew(tmp_path, monkeypatch):
    log, out, stage = written(TEXTS, tmp_path / "log.csv"), tmp_path / "store", tmp_path / ".store.part"
    stage.mkdir()
    subprocess.run([sys.executable, "-c", KILLED, log, str(out), "read"], capture_output=True, check=False)
    assert json.loads((stage / "state.json").read_text())["rows"] == 2000
    TEXTS.head(1000).reverse().write_csv(tmp_path / "log-0.csv")
    assert_same(prepare(log, out), read_interactions(log))


def test_an_older_store_stays_until_the_new_one_is_whole(tmp_path):
    out = tmp_path / "store"
    old = prepare(written(LOG, tmp_path / "log.csv"), out).fingerprint
    (tmp_path / "bad.csv").write_text("user,item,rating\n1,2,3\n2,,3\n")
    with pytest.raises(DataError, match="no id in column 'item'"):
        prepare(tmp_path / "bad.csv", out)
    assert read_interactions(out).fingerprint == old
    assert prepare(written(TEXTS, tmp_path / "other.csv"), out).fingerprint != old


def test_what_cannot_be_done_is_said(tmp_path):
    log, out = written(LOG, tmp_path / "log.csv"), tmp_path / "store"
    with pytest.raises(DataError, match="is not a row store"):
        prepare(log, tmp_path)
    stage = tmp_path / ".store.part"
    stage.mkdir()
    with lock(stage / ".lock"), pytest.raises(StorageError, match="another process"):
        prepare(log, out)
    prepare(log, out)
    with pytest.raises(DataError, match="rating, duplicates cannot change them: prepare"):
        read_interactions(out, rating="rating", duplicates="sum")
    assert read_interactions(out, min_rating=2).feedback.min_rating == 2
    with (out / "rows.arrow").open("r+b") as file:
        file.seek(2000)
        file.write(b"\xff")
    with pytest.raises(BundleError, match="was changed after it was saved"):
        read_interactions(out)
    shutil.copytree(out, tmp_path / "cut")
    os.truncate(tmp_path / "cut" / "rows.arrow", 100)
    with pytest.raises(BundleError, match="100 bytes instead of"):
        read_interactions(tmp_path / "cut")
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest["statistics"]["rows_per_user"]["highest"] > 10
