"""Metrics against pytrec_eval, TREC's own evaluation code, on rankings with many ties, from scores to numbers.

pytrec_eval orders equal scores by descending document name, so that irrelevant items, named z..., stand before relevant
ones, named a...: our tie rule, put into its words. Where definitions differ the test says how:

- map_cut divides by all relevant items, ours by min(k, relevant), the most that a list of k can hold.
- recip_rank has no cut-off: it is given the first k places.
- success is HitRate, P is Precision, ndcg_cut and recall are the same.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.base import Query
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.data.splits.split import Candidates, Split
from palate.evaluation.evaluate import evaluate
from palate.evaluation.metrics import METRICS

pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec-eval-terrier is not installed")

LENGTHS = (1, 2, 3, 5, 10)
TREC = {"HitRate": "success", "NDCG": "ndcg_cut", "Recall": "recall", "Precision": "P", "MAP": "map_cut"}


class Table(nn.Module):
    """Scores given by a table (U, I)."""

    trained_on = None

    def __init__(self, table: NDArray[np.float32]) -> None:
        super().__init__()
        self.register_buffer("table", torch.from_numpy(table))

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        return self.table[query.user] if items is None else self.table[query.user].gather(1, items)

    def can_personalize(self, query: Query) -> Tensor:
        return query.user >= 0


def rows_of(flags: NDArray[np.bool_]) -> Interactions:
    user, item = (index.astype(np.int32) for index in np.nonzero(flags))
    return Interactions(user, item, np.ones(len(user), np.float32))


def by_pytrec(scores: NDArray[np.float32], relevant: NDArray[np.bool_], shown: NDArray[np.bool_]) -> dict[str, list]:
    """Values per user and measure, with our definitions made from theirs."""
    name = [[f"{'a' if yes else 'z'}{item:04}" for item, yes in enumerate(row)] for row in relevant]
    users = np.flatnonzero(relevant.any(1))
    judged = {str(u): {name[u][i]: int(relevant[u, i]) for i in range(scores.shape[1])} for u in users}
    run = {str(u): {name[u][i]: float(scores[u, i]) for i in np.flatnonzero(shown[u])} for u in users}
    cuts = {f"{measure}.{','.join(map(str, LENGTHS))}" for measure in TREC.values()}
    found = pytrec_eval.RelevanceEvaluator(judged, cuts).evaluate(run)
    first = pytrec_eval.RelevanceEvaluator(judged, {"recip_rank"})
    values: dict[str, list[float]] = {}
    for k in LENGTHS:
        # Names descend among equals, as pytrec_eval orders them itself.
        ordered = {u: sorted(docs, key=lambda d, docs=docs: (docs[d], d), reverse=True)[:k] for u, docs in run.items()}
        cut = first.evaluate({u: {d: run[u][d] for d in docs} for u, docs in ordered.items()})
        values[f"MRR@{k}"] = [cut[str(u)]["recip_rank"] for u in users]
        for ours, theirs in TREC.items():
            values[f"{ours}@{k}"] = [found[str(u)][f"{theirs}_{k}"] for u in users]
        many = relevant.sum(1)[users]
        values[f"MAP@{k}"] = list(np.array(values[f"MAP@{k}"]) * many / np.minimum(k, many))
    return values


def check(scores: NDArray[np.float32], relevant: NDArray[np.bool_], seen: NDArray[np.bool_]) -> None:
    users, items = scores.shape
    data = Dataset("random", IdMap.of(np.arange(users)), IdMap.of(np.arange(items)), rows_of(seen))
    split = Split(data, data.with_rows(rows_of(relevant)), "random")
    report = evaluate(Table(scores), split, k=LENGTHS, resamples=0)
    expected = by_pytrec(scores, relevant, ~seen)
    assert {f"{name}@{k}" for name in METRICS for k in LENGTHS} == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(report.per_user[name], values, rtol=1e-6, atol=1e-9, err_msg=name)


@st.composite
def rankings(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    users, items = draw(st.integers(1, 4)), draw(st.integers(2, 14))
    levels = draw(st.integers(1, 6))  # few levels, many ties
    cells = st.lists(st.integers(-levels, levels), min_size=users * items, max_size=users * items)
    scores = np.array(draw(cells), dtype=np.float32).reshape(users, items)
    kinds = draw(st.lists(st.sampled_from("rsnnn"), min_size=users * items, max_size=users * items))
    kind = np.array(kinds).reshape(users, items)
    kind[0, 0], kind[0, -1] = "r", "n"
    return scores, kind == "r", kind == "s"


@settings(deadline=None, max_examples=120)
@given(rankings())
def test_full_ranking_equals_pytrec_eval(
    case: tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]],
) -> None:
    check(*case)


@pytest.mark.parametrize("levels", [2, 10, 1_000_000])
def test_many_users_equal_pytrec_eval(levels: int) -> None:
    rng = np.random.default_rng(levels)
    kind = rng.choice(3, (150, 400), p=[0.85, 0.05, 0.1])
    check(rng.integers(0, levels, kind.shape).astype(np.float32), kind == 1, kind == 2)


def test_sampled_candidates_equal_pytrec_eval() -> None:
    rng = np.random.default_rng(7)
    users, items = 100, 300
    scores = rng.integers(0, 8, (users, items)).astype(np.float32)
    relevant = np.zeros((users, items), dtype=bool)
    relevant[np.arange(users)[:, None], rng.permuted(np.tile(np.arange(50), (users, 1)), axis=1)[:, :3]] = True
    negatives = rng.permuted(np.tile(np.arange(50, items), (users, 1)), axis=1)[:, :60].astype(np.int32)
    shown = relevant.copy()
    shown[np.arange(users)[:, None], negatives] = True
    data = Dataset("random", IdMap.of(np.arange(users)), IdMap.of(np.arange(items)), rows_of(~shown))
    split = Split(data, data.with_rows(rows_of(relevant)), "random")
    candidates = Candidates(np.arange(users, dtype=np.int32), negatives, "60 of 250")
    report = evaluate(Table(scores), split, k=LENGTHS, candidates=candidates, resamples=0)
    for name, values in by_pytrec(scores, relevant, shown).items():
        np.testing.assert_allclose(report.per_user[name], values, rtol=1e-6, atol=1e-9, err_msg=name)
