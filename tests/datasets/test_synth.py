"""Generated logs have the statistics of the log that they are modeled on, and equal seeds give equal files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from palate.datasets import synth
from palate.datasets.registry import load
from palate.errors import DataError, SourceError


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    path = tmp_path_factory.mktemp("synth") / "log.parquet"
    rows = synth.synthesize(path, scale=0.2, seed=3)
    frame = pl.read_parquet(path)
    assert rows == len(frame)
    return frame


def columns(frame):
    return (frame[name].to_numpy() for name in ("user_id", "item_id", "timestamp"))


def test_statistics_are_those_of_the_real_log(generated):
    try:
        real = load("ml-1m", min_rating="any").interactions
    except SourceError as error:
        pytest.skip(f"ml-1m cannot be had here: {error}")
    wanted, found = synth.measure(real.user, real.item, real.time), synth.measure(*columns(generated))
    np.testing.assert_allclose(found.activity, wanted.activity, rtol=0.1)
    # A fifth of the users has 45 % of the items: the ends of the catalog are flatter.
    np.testing.assert_allclose(found.popularity[1:], wanted.popularity[1:], rtol=0.3)
    assert found.ties == pytest.approx(wanted.ties, rel=0.05)
    assert wanted.drift / 2 < found.drift < 2 * wanted.drift
    shares = np.bincount(generated["rating"].cast(pl.Int64), minlength=6)[1:] / len(generated)
    np.testing.assert_allclose(shares, np.bincount(real.weight.astype(int))[1:] / len(real), atol=0.02)
    assert generated["timestamp"].min() >= real.time.min()
    assert generated["timestamp"].max() <= real.time.max()


def test_size_follows_the_scale_and_no_pair_occurs_twice(generated):
    assert generated["user_id"].n_unique() == 1208
    assert len(generated) == pytest.approx(200_000, rel=0.05)
    assert not generated.select("user_id", "item_id").is_duplicated().any()
    assert generated.null_count().sum_horizontal()[0] == 0


def test_without_drift_or_ties_both_are_gone(tmp_path, monkeypatch, generated):
    still = replace(synth.KNOWN["ml-1m"], drift=0.0, alone=1.0)
    monkeypatch.setitem(synth.KNOWN, "still", still)
    synth.synthesize(tmp_path / "still.parquet", like="still", scale=0.2, seed=3)
    found = synth.measure(*columns(pl.read_parquet(tmp_path / "still.parquet")))
    with_both = synth.measure(*columns(generated))
    assert abs(found.drift) < with_both.drift / 5
    assert found.ties < 0.1 * with_both.ties


def test_equal_seeds_give_equal_rows_in_any_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(synth, "ROWS", 5_000)
    monkeypatch.setattr(synth, "ROW_GROUP", 4_000)
    frames = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synth.synthesize(tmp_path / f"{name}.parquet", scale=0.02, seed=seed)
        frames.append(pl.read_parquet(tmp_path / f"{name}.parquet"))
    assert frames[0].equals(frames[1])
    assert not frames[0].equals(frames[2])
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups > 2


@pytest.mark.parametrize(("options", "text"), [({"like": "ml-9m"}, "choose ml-1m"), ({"scale": 0.001}, "at least 50")])
def test_unknown_sets_and_tiny_scales_are_refused(tmp_path, options, text):
    with pytest.raises(DataError, match=text):
        synth.synthesize(tmp_path / "no.parquet", **options)
    assert not list(tmp_path.iterdir())
