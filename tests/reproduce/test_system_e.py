"""System E on the real data: the protocol's counts, the trivial rows, and the overridden refusal."""

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


def test_the_trivial_rows_are_those_of_independent_code(ml_100k: Dataset) -> None:
    """They calibrate the evaluator; the rows of recipes are recorded, never asserted on these test rows."""
    rows = list(system_e.run(Options(roles=frozenset({"trivial"}), fast=True)))

    def value(table: str, model: str, metric: str) -> float:
        (found,) = [
            r
            for r in rows
            if r.protocol.endswith(table) and r.model == model and r.metric == metric and r.value is not None
        ]
        assert found.value is not None
        return found.value

    left, removed = "left in", "items removed"
    for table, expected in ((left, (0.0717, 0.2947, 0.006)), (removed, (0.1389, 0.4737, 0.047))):
        found = [value(table, "popularity", metric) for metric in ("NDCG", "HitRate", "Coverage")]
        np.testing.assert_allclose(found, expected, atol=0.012)
    np.testing.assert_allclose(value(removed, "recent popularity, half-life 10 days", "NDCG"), 0.2306, atol=0.001)
