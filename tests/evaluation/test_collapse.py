"""Models that have collapsed are noticed, and good ones are not."""

from __future__ import annotations

import numpy as np
import pytest

from boards import Fixed
from palate.data.splits.split import Split
from palate.data.splits.strategies import at_random
from palate.evaluation.collapse import collapse
from palate.models import EASE, IALS, ItemKNN, Popularity
from worlds import World


@pytest.fixture(scope="module")
def wide() -> Split:
    return at_random(World(300, 900, events=20).dataset(), test_size=0.2, cold="drop")


def scores(split: Split) -> np.ndarray:
    """The same scores for all users."""
    popular = np.bincount(split.train.interactions.item, minlength=split.train.n_items).astype(np.float32)
    return np.tile(popular + np.random.default_rng(0).random(len(popular)).astype(np.float32), (split.train.n_users, 1))


@pytest.mark.parametrize("recipe", [Popularity(), IALS.fast(), EASE(), ItemKNN()], ids=lambda one: one.name)
def test_nothing_is_said_about_models_that_work(wide: Split, recipe) -> None:
    assert collapse(recipe.fit(wide.train), wide.train, wide) == []


def test_lists_that_are_all_alike(wide: Split) -> None:
    (said,) = collapse(Fixed(scores(wide)), wide.train, wide)
    assert said.startswith("All 200 users looked at get the same 10 items")


def test_lists_that_hardly_differ_cover_less_than_chance(wide: Split) -> None:
    table = scores(wide)
    rng = np.random.default_rng(1)
    best = np.argsort(-table[0])[:30]
    table[:, best] += rng.random((len(table), 30)) * 30
    said = collapse(Fixed(table), wide.train)
    assert any("different items, where random lists would hold" in one for one in said)


def test_scores_that_are_no_numbers_or_all_equal(wide: Split) -> None:
    table = scores(wide)
    table[::2, 7] = np.nan
    assert "are not finite numbers" in collapse(Fixed(table), wide.train)[0]
    said = collapse(Fixed(np.ones_like(table)), wide.train)
    assert "have one and the same score" in said[0]


def test_worse_than_popularity_on_held_out_rows(wide: Split) -> None:
    table = np.random.default_rng(0).random((wide.train.n_users, wide.train.n_items))
    (said,) = collapse(Fixed(table), wide.train, wide)
    assert "below that of popularity" in said
    assert collapse(Fixed(table), wide.train) == []


def test_ials_with_the_strength_of_another_catalog_is_noticed(wide: Split) -> None:
    model = IALS(unobserved_weight=1.0, regularization=0.2).fit(wide.train)
    assert collapse(model, wide.train, wide)


def test_few_users_and_no_rows(wide: Split) -> None:
    rows = wide.train.interactions
    few = wide.train.with_rows(rows.take(np.flatnonzero(rows.user < 5)))
    assert collapse(Fixed(scores(wide)), few) == []
    empty = wide.train.with_rows(rows.take(np.flatnonzero(rows.user < 0)))
    assert collapse(Fixed(scores(wide)), empty) == []
