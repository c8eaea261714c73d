"""`palate estimate` is near what a run costs, for text, Parquet and stores."""

from __future__ import annotations

import polars as pl
import pytest
from terminal import mistake, palate

from palate.datasets.synth import synthesize
from palate.experiment import estimate


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
        low, high = (sum(stage[measure][end] for stage in found["stages"].values()) for end in (0, 1))
        cost = sum(stage[measure][0] for stage in real["stages"].values())
        assert low <= high
        assert low / 2 < cost < high * 2, (measure, found, real)


def test_costs_lie_between_a_line_and_a_power_law():
    small = estimate.Run(100, 10, 40, {"train": estimate.Cost(2.0, 10), "lists": estimate.Cost(1.0, 10)})
    large = estimate.Run(400, 40, 40, {"train": estimate.Cost(4.0, 40), "lists": estimate.Cost(4.0, 10)})
    found = estimate.extrapolate(small, large, 6_400)
    assert (found.users, found.items) == (640, 40)
    # By the line 2/300 a row more; by the power law twice as much for four times the rows.
    assert found.high == {"train": estimate.Cost(44.0, 640), "lists": estimate.Cost(64.0, 10)}
    assert found.low["train"] == pytest.approx((16.0, 640))
    assert found.low["lists"] == pytest.approx((64.0, 10))


@pytest.mark.parametrize(("fixed", "power"), [(0.0, 1.0), (3.0, 1.0), (0.0, 0.5), (0.0, 0.8), (1.0, 0.9)])
def test_costs_of_a_start_and_a_power_of_the_rows_are_inside_the_bounds(fixed, power):
    def run(rows):
        return estimate.Run(rows, rows, 10, {"train": estimate.Cost(fixed + rows**power, 0)})

    found = estimate.extrapolate(run(1_000), run(4_000), 100_000)
    true = run(100_000).stages["train"].seconds
    assert found.low["train"].seconds <= true * 1.000001
    assert true <= found.high["train"].seconds * 1.000001


def test_a_log_that_is_run_whole_is_not_extrapolated():
    whole = estimate.Run(500, 50, 20, {"train": estimate.Cost(2.0, 10)})
    found = estimate.extrapolate(whole, whole, 500)
    assert found.low == found.high == whole.stages
    assert found.measured == (500,)


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
