"""Reports meet in one table only if they mean the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from palate.compare import compare, ground_line, same_ground
from palate.data.split import at_random, leave_one_out
from palate.errors import EvaluationError
from palate.evaluate import evaluate
from palate.evaluate_ratings import evaluate_ratings
from palate.models import make_recipe
from palate.models.popularity import Popularity
from palate.protocols import Run
from palate.sampling import draw_candidates


@pytest.fixture(scope="module")
def split(checkerboard):
    return checkerboard.with_candidates(draw_candidates(checkerboard, 5, seed=0))


def report(split, name="popularity", **more):
    return evaluate(Popularity().fit(split.train), split, k=5, name=name, resamples=10, **more)


def test_the_same_ground_is_let_in_as_objects_and_as_dictionaries(split):
    full = [report(split), report(split, "again")]
    same_ground(full)
    same_ground([full[0], full[1].to_dict()])
    same_ground([report(split, candidates=split.candidates), report(split, candidates=split.candidates)])
    same_ground([])


def test_full_and_sampled_never_share_a_table(split):
    with pytest.raises(EvaluationError, match=r"their candidates differ \(full ranking against [0-9a-f]{16}\)"):
        same_ground([report(split), report(split, candidates=split.candidates)])


def test_two_draws_of_candidates_never_share_a_table(split):
    other = draw_candidates(split, 5, seed=1)
    prints = [one.fingerprint(split.train.users, split.train.items) for one in (split.candidates, other)]
    with pytest.raises(EvaluationError, match=f"{prints[0]} against {prints[1]}.*need the same draw"):
        same_ground([report(split, candidates=split.candidates), report(split, candidates=other)])


def test_two_splits_never_share_a_table_and_both_fingerprints_are_named(split):
    other = at_random(split.train, share=0.3, seed=1)
    with pytest.raises(EvaluationError, match=f"{split.fingerprint} against {other.fingerprint}.*one saved split"):
        same_ground([report(split), report(other, "other").to_dict()])


def test_seen_items_and_tie_rules_must_agree(split):
    with pytest.raises(EvaluationError, match=r"seen removed differ \(True against False\)"):
        same_ground([report(split), report(split, remove_seen=False)])
    with pytest.raises(EvaluationError, match="their ties differ"):
        same_ground([report(split), replace(report(split), ties="ties are broken at random")])


def test_reports_of_ratings_need_the_same_split(ml_100k):
    splits = [leave_one_out(ml_100k), leave_one_out(ml_100k, tie="last")]
    recipe = make_recipe("mean-rating")
    reports = [evaluate_ratings(recipe.fit(one.train), one, resamples=10) for one in splits]
    same_ground(reports[:1] * 2)
    with pytest.raises(EvaluationError, match="split differ"):
        same_ground(reports)


def test_the_line_under_a_table_names_the_fingerprints(split):
    sampled = report(split, candidates=split.candidates)
    assert ground_line(sampled) == (
        f"split {split.fingerprint}, candidates {sampled.fingerprints['candidates']}, "
        f"training rows {split.train.fingerprint.digest[:16]}"
    )
    assert "candidates" not in ground_line(report(split).to_dict())


def test_compare_measures_all_on_the_same_ground(split):
    contenders = compare(split, [Popularity(), make_recipe("item-knn")], Run(), candidates=split.candidates)
    assert {tuple(one.report.fingerprints.values()) for one in contenders} == {
        tuple(contenders[0].report.fingerprints.values())
    }
    assert contenders[1].report.value("NDCG", 10) > contenders[0].report.value("NDCG", 10)
