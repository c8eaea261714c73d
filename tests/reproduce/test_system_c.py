"""System C and the RMSE of MovieLens 100K: the protocol's data, and rows that say what they should."""

from __future__ import annotations

import numpy as np
import pytest

from palate.data.dataset import Dataset
from palate.data.splits.strategies import at_random
from palate.errors import DataError, SourceError
from palate.models.bmf import BMF
from palate.models.means import MeanRating, UserItemMeans
from palate.reproduce.measured import Planned
from palate.reproduce.ml_100k_rmse import PROTOCOL as FOLDS
from palate.reproduce.ml_100k_rmse import folds
from palate.reproduce.rows import Options
from palate.reproduce.system_c import PROTOCOL, load_anime, measured


@pytest.fixture(scope="module")
def anime() -> tuple[Dataset, object]:
    try:
        return load_anime(Options())
    except SourceError as error:
        pytest.skip(f"anime cannot be had here: {error}")


def test_ratings_and_rows_without_one_are_apart(anime: tuple[Dataset, object]) -> None:
    ratings, unrated = anime
    assert ratings.interactions.weight.min() >= 1
    assert ratings.interactions.weight.max() <= 10
    assert set(unrated.weight) == {-1}  # type: ignore[attr-defined]
    assert ratings.item_features is not None
    assert "mean_rating" not in ratings.item_features.columns


def test_the_trivial_rows_are_those_of_the_reference(anime: tuple[Dataset, object]) -> None:
    splits = [at_random(anime[0], test_size=0.2, seed=seed, cold="keep") for seed in range(2)]
    values = {}
    for one in (Planned("trivial", MeanRating(), "mean"), Planned("trivial", UserItemMeans(), "means")):
        rows = list(measured(one, splits, None, Options(), system="C", dataset="anime", protocol=PROTOCOL))
        values[one.label] = rows[0]
        assert [row.metric for row in rows] == ["MSE", "RMSE", "MAE", "MSE", "MSE", "MSE"]
        assert rows[0].low < rows[0].value < rows[0].high  # type: ignore[operator]
        assert rows[1].value == pytest.approx(rows[0].value ** 0.5)  # type: ignore[operator]
        assert "known" in rows[3].protocol
        assert "cold" in rows[4].protocol
    assert values["mean"].value == pytest.approx(2.51, abs=0.02)
    assert values["means"].value == pytest.approx(1.46, abs=0.03)


def test_folds_are_the_official_ones_and_another_order_is_refused(ml_100k: Dataset) -> None:
    five = folds(ml_100k)
    assert sum(len(split.test) for split in five) == 100_000
    with pytest.raises(DataError, match=r"order of u\.data"):
        folds(ml_100k.with_rows(ml_100k.interactions.take(np.arange(99_999, -1, -1))))


def test_a_short_chain_is_below_the_means(ml_100k: Dataset) -> None:
    split = folds(ml_100k)[:1]
    short = BMF(dim=4, sweeps=40, burn_in=20, draws=10)
    ours, means = (
        next(
            row
            for row in measured(one, split, None, Options(), system="x", dataset="ml-100k", protocol=FOLDS)
            if row.metric == "RMSE"
        )
        for one in (Planned("best", short, "BMF"), Planned("trivial", UserItemMeans(), "means"))
    )
    assert ours.value < means.value  # type: ignore[operator]
