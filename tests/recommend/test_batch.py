"""All users to one file: resumed after kill -9, parts of something else never used, one writer at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from palate import storage
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.errors import DataError
from palate.models.ials import IALS
from palate.recommend import Recommender
from palate.recommend import top_n as answering

MAKE = """
import sys, time
import torch
from test_batch import make
from palate.recommend import top_n as answering
from palate.recommend import batch
torch.set_num_threads(1)
answering.CHUNK_BYTES = 5 * answering.CELL_BYTES * 50
slow = batch._write_part
def one(state, part, options, path):
    slow(state, part, options, path)
    print(path.name, flush=True)
    time.sleep(float(sys.argv[2]))
batch._write_part = one
make().recommend_all(sys.argv[1], 5)
"""


def make(seed: int = 0) -> Recommender:
    rng = np.random.default_rng(seed)
    pair = np.unique(rng.integers(0, 100 * 50, 900))
    rows = Interactions((pair // 50).astype(np.int32), (pair % 50).astype(np.int32), np.ones(len(pair), np.float32))
    train = Dataset("some", IdMap(pl.Series("id", np.arange(100))), IdMap(pl.Series("id", np.arange(50))), rows)
    return Recommender.of(IALS(dim=4, epochs=2).fit(train), train)


def start(path: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKE, str(path), str(seconds)],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_a_killed_call_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "all.parquet"
    first = start(path, 0.3)
    assert first.stdout is not None
    done = [first.stdout.readline().strip() for _ in range(4)]
    kill(first)
    assert not path.exists()
    parts = tmp_path / ".all.parquet.parts"
    assert set(done) <= {file.name for file in parts.iterdir()}
    second = start(path, 0)
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 0
    assert not set(done) & set(out.split())
    assert len(done) + len(out.split()) in (20, 21)  # the fifth part may have been whole when the process was killed
    assert_frame_equal(pl.read_parquet(path), make().recommend(np.arange(100), 5), rel_tol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["all.parquet"]


def test_parts_of_another_model_or_wish_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "CHUNK_BYTES", 5 * answering.CELL_BYTES * 50)
    path = tmp_path / "all.parquet"
    for seed, k in ((1, 5), (0, 3)):
        process = start(path, 0.5)
        assert process.stdout is not None
        process.stdout.readline()
        kill(process)
        recommender = make(seed)
        recommender.recommend_all(path, k)
        assert_frame_equal(pl.read_parquet(path), recommender.recommend(np.arange(100), k), rel_tol=1e-5)


def test_two_writers_of_one_file_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / ".all.parquet.parts"
    folder.mkdir()
    with storage.lock(folder / ".lock"), pytest.raises(DataError, match="another process is writing"):
        make().recommend_all(tmp_path / "all.parquet")
    make().recommend_all(tmp_path / "all.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["all.parquet"]


def test_all_users_of_ml_1m_get_a_list(tmp_path: Path) -> None:
    from palate.datasets.registry import load

    try:
        train = load("ml-1m")
    except DataError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    recommender = Recommender.of(IALS(dim=32, epochs=1).fit(train), train)
    assert recommender.recommend_all(tmp_path / "all.parquet", 10) == 10 * train.n_users
