"""Reasons: exact ones add up to the score, left-out ones are changes of it, and what is named is what counts."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import palate.recommend.attribution
from boards import make_checkerboard
from palate.base import Query, TrainOptions
from palate.data.dataset import Dataset, History
from palate.models import RECIPES, make_recipe
from palate.recommend.attribution import Explainer, effects, method

EXACT = {
    "item-knn": {"neighbors": 7},
    "ease": {"half_life_events": 3.0, "floor": 0.1},
    "edlae": {},
    "recent-edlae": {},
    "ials": {"dim": 8, "half_life_events": 4.0, "weighting": "linear"},
    "wals": {"dim": 4},
}


@cache
def board() -> Dataset:
    return make_checkerboard(rated=True).train


@cache
def fitted(name: str, **fields: Any) -> Any:
    """The recipe with enough optimizer steps for a small board, and some fields."""
    wished = {"epochs": 10, "batch_size": 128, "learning_rate": 0.02, "dim": 8}
    recipe = make_recipe(name, fast=True)
    has = {field.name for field in dataclasses.fields(recipe)}  # type: ignore[arg-type]
    chosen = {**{key: value for key, value in wished.items() if key in has}, **fields}
    return dataclasses.replace(recipe, **chosen).fit(board(), TrainOptions(seed=3, threads=1)).eval()  # type: ignore[type-var]


def new_users(histories: list[list[tuple[int, float]]], timed: bool = False) -> Query:
    """A query for histories of (item, weight)."""
    events = [event for history in histories for event in history]
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    items, weights = np.array(events, np.float64).reshape(-1, 2).T
    times = 1e9 + np.arange(len(items), dtype=np.float64) * 10 if timed else None
    return Query.of(
        np.full(len(histories), -1), History(offsets, items.astype(np.int32), weights.astype(np.float32), times)
    )


def score(model: Any, query: Query, items: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.score(query, items)


EVENT = st.tuples(st.integers(0, 39), st.sampled_from([-1.0, 1.0, 2.0, 5.0]))


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=25, deadline=None)
@given(histories=st.lists(st.lists(EVENT, max_size=12), min_size=1, max_size=4), timed=st.booleans())
def test_exact_contributions_and_the_rest_add_up_to_the_score(name, histories, timed):
    model, query = fitted(name, **EXACT[name]), new_users(histories, timed)
    items = torch.arange(40).expand(len(query), -1)
    event_HC, rest_BC = model.contributions(query, items)
    owner_H = torch.repeat_interleave(torch.arange(len(query)), query.counts())
    total_BC = rest_BC.index_add(0, owner_H, event_HC)
    torch.testing.assert_close(total_BC, score(model, query, items), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EXACT)
def test_without_any_history_the_rest_is_the_whole_score(name):
    model, items = fitted(name, **EXACT[name]), torch.tensor([[3, 5], [0, 39]])
    event_HC, rest_BC = model.contributions(Query.of([-1, -1]), items)
    assert event_HC.shape == (0, 2)
    assert torch.equal(rest_BC, score(model, Query.of([-1, -1]), items))


def test_the_models_that_can_be_exact_are_and_the_others_are_asked_again():
    exact = {name for name in RECIPES if name in EXACT or name in ("bpr", "sasrec", "ensemble", "mf")}
    told = {name: method(fitted(name, **EXACT.get(name, {}))) for name in exact}
    assert {name for name, how in told.items() if how == "exact"} == set(EXACT)
    assert set(told.values()) == {"exact", "leave-one-out"}


def without(history: list[tuple[int, float]], *items: int) -> list[tuple[int, float]]:
    return [event for event in history if event[0] not in items]


@pytest.mark.parametrize("bound", [500_000, 7])
@pytest.mark.parametrize("name", ["mf", "sasrec", "ensemble"])
def test_leaving_an_item_out_is_asking_without_all_of_its_events(name, bound, monkeypatch):
    monkeypatch.setattr(palate.recommend.attribution, "LEFT_OUT_EVENTS", bound)
    model = fitted(name)
    histories = [[(0, 5.0), (3, 1.0), (2, 5.0), (0, 4.0), (8, 5.0)], [], [(1, 5.0), (7, 5.0)]]
    items = torch.tensor([[4, 5, 6], [1, 2, 3], [4, 11, 13]])
    found = effects(model, new_users(histories), items)
    assert list(zip(found.owner.tolist(), found.item.tolist(), strict=True)) == [
        (0, 3), (0, 2), (0, 0), (0, 8), (2, 1), (2, 7),
    ]  # fmt: skip
    assert found.weight.tolist() == [1, 5, 4, 5, 5, 5]
    for owner, item, effect_C in zip(found.owner.tolist(), found.item.tolist(), found.effect, strict=True):
        asked = items[owner][None]
        left = score(model, new_users([without(histories[owner], item)]), asked)
        whole = score(model, new_users([histories[owner]]), asked)
        torch.testing.assert_close(effect_C, (whole - left)[0], rtol=1e-3, atol=1e-4)


def test_of_a_long_history_the_latest_items_are_tested_and_the_others_counted():
    histories = [[(item, 5.0) for item in range(9)], [(item, 5.0) for item in range(20, 22)]]
    found = effects(fitted("mf"), new_users(histories), torch.tensor([[30], [31]]), longest=3)
    assert found.item.tolist() == [6, 7, 8, 20, 21]
    assert found.untested.tolist() == [6, 0]


def personal(name: str) -> bool:
    return bool(fitted(name).can_personalize(new_users([[(0, 5.0), (2, 5.0)]])).all())


@pytest.mark.parametrize("name", RECIPES)
def test_taking_the_named_items_out_costs_more_than_taking_out_as_many_others(name):
    """Tastes are mixed, half even and half odd, so some of a history supports an item and some does not."""
    if not personal(name):
        pytest.skip(f"{name} is not personal: its reason is that everybody likes it")
    model, rng = fitted(name, **EXACT.get(name, {})), np.random.default_rng(1)
    histories, listed = [], []
    for _ in range(6):
        even, odd = 2 * rng.permutation(20), 2 * rng.permutation(20) + 1
        histories.append([(int(item), 5.0) for item in rng.permutation(np.concatenate([even[:6], odd[:6]]))])
        listed.append([int(even[6]), int(odd[6])])
    who, item = np.repeat(np.arange(6), 2), np.array(listed).reshape(-1)
    because = Explainer(model, board().items, board().history).because(
        new_users(histories), who, item, np.ones(6, bool)
    )["because"]
    gains = []
    for user, one, reasons in zip(who, item, because.to_list(), strict=True):
        named = [reason["item_id"] for reason in reasons]
        others = [event[0] for event in without(histories[user], *named)]
        lost = [without(histories[user], *named)]
        lost += [without(histories[user], *rng.choice(others, len(named), replace=False)) for _ in range(4)]
        asked = torch.full((6, 1), int(one))
        scores = score(model, new_users([histories[user], *lost]), asked)[:, 0].double().numpy()
        if named:  # some items are not supported by anything
            gains.append((scores[0] - scores[1]) - (scores[0] - scores[2:]).mean())
    assert len(gains) >= 6
    assert np.mean(np.array(gains) > 0) >= 0.75, gains
    assert np.mean(gains) > 2 * np.std(gains) / np.sqrt(len(gains)), gains


def explainer(name: str = "ease", titles: bool = False) -> Explainer:
    train = board()
    named = pl.Series([f"Thing {row}" for row in range(40)]) if titles else None
    return Explainer(fitted(name), train.items, train.history, named)


def test_rows_may_come_in_any_order_and_in_any_number():
    histories = [[(item, 5.0) for item in (0, 2, 4, 1)], [(1, 5.0), (3, 5.0), (0, 1.0)], [(5, 5.0)]]
    who, item = np.array([1, 0, 1, 0, 1]), np.array([7, 8, 9, 10, 11])
    told = explainer().because(new_users(histories), who, item, np.ones(3, bool), top=2)
    assert told.columns == ["because", "why"]
    for user, one, row in zip(who, item, told.iter_rows(named=True), strict=True):
        alone = explainer().because(
            new_users([histories[user]]), np.zeros(1, int), np.array([one]), np.ones(1, bool), 2
        )
        assert row["why"] == alone["why"][0]
        assert row["because"] == alone["because"].to_list()[0]
        shares = [reason["share"] for reason in row["because"]]
        assert 1 <= len(shares) <= 2
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1 + 1e-9
        assert {reason["item_id"] for reason in row["because"]} <= {event[0] for event in histories[user]}


def test_reasons_are_told_in_words_with_titles():
    # To a model of ratings a low rating or a dislike of an odd item speaks for an even one.
    query, even = new_users([[(0, 5.0), (1, 1.0), (3, -1.0), (5, 5.0)]]), np.array([6])
    told = explainer("wals", titles=True).because(query, np.zeros(1, int), even, np.ones(1, bool)).to_dicts()[0]
    reasons = {reason["title"]: round(100 * reason["share"]) for reason in told["because"]}
    assert sum(reasons.values()) in (99, 100, 101)
    assert told["why"].startswith("because you ")
    verbs = {"Thing 0": "liked", "Thing 1": "had", "Thing 3": "disliked"}
    assert set(reasons) == set(verbs)
    for title, verb in verbs.items():
        assert f"{verb} {title} ({reasons[title]} %)" in told["why"]


def test_who_is_not_known_is_told_how_popular_the_item_is():
    query = new_users([[], [(0, 5.0)]])
    told = explainer().because(query, np.array([0, 1, 0]), np.array([3, 4, 3]), np.array([False, True, False]))
    had = len({int(user) for user in board().interactions.user[board().interactions.item == 3]})
    assert told["why"][0] == told["why"][2] == f"popular: {had} of 40 users had it"
    assert told["why"][1].startswith("because you liked 0 (100 %)")
    assert told["because"].to_list()[0] == []
    one = board().history.select(np.array([1]))
    unseen = next(item for item in range(40) if item not in one.items)
    told = dataclasses.replace(explainer(), seen=one).because(
        query, np.array([0, 0]), np.array([unseen, one.items[0]]), np.zeros(2, bool)
    )
    assert told["why"].to_list() == ["new: no user had it yet", "popular: 1 of 1 users had it"]


def test_nobody_asked_and_nothing_raised_are_answers_too():
    none = np.zeros(0, np.int64)
    assert explainer().because(new_users([[(0, 5.0)]]), none, none, np.ones(1, bool)).height == 0
    # An item of the other kind, which the whole history speaks against.
    against = explainer("wals").because(new_users([[(0, 5.0)]]), np.zeros(1, int), np.array([5]), np.ones(1, bool))
    assert against["because"].to_list() == [[]]
    assert "as a whole" in against["why"][0]
    profile = explainer().because(Query.of([0]), np.zeros(1, int), np.array([5]), np.ones(1, bool))
    assert "profile" in profile["why"][0]


@pytest.mark.parametrize("name", ["ials", "mf"])
def test_an_explanation_holds_both_sides(name):
    query = new_users([[(0, 5.0), (2, 5.0), (1, 5.0), (3, 5.0), (4, 5.0)]])
    told = explainer(name).explain(query, 6)
    assert told.effects["effect"].is_sorted(descending=True)
    support = told.effects.filter(pl.col("effect") > 0)
    assert {0, 2, 4} <= set(support["item_id"])
    assert support["share"].sum() == pytest.approx(1)
    assert told.effects.filter(pl.col("effect") <= 0)["share"].null_count() == told.effects.height - support.height
    assert told.score == pytest.approx(float(score(fitted(name), query, torch.tensor([[6]]))))
    if name == "ials":
        assert told.method == "exact"
        assert told.rest == pytest.approx(0, abs=1e-5)
    else:
        assert told.method == "leave-one-out"
        assert told.rest is None


def test_earlier_films_of_a_series_support_the_next_one(ml_100k):
    model = make_recipe("ease").fit(ml_100k, TrainOptions(threads=1))
    series, others, third = [50, 172], [289, 367], [181]  # two parts, two films of another kind, the third part
    query = new_users([[(row, 5.0) for row in ml_100k.items.rows(series + others).tolist()]])
    (told,) = (
        Explainer(model, ml_100k.items, ml_100k.history, ml_100k.titles)
        .because(query, np.zeros(1, int), ml_100k.items.rows(third), np.ones(1, bool), top=2)
        .to_dicts()
    )
    assert {reason["title"] for reason in told["because"]} == set(ml_100k.titles[ml_100k.items.rows(series)])
    assert "because you liked" in told["why"]
