"""Weights by recency: the formula, and that users lean on their latest events while items learn from all."""

import numpy as np
import pytest
import torch

from palate.base import Query
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.models.dot_product import Recency
from palate.models.ials import IALS
from palate.models.sampled_mf import LogisticMF

RECIPES = (
    IALS(dim=4, half_life_events=1, floor=0.01),
    IALS(dim=4, weighting="linear", half_life_events=1, floor=0.01),
    LogisticMF(dim=4, epochs=30, batch_users=4, half_life_events=1, floor=0.01),
)


def movers(n: int = 24) -> Dataset:
    """Even users touched even items only and odd users odd ones; all of them went over to the other side at the end."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(n):
        mine, other = np.arange(user % 2, 20, 2), np.arange(1 - user % 2, 20, 2)
        rows += [(user, item) for item in rng.choice(mine, 7, replace=False)] if user < 4 else []
        steady = mine if user >= 4 else other
        rows += [(user, item) for item in rng.choice(steady, 3 if user < 4 else 9, replace=False)]
    user, item = np.array(rows, np.int32).T
    maps = IdMap.of(np.arange(n)), IdMap.of(np.arange(20))
    weight, time = np.ones(len(rows), np.float32), np.arange(len(rows), dtype=np.float64)
    return Dataset("movers", *maps, Interactions(user, item, weight, time))


def test_an_event_counts_half_after_so_many_others_and_never_less_than_the_floor():
    weights = Recency(half_life_events=2, floor=0.2).weights(torch.tensor([3, 3, 8, 9]))
    decay = [0.5**2, 0.5**1.5, 0.5**1, 0.5**0.5, 1.0]
    torch.testing.assert_close(weights, torch.tensor([0.2 + 0.8 * x for x in [*decay, 1.0]]))
    torch.testing.assert_close(Recency().weights(torch.tensor([0, 2, 5])), torch.ones(5))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.name}-{getattr(recipe, 'weighting', '')}")
def test_who_moved_on_is_ranked_by_where_they_are_now(recipe):
    data = movers()
    now, evenly = recipe.fit(data), type(recipe)(**{**vars(recipe), "half_life_events": None}).fit(data)
    moved = torch.arange(4)
    sides = {}
    for label, model in (("now", now), ("evenly", evenly)):
        scores_BI = model.score(Query(moved))
        other = torch.stack([scores_BI[u, 1 - u % 2 :: 2].mean() for u in range(4)])
        mine = torch.stack([scores_BI[u, u % 2 :: 2].mean() for u in range(4)])
        sides[label] = other - mine
    assert (sides["evenly"] < 0).all()
    assert (sides["now"] > sides["evenly"]).all()
    assert isinstance(recipe, LogisticMF) or (sides["now"] > 0).all()  # its prior knows of two kinds of users only


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.name}-{getattr(recipe, 'weighting', '')}")
def test_a_new_user_with_a_users_history_is_that_user(recipe):
    data = movers()
    model = recipe.fit(data)
    users = np.arange(data.n_users)
    new_users = Query.of(np.full(len(users), -1), data.history.select(users))
    torch.testing.assert_close(model.score(new_users), model.score(Query.of(users)), rtol=1e-4, atol=1e-4)
