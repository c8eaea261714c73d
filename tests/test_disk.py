"""Files where there is no space, no right to write, or something else than a file: one line, and nothing is lost.

A small file system of its own needs root; elsewhere these tests are skipped and counted.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from palate import storage
from palate.bundle import Bundle
from palate.cli.saving import save
from palate.data.dataset import Dataset
from palate.errors import BundleError, DataError
from palate.models.popularity import Popularity
from palate.training.checkpoints import write

WRITERS = {
    "csv": lambda path: pl.DataFrame({"a": range(100_000)}).write_csv(path),
    "parquet": lambda path: pl.DataFrame({"a": range(1_000_000)}).write_parquet(path, compression="uncompressed"),
    "safetensors": lambda path: save_file({"a": torch.zeros(1_000_000)}, path),
    "torch": lambda path: write({"a": torch.zeros(1_000_000)}, path),
    "text": lambda path: path.write_text("a" * 1_000_000),
}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 KiB."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system needs root and the right to mount one")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def fitted(checkerboard_train: Dataset) -> Bundle:
    recipe = Popularity()
    return Bundle.of(recipe, recipe.fit(checkerboard_train), checkerboard_train)


@pytest.fixture(scope="module")
def checkerboard_train() -> Dataset:
    from boards import make_checkerboard

    return make_checkerboard().train


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_names_the_path(small: Path, name: str) -> None:
    path = small / "é.file"
    path.write_text("old")
    with (
        pytest.raises(OSError, match=r"No space left on device: .*é\.file") as raised,
        storage.replacing(path) as other,
    ):
        WRITERS[name](other)
    assert raised.value.filename == str(path)
    with pytest.raises(OSError, match="No space left on device"):
        storage.write_content(small, "part", ".file", WRITERS[name])
    assert path.read_text() == "old"
    assert os.listdir(small) == ["é.file"]


def test_a_bundle_that_does_not_fit_is_saved_elsewhere(
    small: Path, fitted: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    (small / "fill").write_bytes(bytes(storage.shutil.disk_usage(small).free - 4096))
    with pytest.raises(BundleError, match="No space left on device") as raised:
        save(fitted, small / "b")
    copy = shlex.split(str(raised.value).rpartition("instead: ")[2])
    (small / "fill").unlink()
    subprocess.run(copy, check=True)
    assert Bundle.load(small / "b").trained_on == fitted.trained_on
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    with pytest.raises(BundleError, match="Read-only file system"):
        fitted.save(small / "b")
    with pytest.raises(DataError, match="Read-only file system"):
        fitted.recommender.recommend_all(small / "lists.parquet")


def test_lists_on_a_full_disk_leave_the_old_file(small: Path, fitted: Bundle) -> None:
    path = small / "lists.parquet"
    path.write_text("old")
    (small / "fill").write_bytes(bytes(storage.shutil.disk_usage(small).free - 8192))
    with pytest.raises(DataError, match="No space left on device"):
        fitted.recommender.recommend_all(path)
    assert path.read_text() == "old"
    (small / "fill").unlink()
    assert fitted.recommender.recommend_all(path) == len(pl.read_parquet(path))
    assert os.listdir(small) == ["lists.parquet"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_in_the_place_of_a_file_is_refused(tmp_path: Path, fitted: Bundle) -> None:
    for part in ("manifest", "weights", "users", "items", "seen"):
        folder = fitted.save(tmp_path / part)
        (path,) = folder.glob(f"{part}*")
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(BundleError, match="is no regular file"):
            Bundle.load(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_stay_and_devices_are_written_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_text("old")
    (tmp_path / "x").symlink_to("real/x")
    with storage.replacing(tmp_path / "x") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "x").is_symlink()
    assert (tmp_path / "real" / "x").read_text() == "new"
    assert os.listdir(tmp_path / "real") == ["x"]
    with storage.replacing(Path("/dev/null")) as temporary:
        temporary.write_text("new")
    assert not Path("/dev/null").is_file()
    with pytest.raises(IsADirectoryError), storage.replacing(tmp_path):
        pass


@pytest.mark.parametrize(
    ("text", "problem"),
    [("[" * 100_000, "too deeply nested"), ('{"a":' * 70 + "1" + "}" * 70, "nested more than 64 deep")],
)
def test_json_is_bounded(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=problem):
        storage.read_manifest(tmp_path / "manifest.json", "palate bundle", 1)
    assert storage.read_json(tmp_path / "manifest.json") is None
