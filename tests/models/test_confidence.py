"""Confidence of rows by their weights: free of units, saturating, saved with the model."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from palate.base import Query
from palate.bundle import Bundle
from palate.data.frame import from_frame
from palate.models.confidence import Confidence
from palate.models.ials import IALS


def plays(seed=0, **columns):
    rng = np.random.default_rng(seed)
    pair = np.sort(rng.choice(40 * 30, 500, replace=False))
    hours = np.exp(rng.normal(1, 2, 500)).astype(np.float32) + 0.1
    return from_frame(pl.DataFrame({"user": pair // 30, "item": pair % 30, "hours": hours, **columns}))


@pytest.mark.parametrize("weighting", ["auto", "log", "linear"])
def test_confidence_has_mean_one_and_no_unit(weighting):
    hours = plays()
    minutes = hours.with_rows(replace(hours.interactions, weight=hours.interactions.weight * 60))
    found = [Confidence(weighting).measure(data).of(data.interactions.weight) for data in (hours, minutes)]
    assert found[0].mean() == pytest.approx(1, rel=1e-4)
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_the_logarithm_saturates_and_keeps_the_order():
    data = plays()
    confidence = Confidence("log").measure(data)
    median = float(np.median(data.interactions.weight))
    low, middle, high = confidence.of(np.array([0.0, median, 1000 * median]))
    assert low == 0
    assert high / middle == pytest.approx(np.log1p(1e5) / np.log1p(100), rel=1e-4)


@pytest.mark.parametrize(
    ("column", "values", "mode"),
    [("stars", [1, 5], "none"), ("clicked", [0, 1], "none"), ("hours", [1.5, 3.0], "log"), (None, None, "none")],
)
def test_auto_follows_the_kind_of_feedback(column, values, mode):
    frame = pl.DataFrame({"user": [1, 2], "item": [1, 2]} | ({column: values} if column else {}))
    data = from_frame(frame)
    found, expected = (Confidence(w).measure(data).of(data.interactions.weight) for w in ("auto", mode))
    assert (found is None) == (mode == "none")
    assert found is None or np.array_equal(found, expected)


def test_events_count_as_their_weights_say():
    frame = pl.DataFrame({"user": [1, 1, 2], "item": [1, 2, 2], "event": ["view", "purchase", "view"]})
    data = from_frame(frame, event="event", event_weights="view=1,purchase=10")
    np.testing.assert_allclose(Confidence("auto").measure(data).of(data.interactions.weight), [0.25, 2.5, 0.25])


def test_a_model_of_hours_and_of_minutes_is_the_same_and_folds_in_with_its_scale(tmp_path):
    hours = plays()
    minutes = hours.with_rows(replace(hours.interactions, weight=hours.interactions.weight * 60))
    recipe = IALS(dim=8)
    scores = []
    for data in (hours, minutes):
        model = recipe.fit(data)
        new = Query.of(np.full(data.n_users, -1), data.history)
        scores.append(model.score(new))
        # A new user with the history of a trained one gets the vector of the trained one.
        torch.testing.assert_close(scores[-1], model.score(Query.of(np.arange(data.n_users))), rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(*scores, rtol=1e-2, atol=1e-3)
    Bundle.of(recipe, model, minutes).save(tmp_path / "b")
    again = Bundle.load(tmp_path / "b").recommender.model
    torch.testing.assert_close(again.score(new), scores[1])


def test_no_weighting_ignores_quantities():
    data = plays()
    ones = data.with_rows(replace(data.interactions, weight=np.ones(len(data), np.float32)))
    query = Query.of(np.arange(data.n_users))
    plain = IALS(dim=8, weighting="none")
    torch.testing.assert_close(plain.fit(data).score(query), plain.fit(ones).score(query))
    assert not torch.allclose(plain.fit(data).score(query), IALS(dim=8).fit(data).score(query))
