"""Evaluation: laws of the evaluator, leaks, and golden values on real data."""

from __future__ import annotations

import sys
from dataclasses import replace
from math import log2

import numpy as np
import pytest

from boards import Fixed, make_split
from palate.data.dataset import Dataset, Interactions
from palate.data.splits.split import Candidates, Split
from palate.data.splits.strategies import at_random
from palate.errors import EvaluationError, LeakError, ModelError
from palate.evaluation.evaluate import evaluate, validation_callback
from palate.evaluation.metrics import METRICS
from palate.models.popularity import Popularity
from palate.training.negative_sampling import draw_candidates


@pytest.mark.parametrize("sampled", [False, True])
def test_a_constant_model_scores_zero(checkerboard: Split, sampled: bool) -> None:
    candidates = draw_candidates(checkerboard, 15) if sampled else None
    report = evaluate(Fixed(np.zeros((40, 40))), checkerboard, k=10, candidates=candidates)
    assert {m.value for m in report.measures if m.metric in METRICS} == {0.0}


@pytest.mark.parametrize("sampled", [False, True])
def test_an_oracle_scores_one(checkerboard: Split, sampled: bool) -> None:
    candidates = draw_candidates(checkerboard, 15) if sampled else None
    report = evaluate(Fixed(np.eye(40)), checkerboard, k=1, candidates=candidates)
    assert report.value("HitRate", 1) == report.value("NDCG", 1) == report.value("MAP", 1) == 1


def test_several_relevant_items_in_full_ranking_by_hand() -> None:
    split = make_split([(0, 0), (1, 1)], [(0, 1), (0, 2), (1, 3)], users=2, items=5)
    # User 0 (item 0 seen): order 3, 1, 4, 2 -> relevant at 2 and 4. User 1 (item 1 seen): 0, 2, 3, 4 -> at 3.
    model = Fixed([[9, 5, 1, 7, 3], [9, 8, 7, 6, 5]])
    report = evaluate(model, split, k=3)
    assert report.value("Recall", 3) == pytest.approx((1 / 2 + 1) / 2)
    assert report.value("NDCG", 3) == pytest.approx(((1 / log2(3)) / (1 + 1 / log2(3)) + 1 / log2(4)) / 2)
    assert report.value("MRR", 3) == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert report.value("Coverage", 3) == 5 / 5  # lists 3, 1, 4 and 0, 2, 3
    assert report.users == 2
    assert report.per_user["Recall@3"].tolist() == [0.5, 1.0]


def test_lists_longer_than_the_catalog_end_early() -> None:
    split = make_split([(0, 0)], [(0, 1), (1, 2)], users=2, items=3)
    report = evaluate(Fixed([[9, 5, 1], [3, 2, 1]]), split, k=(2, 7))
    assert report.per_user["MRR@7"].tolist() == pytest.approx([1, 1 / 3])
    assert report.per_user["Precision@7"].tolist() == pytest.approx([1 / 7, 1 / 7])
    assert report.per_user["Popularity@7"].tolist() == pytest.approx([0, 1 / 3])


def test_seen_items_stay_when_asked() -> None:
    split = make_split([(0, 0)], [(0, 1)], users=1, items=3)
    model = Fixed([[9, 5, 1]])
    assert evaluate(model, split, k=1).value("HitRate", 1) == 1
    kept = evaluate(model, split, k=1, exclude_seen=False)
    assert kept.value("HitRate", 1) == 0
    assert "left in" in kept.candidates
    assert not kept.exclude_seen


def test_a_relevant_item_that_was_seen_in_training_is_said_to_be_lost() -> None:
    split = make_split([(0, 1), (0, 0)], [(0, 1), (0, 2)], users=1, items=4)
    report = evaluate(Fixed([[1, 9, 5, 0]]), split, k=2)
    assert report.value("Recall", 2) == 0.5
    assert "1 relevant items were seen in training" in report.notes[0]


def test_the_own_positive_among_the_listed_negatives_does_not_count() -> None:
    split = make_split([(0, 0)], [(0, 1)], users=1, items=4)
    candidates = Candidates(np.array([0], np.int32), np.array([[1, 2, 3]], np.int32), "listed")
    assert evaluate(Fixed([[0, 5, 4, 3]]), split, k=1, candidates=candidates).value("HitRate", 1) == 1


def test_chunks_do_not_change_the_numbers(checkerboard: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Fixed(np.random.default_rng(0).random((40, 40)))
    candidates = draw_candidates(checkerboard, 10)
    whole = [evaluate(model, checkerboard, k=5, candidates=c).per_user for c in (None, candidates)]
    monkeypatch.setattr(sys.modules["palate.evaluation.evaluate"], "DEFAULT_CHUNK", 5_000)
    monkeypatch.setattr("palate.top_k.PAIR_CELLS", 100)
    parts = [evaluate(model, checkerboard, k=5, candidates=c).per_user for c in (None, candidates)]
    for first, second in zip(whole, parts, strict=True):
        for name, values in first.items():
            np.testing.assert_array_equal(values, second[name])


def test_rows_the_model_was_trained_on_are_refused_unless_allowed(ml_100k_loo: Split) -> None:
    everything = ml_100k_loo.train.interactions
    both = Interactions(
        *(
            np.concatenate([getattr(everything, f), getattr(ml_100k_loo.test.interactions, f)])
            for f in ("user", "item", "weight", "time")
        )
    )
    model = Popularity().fit(ml_100k_loo.train.with_rows(both))
    with pytest.raises(LeakError, match=r"trained on test rows.*allow-trained-rows"):
        evaluate(model, ml_100k_loo)
    assert evaluate(model, ml_100k_loo, allow_trained_rows=True, resamples=0).users == 943


def test_a_leak_is_found_after_the_weights_were_binarized(ml_100k_loo: Split) -> None:
    leaked = ml_100k_loo.test.interactions
    ones = replace(leaked, weight=np.ones_like(leaked.weight))
    model = Popularity().fit(ml_100k_loo.train.with_rows(ones))
    with pytest.raises(LeakError):
        evaluate(model, ml_100k_loo)


def test_what_makes_no_sense_is_refused(checkerboard: Split) -> None:
    model = Fixed(np.eye(40))
    with pytest.raises(EvaluationError, match="at least 1"):
        evaluate(model, checkerboard, k=0)
    empty = checkerboard.test.with_rows(checkerboard.test.interactions.take(np.zeros(0, int)))
    with pytest.raises(EvaluationError, match="no test rows"):
        evaluate(model, replace(checkerboard, test=empty))
    foreign = Candidates(np.array([0], np.int32), np.array([[1]], np.int32), "one user")
    with pytest.raises(EvaluationError, match="draw candidates for this split"):
        evaluate(model, checkerboard, candidates=foreign)
    with pytest.raises(ModelError, match="NaN"):
        evaluate(Fixed(np.full((40, 40), np.nan)), checkerboard)
    with pytest.raises(EvaluationError, match=r"NDCG@7 was not measured"):
        evaluate(model, checkerboard, k=5).value("NDCG", 7)


def test_a_report_is_never_a_bare_number(checkerboard: Split) -> None:
    candidates = draw_candidates(checkerboard, 15)
    sampled = evaluate(Fixed(np.eye(40)), checkerboard, candidates=candidates).to_dict()
    full = evaluate(Fixed(np.eye(40)), checkerboard).to_dict()
    assert sampled["candidates"] != full["candidates"]
    assert sampled["fingerprints"]["candidates"] is not None
    assert full["fingerprints"]["candidates"] is None
    assert full["ties"] == "ties count against the model"
    assert "Coverage" in {m["metric"] for m in full["measures"]}
    assert "Coverage" not in {m["metric"] for m in sampled["measures"]}


def test_the_validation_callback_measures_the_same_as_evaluate(checkerboard: Split) -> None:
    model = Fixed(np.random.default_rng(0).random((40, 40)))
    assert validation_callback(checkerboard, "NDCG", 5)(model) == pytest.approx(
        evaluate(model, checkerboard, k=5).value("NDCG", 5)
    )


def test_popularity_on_system_b_matches_the_published_row(ml_100k_loo: Split) -> None:
    candidates = draw_candidates(ml_100k_loo, 100, seed=0)
    report = evaluate(Popularity().fit(ml_100k_loo.train), ml_100k_loo, k=10, candidates=candidates)
    assert report.value("HitRate", 10) == pytest.approx(0.4221, abs=0.02)
    assert report.value("NDCG", 10) == pytest.approx(0.2269, abs=0.02)
    assert report.measure("HitRate", 10).low < report.value("HitRate", 10) < report.measure("HitRate", 10).high


def test_popularity_on_the_paper_s_own_files_equals_the_reference_value(ncf_ml_1m: Split) -> None:
    """.4538 / .2545 was measured with ties in favor of the positive: both rules are computed once to calibrate."""
    model = Popularity().fit(ncf_ml_1m.train)
    against = evaluate(model, ncf_ml_1m, k=10, candidates=ncf_ml_1m.candidates)
    counts = model.counts.numpy()
    assert ncf_ml_1m.candidates is not None
    rows = ncf_ml_1m.test.interactions
    order = np.argsort(rows.user)
    positive = counts[rows.item[order]]
    negative = counts[ncf_ml_1m.candidates.negatives].astype(float)
    negative[ncf_ml_1m.candidates.negatives == rows.item[order][:, None]] = -1
    rank = 1 + (negative > positive[:, None]).sum(1)
    hit = rank <= 10
    assert hit.mean() == pytest.approx(0.4538, abs=5e-5)
    assert (hit / np.log2(rank + 1)).mean() == pytest.approx(0.2545, abs=5e-5)
    assert 0 <= hit.mean() - against.value("HitRate", 10) < 0.005


def test_random_split_full_ranking_agrees_with_numpy(ml_100k: Dataset) -> None:
    split = at_random(ml_100k, test_size=0.2, seed=1)
    model = Popularity().fit(split.train)
    report = evaluate(model, split, k=20, resamples=0)
    counts = model.counts.numpy().astype(float)
    recalls = []
    for user in np.unique(split.test.interactions.user)[:100]:
        scores = counts.copy()
        scores[split.train.history.of(user)] = -np.inf
        relevant = split.test.interactions.item[split.test.interactions.user == user]
        wanted = np.isin(np.arange(len(scores)), relevant)
        order = np.lexsort((np.arange(len(scores)), wanted, -scores))
        recalls.append(wanted[order[:20]].sum() / len(relevant))
    np.testing.assert_allclose(report.per_user["Recall@20"][:100], recalls)
