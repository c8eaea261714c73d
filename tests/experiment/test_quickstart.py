"""Quickstart: the recipes that a budget allows, the fallback where one fails, and the result in words."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest

import palate
from palate.base import TrainOptions
from palate.data.feedback import Feedback
from palate.errors import RecipeError
from palate.experiment import (
    Wording,
    hold_out,
    plan_quickstart,
    quickstart,
    rank_on_validation,
    summarize,
    usual_recipes,
    wording,
)
from palate.experiment.quickstart import sampled_users
from palate.models.ease import EASE
from palate.models.popularity import Popularity

CHEAP = 0.7  # minutes that suffice for all but recipes trained by gradients


def world(users: int = 60, items: int = 40, events: int = 8, tastes: int = 4, times: bool = True, seed: int = 0) -> Any:
    """Users who take items of one kind; with one kind there is no taste to find."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), events)
    item = rng.integers(0, items // tastes, len(user)) * tastes + user % tastes
    rows = pl.DataFrame({"user_id": user, "item_id": item, "timestamp": 1_600_000_000 + 3_600 * np.arange(len(user))})
    rows = rows.sample(fraction=1, shuffle=True, seed=seed).with_columns(timestamp=rows["timestamp"])
    return palate.from_frame(rows if times else rows.drop("timestamp"))


def names(dataset: palate.Dataset, minutes: float = 3.0) -> list[str]:
    return [one.name for one in plan_quickstart(dataset, minutes).recipes]


class Wide:
    """A data set by its numbers alone: plans read no more, and rows of that size would take minutes to make."""

    def __init__(self, rows: int, users: int, items: int) -> None:
        self.n_users, self.n_items, self.rows = users, items, rows
        self.interactions = palate.Interactions(
            np.resize(np.arange(users, dtype=np.int32), rows), np.zeros(rows, np.int32),
            np.broadcast_to(np.float32(1), rows), np.broadcast_to(0.0, rows),
        )  # fmt: skip

    def __len__(self) -> int:
        return self.rows


def test_popularity_comes_first_and_order_and_time_recipes_need_times():
    with_times, without = names(world()), names(world(times=False))
    assert with_times[0] == without[0] == "popularity"
    assert {"sasrec", "recent-edlae", "recent-popularity"} <= set(with_times)
    assert not {"sasrec", "recent-edlae", "recent-popularity"} & set(without)
    left = plan_quickstart(world(times=False)).left_out
    assert "sasrec is left out: the rows have no times." in left


def test_a_comparison_without_names_has_the_models_that_suit_the_rows():
    def usual(dataset: Any) -> list[str]:
        return [one.name for one in usual_recipes(dataset)]

    assert usual(world()) == ["sasrec", "neumf"]
    assert usual(world(times=False)) == ["neumf"]
    shelf = pl.DataFrame({"item_id": range(40), "kind": ["a", "b"] * 20})
    rows = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 3]})
    assert usual(palate.from_frame(rows, item_features=shelf)) == ["two-tower", "neumf"]
    wide = Wide(300_000, 20_000, 30_000)
    wide.item_features = None
    assert usual(wide) == ["sasrec", "two-tower", "gf-cf"]
    (long, *_) = usual_recipes(world(), published=True)
    assert long == palate.make_recipe("sasrec")


def test_recipes_are_chosen_by_estimated_cost_and_the_line_names_a_budget_that_includes_them():
    data: Any = Wide(5_000_000, 100_000, 4_000)
    plan = plan_quickstart(data, 3)
    (line,) = [one for one in plan.left_out if one.startswith("sasrec")]
    minutes = float(line.split("--minutes ")[1].split()[0])
    assert "sasrec" not in names(data, 3)
    assert "sasrec" in names(data, 20 * minutes)
    assert names(data, 0.001) == ["popularity"]
    with pytest.raises(RecipeError, match="above 0"):
        plan_quickstart(data, 0)


def test_a_larger_budget_never_loses_a_recipe_and_wide_catalogs_get_two_towers():
    data: Any = Wide(300_000, 20_000, 30_000)
    budgets = [set(names(data, minutes)) for minutes in (1, 3, 10, 100)]
    assert all(less <= more for less, more in pairwise(budgets))
    assert "two-tower" in budgets[-1]
    assert "ease" not in budgets[-1]


def test_a_model_beats_popularity_and_the_sentence_is_certain():
    found = quickstart(world(users=200), minutes=CHEAP, options=TrainOptions(threads=1))
    assert found.recipe.name != "popularity"
    assert len(found.sentences) == 1
    assert found.sentences[0].startswith(f"{found.recipe.name} puts one of the items a user really took next into the")
    assert found.sentences[0].endswith("(difference certain).")
    assert found.validation[found.recipe.name] == max(found.validation.values())
    assert not found.failed


def test_without_a_taste_the_causes_are_told():
    found = quickstart(world(users=40, items=12, events=3, tastes=1), minutes=CHEAP, options=TrainOptions(threads=1))
    text = " ".join(found.sentences)
    assert "certain)." in text or "put one of the items" in text
    assert "Possible causes:" in text
    assert "few events per user" in text
    assert "few items (12)" in text


def test_the_next_best_is_saved_where_the_best_one_fails_on_all_rows(monkeypatch):
    data = world(users=100)
    recipes = plan_quickstart(data, CHEAP).recipes
    values = rank_on_validation(recipes, hold_out(data), TrainOptions(threads=1), {})
    best = max(values, key=lambda name: values[name])
    kind = next(type(one) for one in recipes if one.name == best)
    fit = kind._fit

    def fails_on_all(self: Any, train: palate.Dataset, options: TrainOptions) -> Any:
        if len(train) == len(data):
            raise RecipeError("the crawler has had every item")
        return fit(self, train, options)

    monkeypatch.setattr(kind, "_fit", fails_on_all)
    found = quickstart(data, minutes=CHEAP, options=TrainOptions(threads=1))
    assert found.failed == {best: "the crawler has had every item"}
    assert found.recipe.name != best
    assert found.found.report(found.recipe.name).users
    assert found.sentences


def test_popularity_is_the_last_resort(monkeypatch):
    def fails(self: Any, train: palate.Dataset, options: TrainOptions) -> Any:
        raise RuntimeError("out of memory")

    data = world()
    for one in plan_quickstart(data, CHEAP).recipes:
        if one.name != "popularity":
            monkeypatch.setattr(type(one), "_fit", fails)
    found = quickstart(data, minutes=CHEAP, options=TrainOptions(threads=1))
    assert found.recipe == Popularity()
    assert set(found.failed.values()) == {"out of memory"}


def test_rows_that_cannot_be_held_out_give_popularity_and_say_so():
    rows = pl.DataFrame({"user_id": range(5), "item_id": [1, 1, 2, 3, 3], "timestamp": range(5)})
    found = quickstart(palate.from_frame(rows.with_columns(timestamp=pl.col("timestamp") + 1_600_000_000)))
    assert (found.recipe.name, found.found, found.validation) == ("popularity", None, {})
    assert found.sentences[0].startswith("Nothing could be measured")


def test_the_same_seed_gives_the_same_choice_and_the_same_numbers():
    first, second = (quickstart(world(), minutes=CHEAP, options=TrainOptions(seed=3, threads=1)) for _ in range(2))
    assert first.validation == second.validation
    assert first.sentences == second.sentences


def test_words_follow_the_columns_and_the_kind_of_feedback():
    data = world()
    plays = replace(
        data, feedback=Feedback("quantity", None, "playcount"), columns="columns: user=Customer-ID item=sku"
    )
    assert wording(plays) == Wording("customer", "played")
    stars = replace(data, feedback=Feedback("rating", 4.0, "stars"), columns="columns: user=uid item=sku")
    assert wording(stars) == Wording("user", "rated 4 or more")
    assert wording(replace(data, feedback=Feedback("rating", None, "stars"))) == Wording("user", "rated")
    assert wording(replace(data, columns="columns: user=reader item=book")).users == "readers"


def test_small_shares_are_told_per_thousand_and_an_uncertain_lead_is_called_so():
    split = palate.at_random(world(users=30, tastes=1), test_size=0.2)
    found = palate.compare(split, [Popularity(), EASE()])
    text = summarize(found, "ease")
    assert "next" not in text[0].split("into the top")[0] or split.train.interactions.time is not None
    assert "not certain" in text[0]
    assert text[-1].startswith("Possible causes: few users could be measured")


def test_test_rows_of_a_drawn_part_of_the_users_are_measured_and_the_note_counts_the_others():
    split = palate.at_random(world(users=200), test_size=0.2)
    part = sampled_users(split, 50, seed=0)
    assert len(part.test_users) == 50
    assert set(part.test_users) <= set(split.test_users)
    assert part.notes[-1].rows == len(split.test) - len(part.test)
    assert sampled_users(split, 1_000, seed=0) is split
