"""Drift: events of the same distribution pass, and each kind of shift is past the limit of its own measure."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from palate.data.dataset import Dataset
from palate.data.frame import from_frame
from palate.errors import EvaluationError
from palate.evaluation.drift import LIMITS, drift
from palate.models.ials import IALS
from palate.recommend import Recommender

USERS, ITEMS, DAY = 300, 60, 86_400.0


def log(
    seed: int,
    start: float,
    *,
    days: float = 10,
    rows: int = 4_000,
    steep: float = 2.0,
    shift: int = 0,
    low: int = 1,
    per_user: float = 1.0,
    users: int = USERS,
    prefix: str = "",
) -> pl.DataFrame:
    """Ratings: even users like even items; ``steep`` item popularity, whose top moves by ``shift`` items."""
    rng = np.random.default_rng(seed)
    user = (rng.random(rows) ** per_user * users).astype(int)
    item = (rng.random(rows) ** steep * (ITEMS // 2)).astype(int) * 2 + user % 2
    item = (item + shift) % ITEMS
    times = start + np.sort(rng.random(rows)) * days * DAY
    rating = rng.integers(low, 6, rows)
    frame = pl.DataFrame({"user_id": user, "item_id": item, "rating": rating, "timestamp": times})
    return frame.with_columns(
        pl.format("u{}", "user_id").alias("user_id"), pl.format(prefix + "i{}", "item_id").alias("item_id")
    )


TODAY = 1_600_000_000 + 60 * DAY


@pytest.fixture(scope="module")
def trained() -> Recommender:
    train = from_frame(log(1, 1_600_000_000, days=60, rows=24_000), duplicates="keep")
    return Recommender.of(IALS(dim=8, epochs=4).fit(train), train)


def read(frame: pl.DataFrame) -> Dataset:
    return from_frame(frame, duplicates="keep")


def past(trained: Recommender, frame: pl.DataFrame, **limits: float) -> set[str]:
    return {one.name for one in drift(trained, read(frame), limits).past}


@pytest.mark.parametrize("rows", [200, 4_000])
def test_the_same_distribution_passes(trained, rows):
    found = drift(trained, read(log(2, TODAY, rows=rows, days=rows / 400)))
    assert not found.past, found.rows()
    assert [one.name for one in found.measures] == list(LIMITS)
    assert all(one.value >= 0 for one in found.measures), found.rows()  # each is measured
    assert found.to_frame()["past"].to_list() == [False] * 7
    assert found.to_dict()["events"] == rows


@pytest.mark.parametrize(
    ("change", "measures"),
    [
        ({"shift": 30}, {"popularity"}),
        ({"steep": 0.5}, {"popularity"}),
        ({"rows": 12_000}, {"volume", "activity"}),
        ({"rows": 1_000}, {"volume", "activity"}),
        ({"per_user": 4.0}, {"activity"}),
        ({"low": 5}, {"weights"}),
        ({"prefix": "new-"}, {"new-items"}),
        ({"users": 900}, {"new-users"}),
    ],
    ids=lambda one: " ".join(sorted(map(str, one))),  # sets of text have another order in each process
)
def test_each_shift_is_past_its_limit(trained, change, measures):
    assert measures <= past(trained, log(3, TODAY, **change))


def test_scores_shift_where_others_come(trained):
    # The fifth of the users whose lists have the lowest scores.
    lists = trained.recommend(trained.users.ids, 10).group_by("user_id").agg(pl.col("score").mean())
    low = lists.sort("score").head(60)["user_id"]
    found = past(trained, log(4, TODAY, rows=40_000).filter(pl.col("user_id").is_in(low.implode())))
    assert "scores" in found


def test_limits_can_be_set(trained):
    shifted = log(3, TODAY, shift=30)
    assert "popularity" in past(trained, shifted)
    assert "popularity" not in past(trained, shifted, popularity=1.0)
    assert "volume" in past(trained, log(2, TODAY), volume=0.0)
    for name, limit in (("nothing", 1.0), ("volume", -1.0), ("volume", float("nan"))):
        with pytest.raises(EvaluationError, match="for one of popularity"):
            drift(trained, read(shifted), {name: limit})


def test_measures_without_times_or_rows_say_why(trained):
    found = drift(trained, read(log(2, TODAY, rows=20).drop("timestamp")))
    missing = {one.name: one.about for one in found.measures if one.value != one.value}
    assert set(missing) == {"popularity", "volume", "activity", "weights"}
    assert "no times" in missing["volume"]
    assert "50 are needed" in missing["weights"]
    assert not found.past
