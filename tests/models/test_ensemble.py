"""Ensemble: scores against their definition, ranks, what never changes them, fields that survive a file, new users."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.base import DataSpec, Query, TrainOptions
from palate.bundle import Bundle
from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.data.splits.strategies import at_random
from palate.errors import RecipeError
from palate.evaluation.evaluate import evaluate
from palate.models import ensemble as blend
from palate.models import make_recipe
from palate.models.ease import EASE
from palate.models.ensemble import Ensemble, EnsembleModel
from palate.models.ials import IALS
from palate.models.popularity import Popularity


class Fixed(torch.nn.Module):
    """A member with the given scores, (U, I)."""

    def __init__(self, scores: list[list[float]]) -> None:
        super().__init__()
        self.register_buffer("scores", torch.tensor(scores))

    def score(self, query: Query, items: torch.Tensor | None = None) -> torch.Tensor:
        whole = self.scores[query.user]
        return whole if items is None else whole.gather(1, items)

    def can_personalize(self, query: Query) -> torch.Tensor:
        return query.user == 0


def of(*members: list[list[float]], weights: tuple[float, ...], how: str) -> EnsembleModel:
    tables = [Fixed(scores) for scores in members]
    return EnsembleModel(tables, weights, how, DataSpec(len(members[0]), len(members[0][0])))


def test_standardised_scores_are_added_by_weight() -> None:
    first, second = [[1.0, 2.0, 3.0, 6.0]], [[100.0, 0.0, 0.0, 0.0]]
    z = [(np.array(row[0]) - np.mean(row)) / np.std(row) for row in (first, second)]
    found = of(first, second, weights=(1.0, 0.25), how="standardized").score(Query.of([0]))
    np.testing.assert_allclose(found[0], z[0] + 0.25 * z[1], rtol=1e-6)


def test_reciprocal_ranks_are_added_by_weight_and_ties_count_against_the_item() -> None:
    model = of([[0.1, 0.9, 0.5, 0.5]], [[4.0, 3.0, 2.0, 1.0]], weights=(1.0, 2.0), how="rank")
    expected = [1 / 64 + 2 / 61, 1 / 61 + 2 / 62, 1 / 63 + 2 / 63, 1 / 63 + 2 / 64]
    np.testing.assert_allclose(model.score(Query.of([0]))[0], expected, rtol=1e-6)


scores = st.lists(st.lists(st.floats(-100, 100, width=32), min_size=6, max_size=6), min_size=3, max_size=3)


@settings(deadline=None, max_examples=40)
@given(scores, scores, st.floats(0.125, 8), st.floats(-50, 50))
def test_neither_rule_sees_the_scale_of_a_member(
    first: list[list[float]], second: list[list[float]], scale: float, shift: float
) -> None:
    spread = torch.tensor(first).std(1, correction=0)
    if float(spread.min()) < 5 or not all(len(set(np.round(row, 2))) == 6 for row in first):
        return  # scores that hardly differ lose digits when they are shifted
    moved = (torch.tensor(first) * scale + shift).tolist()
    for how in ("standardized", "rank"):
        plain, other = (of(one, second, weights=(1.0, 0.5), how=how) for one in (first, moved))
        torch.testing.assert_close(
            other.score(Query.of([0, 1, 2])), plain.score(Query.of([0, 1, 2])), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("how", ["standardized", "rank"])
def test_candidates_are_the_same_numbers_in_however_many_chunks(
    how: str, ml_100k_loo: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Ensemble(("ease", "popularity"), (1.0, 0.3), how).fit(ml_100k_loo.train)
    users = np.arange(50)
    query = Query.of(users, ml_100k_loo.train.history.select(users))
    items = torch.from_numpy(np.random.default_rng(0).integers(0, ml_100k_loo.train.n_items, (50, 20)))
    with torch.inference_mode():
        whole = model.score(query)
        assert torch.equal(model.score(query, items), whole.gather(1, items))
        monkeypatch.setattr(blend, "SCORE_CELLS", 3 * ml_100k_loo.train.n_items)
        torch.testing.assert_close(model.score(query, items), whole.gather(1, items), rtol=1e-4, atol=1e-4)


def test_a_member_that_says_nothing_adds_nothing() -> None:
    flat = [[5.0, 5.0 + 1e-6, 5.0, 5.0]]
    alone = of([[1.0, 2.0, 3.0, 4.0]], weights=(1.0,), how="standardized").score(Query.of([0]))
    both = of([[1.0, 2.0, 3.0, 4.0]], flat, weights=(1.0, 1.0), how="standardized").score(Query.of([0]))
    torch.testing.assert_close(both, alone, rtol=1e-3, atol=1e-3)


def test_it_knows_whom_any_member_can_personalize() -> None:
    model = Ensemble(("popularity", "ease"), (1.0, 1.0)).build(DataSpec(3, 4))
    model.members[1].popularity.fill_(1)
    assert model.can_personalize(Query.new_users([[], [2]])).tolist() == [False, True]


def test_members_may_be_names_or_tables_and_are_kept_whole() -> None:
    made = Ensemble(("ease", {"recipe": "ials", "dim": 8}), (1.0, 2.0))
    assert made.recipes == (EASE(), IALS(dim=8))
    assert set(made.members[1]) == {"recipe", *(one.name for one in dataclasses.fields(IALS))}
    assert made == Ensemble((made.members[0], made.members[1]), (1.0, 2.0))
    assert hash(made) == hash(dataclasses.replace(made))
    read = make_recipe("ensemble", json.loads(json.dumps(dataclasses.asdict(made))))
    assert read == made
    nested = Ensemble(({"recipe": "ensemble", "members": ["ease"], "weights": [1]}, "popularity"), (1.0, 1.0))
    assert make_recipe("ensemble", json.loads(json.dumps(dataclasses.asdict(nested)))) == nested


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"members": []}, r"members=\[\]: must hold at least 1"),
        ({"members": ["ease"]}, "1 members but 2 weights"),
        ({"weights": [0, 0]}, "at least one must not be 0"),
        ({"members": ["ese", "ials"]}, "did you mean ease"),
        ({"members": [{"dim": 3}, "ials"]}, "does not name its recipe"),
        ({"members": [{"recipe": "ials", "width": 3}, "ease"]}, "recipe ials has no field 'width'"),
        ({"members": [{"recipe": "ials", "dim": 0}, "ease"]}, "dim=0: must be at least 1"),
        ({"how": "sum"}, "how"),
    ],
)
def test_mistakes_are_told(fields: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_recipe("ensemble", fields)


def test_members_that_read_different_features_are_refused(ml_100k: Dataset) -> None:
    assert ml_100k.item_features is not None
    first, second = ml_100k.item_features.columns[:2]
    towers = [{"recipe": "two-tower", "epochs": 0, "item_features": [column]} for column in (first, second)]
    with pytest.raises(RecipeError, match="read different features"):
        Ensemble(tuple(towers), (1.0, 1.0)).fit(ml_100k)


def test_a_bundle_keeps_the_features_of_a_member(ml_100k: Dataset, tmp_path) -> None:
    tower = {"recipe": "two-tower", "epochs": 0, "item_features": ["*"]}
    recipe = Ensemble((tower, "popularity"), (1.0, 0.5))
    model = recipe.fit(ml_100k)
    Bundle.of(recipe, model, ml_100k).save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle").recommender.model
    query = Query.of([0, 5], ml_100k.history.select(np.array([0, 5])))
    with torch.inference_mode():
        assert torch.equal(loaded.score(query), model.score(query))


def test_each_member_has_a_folder_of_the_run(checkerboard: Split, tmp_path) -> None:
    recipe = Ensemble(({"recipe": "gmf", "epochs": 1}, "ease", {"recipe": "gmf", "epochs": 2}), (1.0, 1.0, 1.0))
    recipe.fit(checkerboard.train, TrainOptions(folder=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-gmf", "2-gmf"]
    recipe.fit(checkerboard.train, TrainOptions(folder=tmp_path))  # and goes on from there


def test_it_does_better_than_its_members_where_the_published_system_d_does(ml_100k: Dataset) -> None:
    split = at_random(ml_100k, test_size=0.2, seed=0)
    ials = {"recipe": "ials", "dim": 32, "unobserved_weight": 0.1, "regularization": 0.02}
    ease = {"recipe": "ease", "regularization": 400}
    recall = {}
    for name, members in (("ials", (ials,)), ("ease", (ease,)), ("both", (ials, ease))):
        model = Ensemble(members, (1.0, 0.5)[: len(members)]).fit(split.train)
        recall[name] = evaluate(model, split, k=10, resamples=0).value("Recall", 10)
    assert recall["both"] > max(recall["ials"], recall["ease"])


def test_one_member_alone_ranks_as_it_does_by_itself(ml_100k_loo: Split) -> None:
    alone = evaluate(Popularity().fit(ml_100k_loo.train), ml_100k_loo, resamples=0)
    for how in ("standardized", "rank"):
        blended = evaluate(Ensemble(("popularity",), (2.0,), how).fit(ml_100k_loo.train), ml_100k_loo, resamples=0)
        assert blended.value("NDCG", 10) == pytest.approx(alone.value("NDCG", 10), abs=1e-9)
