"""`palate estimate` is near what a run costs, for text, Parquet and stores."""

from __future__ import annotations

import polars as pl
import pytest
from terminal import mistake, palate

from palate.cli import estimate
from palate.datasets.synth import synthesize


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("estimate") / "log.parquet"
    synthesize(path, scale=0.1)
    return path


@pytest.mark.slow
def test_the_estimate_is_near_the_cost(log, monkeypatch):
    monkeypatch.setattr(estimate, "SIZES", (5_000, 20_000))
    found = palate("estimate", log, "--recipe", "item-knn", "--json").ok().json
    assert found["rows"] == pl.scan_parquet(log).select(pl.len()).collect().item()
    assert found["measured_rows"] == [5_000, 20_000]
    monkeypatch.setattr(estimate, "SIZES", (found["rows"],))
    real = palate("estimate", log, "--recipe", "item-knn", "--json").ok().json  # one run on all rows
    assert found["users"] == pytest.approx(real["users"], rel=0.3)
    assert found["items"] == pytest.approx(real["items"], rel=0.5)
    for measure in ("seconds", "memory"):
        guess, cost = (sum(stage[measure] for stage in one["stages"].values()) for one in (found, real))
        assert cost / 4 < guess < cost * 4, (measure, found, real)


def test_costs_go_on_in_a_straight_line():
    small = estimate.Run(100, 10, 40, {"train": estimate.Cost(2.0, 10), "lists": estimate.Cost(1.0, 10)})
    large = estimate.Run(400, 40, 40, {"train": estimate.Cost(5.0, 40), "lists": estimate.Cost(4.0, 10)})
    found = estimate.extrapolate(small, large, 4_000)
    assert (found.users, found.items) == (400, 40)
    assert found.stages == {"train": estimate.Cost(41.0, 400), "lists": estimate.Cost(40.0, 10)}


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_rows_of_text_are_counted_by_its_first_part(log, tmp_path, suffix):
    frame = pl.read_parquet(log)
    frame.write_csv(path := tmp_path / "log.csv")
    if suffix == "csv.gz":
        import gzip

        (tmp_path / "log.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert estimate.count_rows(str(tmp_path / f"log.{suffix}")) == pytest.approx(len(frame), rel=0.1)
    head = estimate.write_head(str(tmp_path / f"log.{suffix}"), 1000, tmp_path)
    assert pl.read_csv(head).equals(frame.head(1000))


def test_what_cannot_be_estimated_is_said(tmp_path):
    (tmp_path / "x.db").write_bytes(b"SQLite format 3\0" + bytes(100))
    assert "palate prepare" in mistake(palate("estimate", tmp_path / "x.db", "--recipe", "ials"))
