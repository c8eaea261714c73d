"""Reports meet in one table only if they mean the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from palate.data.splits.strategies import at_random, leave_one_out
from palate.errors import EvaluationError
from palate.evaluation.evaluate import evaluate
from palate.evaluation.rating_prediction import evaluate_ratings
from palate.experiment import check_comparable, comparability_line, compare
from palate.models import make_recipe
from palate.models.popularity import Popularity
from palate.training.negative_sampling import draw_candidates


@pytest.fixture(scope="module")
def split(checkerboard):
    return checkerboard.with_candidates(draw_candidates(checkerboard, 5, seed=0))


def report(split, name="popularity", **more):
    return evaluate(Popularity().fit(split.train), split, k=5, name=name, resamples=10, **more)


def test_the_same_ground_is_let_in_as_objects_and_as_dictionaries(split):
    full = [report(split), report(split, "again")]
    check_comparable(full)
    check_comparable([full[0], full[1].to_dict()])
    check_comparable([report(split, candidates=split.candidates), report(split, candidates=split.candidates)])
    check_comparable([])


def test_full_and_sampled_never_share_a_table(split):
    with pytest.raises(EvaluationError, match=r"their candidates differ \(full ranking against [0-9a-f]{16}\)"):
        check_comparable([report(split), report(split, candidates=split.candidates)])


def test_two_draws_of_candidates_never_share_a_table(split):
    other = draw_candidates(split, 5, seed=1)
    prints = [one.fingerprint(split.train.users, split.train.items) for one in (split.candidates, other)]
    with pytest.raises(EvaluationError, match=f"{prints[0]} against {prints[1]}.*need the same draw"):
        check_comparable([report(split, candidates=split.candidates), report(split, candidates=other)])


def test_two_splits_never_share_a_table_and_both_fingerprints_are_named(split):
    other = at_random(split.train, test_size=0.3, seed=1)
    with pytest.raises(EvaluationError, match=f"{split.fingerprint} against {other.fingerprint}.*one saved split"):
        check_comparable([report(split), report(other, "other").to_dict()])


def test_seen_items_and_tie_rules_must_agree(split):
    with pytest.raises(EvaluationError, match=r"exclude_seen differ \(True against False\)"):
        check_comparable([report(split), report(split, exclude_seen=False)])
    with pytest.raises(EvaluationError, match="their ties differ"):
        check_comparable([report(split), replace(report(split), ties="ties are broken at random")])


def test_reports_of_ratings_need_the_same_split(ml_100k):
    splits = [leave_one_out(ml_100k), leave_one_out(ml_100k, tie="last")]
    recipe = make_recipe("mean-rating")
    reports = [evaluate_ratings(recipe.fit(one.train), one, resamples=10) for one in splits]
    check_comparable(reports[:1] * 2)
    with pytest.raises(EvaluationError, match="split differ"):
        check_comparable(reports)


def test_the_line_under_a_table_names_the_fingerprints(split):
    sampled = report(split, candidates=split.candidates)
    assert comparability_line(sampled) == (
        f"split {split.fingerprint}, candidates {sampled.fingerprints['candidates']}, "
        f"training rows {split.train.fingerprint.digest[:16]}"
    )
    assert "candidates" not in comparability_line(report(split).to_dict())


def test_compare_measures_all_on_the_same_ground(split):
    found = compare(split, [Popularity(), make_recipe("item-knn")])
    for ranking in ("full", "sampled"):
        reports = [found.report(name, ranking) for name in ("popularity", "item-knn")]
        check_comparable(reports)
        assert reports[1].value("NDCG", 10) > reports[0].value("NDCG", 10)
