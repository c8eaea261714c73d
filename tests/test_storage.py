"""Durable files: whole or not at all, with the umask's mode, under a lock that dies with its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from palate import storage
from palate.errors import BundleError, StorageError

HOLD = "import sys, time; from pathlib import Path; from palate import storage\n"
HOLD += "with storage.lock(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(600)"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.txt"
    with storage.replacing(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
    with pytest.raises(ValueError, match="binary"), storage.replacing(path) as temporary:
        temporary.open("xb", encoding="utf-8")
    with pytest.raises(FileNotFoundError), storage.replacing(path):
        pass  # nothing was written
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["x.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_is_that_of_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with storage.replacing(tmp_path / "x") as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == mode


def test_a_lock_excludes_others_and_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match="another process"), storage.lock(path, wait=False):
            pass
        other.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    deadline = time.monotonic() + 60
    while True:
        try:
            with storage.lock(path, wait=False):
                break
        except StorageError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_manifest_notices_changes_kinds_and_versions(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    storage.write_manifest(path, "palate split", 2, {"files": {}, "name": "é"})
    assert storage.read_manifest(path, "palate split", 2) == {
        "kind": "palate split",
        "version": 2,
        "files": {},
        "name": "é",
    }
    with pytest.raises(BundleError, match="upgrade Palate"):
        storage.read_manifest(path, "palate split", 1)
    with pytest.raises(BundleError, match="not the manifest of a palate bundle"):
        storage.read_manifest(path, "palate bundle", 2)
    path.write_text(path.read_text().replace("é", "e"))
    with pytest.raises(BundleError, match="was changed"):
        storage.read_manifest(path, "palate split", 2)
    path.write_text("[")
    with pytest.raises(BundleError, match="cannot be read"):
        storage.read_manifest(path, "palate split", 2)
    with pytest.raises(BundleError, match="is missing"):
        storage.read_manifest(tmp_path / "none.json", "palate split", 2)


def test_a_file_is_named_by_its_content(tmp_path: Path) -> None:
    record = storage.write_content(tmp_path, "part", ".txt", lambda path: path.write_text("a"))
    assert record == storage.file_record(tmp_path / record["name"])
    assert record["name"] == f"part-{record['sha256'][:16]}.txt"
    assert storage.write_content(tmp_path, "part", ".txt", lambda path: path.write_text("a")) == record
    assert storage.write_content(tmp_path, "part", ".txt", lambda path: path.write_text("b")) != record

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        storage.write_content(tmp_path, "part", ".txt", fail)
    assert len(os.listdir(tmp_path)) == 2


def test_a_file_of_a_manifest_is_verified(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"12345")
    record = storage.file_record(tmp_path / "a.bin")
    assert storage.verify_file(tmp_path, record) == tmp_path / "a.bin"
    for name in ("../a.bin", "/etc/passwd", "..", "", "b\\a.bin"):
        with pytest.raises(BundleError, match="outside itself"):
            storage.verify_file(tmp_path, {**record, "name": name})
    (tmp_path / "a.bin").write_bytes(b"12346")
    with pytest.raises(BundleError, match="checksum differs"):
        storage.verify_file(tmp_path, record)
    (tmp_path / "a.bin").write_bytes(b"1234")
    with pytest.raises(BundleError, match="4 bytes instead of 5"):
        storage.verify_file(tmp_path, record)
    (tmp_path / "a.bin").unlink()
    with pytest.raises(BundleError, match="missing"):
        storage.verify_file(tmp_path, record)
