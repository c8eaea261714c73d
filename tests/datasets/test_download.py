"""Downloads: whole or not at all, taken up again, checked; with a real server and real killed processes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from fileserver import FileServer
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.datasets.download import cache_folder, checksum_of, fetch, pip_download
from palate.errors import SourceError
from palate.progress import ProgressEvent
from palate.storage import lock

CONTENT = os.urandom(3 << 20)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
FETCH = """
import sys
from pathlib import Path
from palate.datasets.download import fetch
fetch(sys.argv[1], Path(sys.argv[2]), checksum=sys.argv[3], progress=print)
"""


@pytest.fixture
def server():
    with FileServer({"a.bin": CONTENT}) as running:
        yield running


def start(server: FileServer, to: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-u", "-c", FETCH, server.url("a.bin"), str(to), MD5], stdout=subprocess.PIPE
    )


def said(events: list[ProgressEvent]) -> str:
    return " ".join(event.message for event in events)


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_file_arrives_whole_and_is_not_fetched_twice(server, tmp_path):
    to = tmp_path / "deep" / "a.bin"
    events: list[ProgressEvent] = []
    assert fetch(server.url("a.bin"), to, checksum=MD5, size=len(CONTENT), progress=events.append) == to
    assert to.read_bytes() == CONTENT
    fetch(server.url("a.bin"), to, checksum=MD5)
    assert len(server.asked) == 1
    assert (events[-1].done, events[-1].total, events[-1].unit) == (len(CONTENT), len(CONTENT), "byte")
    assert leftovers(to.parent) == {"a.bin"}


def test_a_killed_download_leaves_no_file_and_is_resumed(server, tmp_path):
    to, part = tmp_path / "a.bin", tmp_path / "a.bin.part"
    server.pause = 0.05
    process = start(server, to)
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > 500_000):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = part.stat().st_size
    assert not to.exists()
    assert 0 < kept < len(CONTENT)

    server.pause = 0.0
    events: list[ProgressEvent] = []
    fetch(server.url("a.bin"), to, checksum=MD5, progress=events.append)
    assert to.read_bytes() == CONTENT
    assert server.asked[-1] == ("a.bin", f"bytes={kept}-")
    assert f"{kept:,}" in said(events)
    assert leftovers(tmp_path) == {"a.bin"}


def test_a_part_without_its_origin_is_never_trusted(server, tmp_path):
    to = tmp_path / "a.bin"
    (tmp_path / "a.bin.part").write_bytes(b"half of something else")
    fetch(server.url("a.bin"), to)
    assert to.read_bytes() == CONTENT


def test_two_processes_asking_for_the_same_file_share_one_download(server, tmp_path):
    server.pause = 0.01
    both = [start(server, tmp_path / "a.bin") for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(server.asked) == 1, outputs


def test_a_second_process_says_that_it_waits_and_then_downloads(server, tmp_path):
    with lock(tmp_path / "a.bin.lock"):
        process = start(server, tmp_path / "a.bin")
        assert process.stdout is not None
        assert b"another process downloads it, waiting" in process.stdout.readline()
        assert server.asked == []
    process.communicate(timeout=60)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("careless", [False, True])
def test_a_file_that_changed_on_the_server_starts_again(server, tmp_path, careless):
    server.cuts = [1_000_000, 0]
    with pytest.raises(SourceError, match="1,000,000 bytes are kept"):
        fetch(server.url("a.bin"), tmp_path / "a.bin")
    changed = os.urandom(2 << 20)
    server.files["a.bin"], server.etag, server.careless = changed, '"2"', careless
    events: list[ProgressEvent] = []
    fetch(server.url("a.bin"), tmp_path / "a.bin", progress=events.append)
    assert (tmp_path / "a.bin").read_bytes() == changed
    assert "changed" in said(events)


@pytest.mark.parametrize(("ranges", "etag"), [(False, '"1"'), (True, None), (True, 'W/"1"')])
def test_a_server_that_cannot_resume_starts_again(server, tmp_path, ranges, etag):
    server.ranges, server.etag, server.cuts = ranges, etag, [1_000_000]
    events: list[ProgressEvent] = []
    fetch(server.url("a.bin"), tmp_path / "a.bin", checksum=MD5, progress=events.append)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_server_that_does_not_answer_is_given_up(server, tmp_path):
    server.stall_all = True
    with pytest.raises(SourceError, match=r"no answer within 0\.3 s"):
        fetch(server.url("a.bin"), tmp_path / "a.bin", timeout=0.3)
    assert leftovers(tmp_path) == set()


def test_a_download_that_stalls_on_the_way_goes_on(server, tmp_path):
    server.stalls = [1_000_000]
    events: list[ProgressEvent] = []
    fetch(server.url("a.bin"), tmp_path / "a.bin", checksum=MD5, timeout=0.3, progress=events.append)
    assert server.asked[-1] == ("a.bin", "bytes=1000000-")
    assert "no answer within 0.3 s" in said(events)


def test_a_wrong_checksum_deletes_what_came_and_names_both(server, tmp_path):
    wrong = "md5:" + "0" * 32
    with pytest.raises(SourceError, match=f"{MD5}, expected {wrong}"):
        fetch(server.url("a.bin"), tmp_path / "a.bin", checksum=wrong)
    assert leftovers(tmp_path) == set()


def test_a_wrong_size_is_told_before_the_download(server, tmp_path):
    with pytest.raises(SourceError, match=r"offers 3,145,728 bytes, expected 7"):
        fetch(server.url("a.bin"), tmp_path / "a.bin", size=7)
    assert leftovers(tmp_path) == set()


def test_a_missing_file_and_a_closed_port_are_told(server, tmp_path):
    with pytest.raises(SourceError, match="answered 404"):
        fetch(server.url("b.bin"), tmp_path / "b.bin")
    with pytest.raises(SourceError, match="refused"):
        fetch("http://127.0.0.1:9/a.bin", tmp_path / "c.bin")


def test_a_folder_that_cannot_be_made_is_told(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="PALATE_CACHE"):
        fetch(server.url("a.bin"), tmp_path / "file" / "a.bin")


@given(
    content=st.binary(min_size=1, max_size=400),
    cuts=st.lists(st.integers(0, 400), max_size=8),
    ranges=st.booleans(),
)
@settings(deadline=None, max_examples=25)
def test_however_often_it_is_cut_the_bytes_are_right(content, cuts, ranges):
    with FileServer({"a": content}) as server, tempfile.TemporaryDirectory() as folder:
        server.cuts, server.ranges = list(cuts), ranges
        to = Path(folder) / "a"
        for _ in range(len(cuts) + 1):
            try:
                fetch(server.url("a"), to)
                break
            except SourceError:
                assert not to.exists()
        assert to.read_bytes() == content


def test_checksums_are_those_of_hashlib(tmp_path):
    (tmp_path / "x").write_bytes(b"palate")
    assert checksum_of(tmp_path / "x") == "md5:" + hashlib.md5(b"palate").hexdigest()
    assert checksum_of(tmp_path / "x", "sha256:") == "sha256:" + hashlib.sha256(b"palate").hexdigest()


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PALATE_CACHE", raising=False)
    if sys.platform != "win32":
        assert cache_folder() == tmp_path / "palate"
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_pip_that_finds_nothing_is_a_source_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(SourceError, match=r"pip could not get recbole==1\.2\.1"):
        pip_download("recbole==1.2.1", tmp_path)


def test_downloads_work_without_the_locks_of_unix(server, tmp_path):
    hidden = "import sys; sys.modules['fcntl'] = None\n" + FETCH
    command = [sys.executable, "-c", hidden, server.url("a.bin"), str(tmp_path / "a.bin"), MD5]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
