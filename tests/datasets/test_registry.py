"""Named data sets: the order of their sources, what is trusted, what is refused, and what the user is told."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from fileserver import FileServer

from palate.datasets.download import pip_download
from palate.datasets.registry import REGISTRY, load, load_split, names, suggest
from palate.datasets.sources import Remote, find, locate
from palate.errors import DataError, SourceError
from palate.progress import ProgressEvent
from titles import digest

HOST_IS_DOWN = "http://127.0.0.1:9/"


@pytest.fixture
def data() -> Path:
    folder = os.environ.get("PALATE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"PALATE_DATA ({folder}) is not a folder")
    return Path(folder).absolute()


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    """An empty cache, and no PALATE_DATA."""
    monkeypatch.delenv("PALATE_DATA", raising=False)
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def recbole_wheel(tmp_path_factory) -> Path:
    try:
        return pip_download("recbole==1.2.1", tmp_path_factory.mktemp("wheel"))
    except SourceError as error:
        pytest.skip(str(error))


def only_pip_source(monkeypatch, folder: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def tampered(wheel: Path, folder: Path, member: str, old: bytes, new: bytes) -> None:
    """A copy of a wheel in ``folder`` whose member has the first ``old`` replaced."""
    folder.mkdir()
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(folder / wheel.name, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            content = source.read(info)
            if info.filename.endswith(member):
                assert old in content
                content = content.replace(old, new, 1)
            target.writestr(info, content)


def remote(server: FileServer, path: str) -> Remote:
    body = server.files[path]
    return Remote(server.url(path), len(body), "md5:" + hashlib.md5(body).hexdigest())


def test_every_entry_has_what_must_be_shown():
    assert names() == ["ml-100k", "ml-1m", "ml-20m", "ml-25m", "ml-latest-small", "anime", "ncf-ml-1m"]
    for entry in REGISTRY.values():
        assert entry.description
        assert entry.license
        assert entry.citation
        assert entry.remotes or entry.by_hand
        assert all(remote.url.startswith("https://") for remote in entry.remotes)


@pytest.mark.parametrize(("name", "meant"), [("movielens100k", "ml-100k"), ("ML_1M", "ml-1m"), ("animes", "anime")])
def test_misspelt_names_are_recognized(name, meant):
    assert suggest(name) == meant
    with pytest.raises(DataError, match=f"{name}.*did you mean '{meant}'"):
        load(name)


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m", "ml-latest-small", "ncf-ml-1m"])
def test_counts_are_those_of_the_entry(name):
    entry = REGISTRY[name]
    try:
        dataset = load(name)
    except SourceError as error:
        pytest.skip(str(error))
    assert (len(dataset), dataset.n_users, dataset.n_items) == (entry.rows, entry.users, entry.items)
    assert dataset.titles is not None


def test_a_repacked_copy_is_accepted_and_named(data):
    notes = [note.text for note in load("ml-100k").notes]
    assert any("repacked copy" in note and "rows equal the official ones" in note for note in notes)
    assert any("repacked copy" in note for note in [note.text for note in load("ml-1m").notes])


def test_a_copy_whose_rows_were_changed_is_named(data, cache, monkeypatch, tmp_path):
    (tmp_path / "mine").mkdir()
    with (
        zipfile.ZipFile(data / "ml-100k.zip") as source,
        zipfile.ZipFile(tmp_path / "mine" / "ml-100k.zip", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in ("u.data", "u.item", "u.user"):
            content = source.read(f"ml-100k/{name}")
            target.writestr(name, content.replace(b"196\t242\t3", b"196\t242\t4", 1) if name == "u.data" else content)
    monkeypatch.setenv("PALATE_DATA", str(tmp_path / "mine"))
    assert any("rows DIFFER" in note.text for note in load("ml-100k").notes)


def test_palate_data_wins_over_the_cache_and_may_hold_a_folder(data, cache, monkeypatch, tmp_path):
    mine = tmp_path / "mine"
    with zipfile.ZipFile(data / "ml-latest-small.zip") as file:
        file.extractall(mine)
    cache.mkdir()
    (cache / "ml-latest-small.zip").write_bytes((data / "ml-latest-small.zip").read_bytes())
    assert find(REGISTRY["ml-latest-small"]).source == "cache"
    monkeypatch.setenv("PALATE_DATA", str(mine))
    found = locate(REGISTRY["ml-latest-small"])
    assert (found.source, found.path) == ("PALATE_DATA", mine / "ml-latest-small")
    assert "unpacked" in found.notes[0]
    assert len(load("ml-latest-small")) == 100_836


def test_a_damaged_local_copy_is_skipped_with_a_message(data, cache, monkeypatch, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "ml-1m.zip").write_bytes((data / "ml-1m.zip").read_bytes()[:100_000])
    monkeypatch.setenv("PALATE_DATA", str(mine))
    events: list[ProgressEvent] = []
    entry = replace(REGISTRY["ml-1m"], remotes=(Remote(HOST_IS_DOWN + "ml-1m.zip"),))
    with pytest.raises(SourceError, match=r"not a readable zip.*refused.*by hand.*as ml-1m\.zip"):
        locate(entry, progress=events.append)
    assert "skipped" in events[0].message


def test_an_official_archive_is_downloaded_once_and_announced(data, cache):
    with FileServer({"ml-1m.zip": (data / "ml-1m.zip").read_bytes()}) as server:
        entry = replace(REGISTRY["ml-1m"], remotes=(remote(server, "ml-1m.zip"),))
        events: list[ProgressEvent] = []
        dataset = load(entry, progress=events.append)
        assert len(dataset) == 1_000_209
        assert "5.9 MB; license: research use" in events[0].message
        assert "Harper" in events[0].message
        assert locate(entry).source == "cache"
        assert len(server.asked) == 1


def test_wrong_bytes_from_the_host_never_reach_the_cache(data, cache):
    with FileServer({"ml-1m.zip": (data / "ml-1m.zip").read_bytes()[:-1] + b"!"}) as server:
        right = hashlib.md5((data / "ml-1m.zip").read_bytes()).hexdigest()
        entry = replace(REGISTRY["ml-1m"], remotes=(Remote(server.url("ml-1m.zip"), None, f"md5:{right}"),))
        with pytest.raises(SourceError, match=f"expected md5:{right}"):
            load(entry)
    assert find(entry) is None


def test_the_official_split_is_downloaded_file_by_file(data, cache):
    parts = ("train.rating", "test.rating", "test.negative")
    files = {}
    for part in parts:
        plain = data / "ncf-ml-1m" / f"ml-1m.{part}"
        zipped = plain.with_name(plain.name + ".gz")
        files[plain.name] = plain.read_bytes() if plain.exists() else gzip.decompress(zipped.read_bytes())
    entry = REGISTRY["ncf-ml-1m"]
    with FileServer(files) as server:
        official = {one.url.rpartition("/")[2]: one for one in entry.remotes}
        remotes = tuple(replace(one, url=server.url(name)) for name, one in official.items())
        split = load_split(replace(entry, remotes=remotes))
    assert (len(split.train), len(split.test)) == (994_169, 6_040)
    assert split.candidates.negatives.shape == (6_040, 99)
    assert split.train.titles is None  # the official files have no titles, and no ml-1m is here
    assert find(entry).source == "cache"


def test_the_official_split_has_titles_where_ml_1m_is_here(data):
    split = load_split("ncf-ml-1m")
    row = int(split.train.items.rows([0])[0])
    assert split.train.titles[row] == split.test.titles[row]
    assert digest(split.train.titles[row]) == "b29184573ab0"
    whole = load("ncf-ml-1m")
    assert len(whole) == len(split.train) + len(split.test)
    found, checked = whole.fingerprint.overlap(split.test.fingerprint)
    assert found == checked > 0
    with pytest.raises(DataError, match="comes without a split"):
        load_split("ml-1m")


def test_a_silent_host_is_given_up_and_the_package_is_next(cache, recbole_wheel, monkeypatch):
    only_pip_source(monkeypatch, recbole_wheel.parent)
    events: list[ProgressEvent] = []
    with FileServer({}) as server:
        server.stall_all = True
        entry = replace(REGISTRY["ml-100k"], remotes=(Remote(server.url("ml-100k.zip")),))
        located = locate(entry, progress=events.append, timeout=0.3)
    assert any("no answer within 0.3 s; trying the next source" in event.message for event in events)
    assert located.source == "converted from recbole==1.2.1"
    dataset = load(entry)
    assert dataset.fingerprint.digest == entry.digest
    assert digest(dataset.titles[0]) == "51d25ab04bdb"
    assert digest(dataset.titles[542]) == "c9c89958bf95"
    assert any("copy from recbole" in note.text for note in dataset.notes)
    only_pip_source(monkeypatch, cache)
    assert locate(entry).converted


def test_the_package_copy_says_what_the_official_files_say(data, cache, recbole_wheel, monkeypatch):
    monkeypatch.setenv("PALATE_DATA", str(data))
    official = load("ml-100k")
    monkeypatch.delenv("PALATE_DATA")
    only_pip_source(monkeypatch, recbole_wheel.parent)
    copy = load(replace(REGISTRY["ml-100k"], remotes=()))
    assert copy.fingerprint == official.fingerprint
    assert copy.titles.equals(official.titles)
    assert copy.user_features.equals(official.user_features)
    assert copy.item_features.drop("release_date").equals(official.item_features.drop("release_date"))


def test_a_tampered_package_copy_is_refused(cache, recbole_wheel, monkeypatch, tmp_path):
    tampered(recbole_wheel, tmp_path / "bad", "ml-100k.inter", b"196\t242\t3", b"196\t242\t4")
    only_pip_source(monkeypatch, tmp_path / "bad")
    entry = replace(REGISTRY["ml-100k"], remotes=())
    with pytest.raises(SourceError, match=r"recbole==1\.2\.1: refused, its rows have fingerprint"):
        locate(entry)
    assert find(entry) is None
    assert not list(cache.glob("*.zip"))


def test_a_package_copy_with_other_columns_is_refused(cache, recbole_wheel, monkeypatch, tmp_path):
    tampered(recbole_wheel, tmp_path / "bad", "ml-100k.item", b"movie_title", b"heading")
    only_pip_source(monkeypatch, tmp_path / "bad")
    with pytest.raises(SourceError, match="not in the expected format"):
        locate(replace(REGISTRY["ml-100k"], remotes=()))


def test_anime_says_which_file_to_put_where(cache, monkeypatch, tmp_path):
    with pytest.raises(SourceError, match=r"kaggle.*anime\.zip, or rating\.csv and anime\.csv in a folder anime"):
        load("anime")
    monkeypatch.setenv("PALATE_DATA", str(tmp_path))
    with pytest.raises(SourceError, match=f"into the folder {tmp_path}"):
        load("anime")


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from palate.cli.data import app; app()"
    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=env, check=False
    )


def test_the_list_shows_where_each_set_is(data, tmp_path):
    done = command("list", "--json", PALATE_DATA=str(data), PALATE_CACHE=str(tmp_path))
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert list(rows) == names()
    assert rows["ml-100k"]["where"] == "PALATE_DATA"
    assert rows["ml-25m"]["where"] == "not here"
    assert rows["ml-1m"]["bytes"] == 5_917_549


def test_info_measures_the_rows(data, tmp_path):
    done = command("info", "ml-100k", "--json", PALATE_DATA=str(data), PALATE_CACHE=str(tmp_path))
    facts = json.loads(done.stdout)
    assert (facts["rows"], facts["users"], facts["items"]) == (100_000, 943, 1_682)
    assert facts["ratings"] == [1.0, 5.0]
    assert facts["times"] == ["1997-09-20T03:05:10+00:00", "1998-04-22T23:10:38+00:00"]
    assert facts["fingerprint"] == REGISTRY["ml-100k"].digest


def test_fetch_names_the_copy(data, tmp_path):
    shown = command("fetch", "ml-100k", "ml-1m", PALATE_DATA=str(data), PALATE_CACHE=str(tmp_path)).stdout
    assert shown.count("repacked copy") == 2
    assert str(data / "ml-1m.zip") in shown
