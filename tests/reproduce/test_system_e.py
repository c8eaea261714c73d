"""System E on the real data: the protocol's counts, the trivial rows, the floors, and the overridden refusal."""

from __future__ import annotations

import numpy as np
import pytest

from palate.data.dataset import Dataset
from palate.errors import LeakError
from palate.evaluation.evaluate import evaluate
from palate.models.popularity import Popularity
from palate.reproduce import system_e
from palate.reproduce.rows import Options


def test_the_split_has_the_published_counts(ml_100k: Dataset) -> None:
    parts = system_e.split(ml_100k).relevant(4)
    assert (parts.train.n_users, parts.train.n_items, len(parts.test)) == (751, 1616, 1571)
    assert len(np.unique(parts.test.interactions.user)) == 95
    cuts = list(system_e.earlier(parts.train))
    assert len(cuts) == 5
    assert parts.train.interactions.time is not None
    last = parts.train.interactions.time.max()
    for cut in cuts:
        assert cut.train.interactions.time is not None
        assert cut.test.interactions.time is not None
        assert cut.train.interactions.time.max() <= cut.test.interactions.time.min()
        assert cut.test.interactions.time.max() <= last


def test_a_model_of_the_test_rows_is_refused_unless_told(ml_100k: Dataset) -> None:
    whole = system_e.split(ml_100k)
    model = Popularity().fit(whole.test)
    with pytest.raises(LeakError, match="trained on test rows"):
        evaluate(model, whole.relevant(4), k=10)
    assert evaluate(model, whole.relevant(4), k=10, allow_trained_rows=True, resamples=0).users == 95


def test_rows_reproduce_the_baselines_and_reach_the_floors(ml_100k: Dataset) -> None:
    rows = list(system_e.run(Options(roles=frozenset({"trivial", "best"}), fast=True)))

    def value(table: str, model: str, metric: str) -> float:
        (found,) = [
            r
            for r in rows
            if r.protocol.endswith(table) and r.model == model and r.metric == metric and r.value is not None
        ]
        assert found.value is not None
        return found.value

    left, removed, cuts = "left in", "items removed", "training rows"
    recent = "recent popularity, half-life 10 days"
    for table, expected in ((left, (0.0717, 0.2947, 0.006)), (removed, (0.1389, 0.4737, 0.047))):
        found = [value(table, "popularity", metric) for metric in ("NDCG", "HitRate", "Coverage")]
        np.testing.assert_allclose(found, expected, atol=0.012)
    np.testing.assert_allclose(value(removed, recent, "NDCG"), 0.2306, atol=0.001)
    ours = {r.model for r in rows if r.role == "best" and r.protocol.endswith(removed)}
    accurate, hits, wide = sorted(ours, key=lambda model: (model.endswith("wide"), model.endswith("hits")))
    assert value(removed, hits, "HitRate") >= 0.73
    assert value(removed, hits, "NDCG") >= 0.28
    assert value(removed, hits, "HitRate") > value(removed, accurate, "HitRate")
    assert value(removed, accurate, "NDCG") >= 0.24
    assert value(removed, accurate, "HitRate") >= 0.66
    assert value(removed, wide, "NDCG") >= 0.165
    assert value(removed, wide, "Coverage") >= 0.19
    (wide_left,) = {
        r.model for r in rows if r.role == "best" and r.protocol.endswith(left) and r.model.endswith("wide")
    }
    for metric, published, popular in (
        ("NDCG", 0.0345, 0.072),
        ("HitRate", 0.2211, 0.295),
        ("Coverage", 0.1912, 0.006),
    ):
        assert value(left, wide_left, metric) > max(published, popular)
    (paired,) = [r for r in rows if r.protocol.endswith(cuts) and r.model.endswith("(paired)") and r.metric == "NDCG"]
    assert paired.low is not None
    assert paired.low > 0
    assert value(cuts, recent, "NDCG") > 0
