"""Recipes by name and from TOML, and the baselines that the data allow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from palate.data.ids import IdMap
from palate.errors import RecipeError
from palate.evaluation.evaluate import validation_callback
from palate.experiment import CompareOptions, baselines, read_entries
from palate.experiment.baselines import EASE_ITEMS, FORMS, GRIDS, as_plain, beyond, from_plain, left_out
from palate.experiment.budget import UNLIMITED
from palate.experiment.compare import choose_setting
from palate.experiment.validation import validation_split
from palate.models import RECIPES, make_recipe
from palate.progress import silent


def test_names_are_presets_and_files_set_fields(tmp_path):
    (tmp_path / "mine.toml").write_text('recipe = "gmf"\nepochs = 7\n')
    fast, mine = read_entries(["gmf", str(tmp_path / "mine.toml")])
    assert (fast.name, fast.recipe) == ("gmf", RECIPES["gmf"].fast())
    assert (mine.name, mine.recipe) == ("gmf (mine)", replace(RECIPES["gmf"].fast(), epochs=7))
    assert read_entries(["gmf"], published=True)[0].recipe == RECIPES["gmf"]()


@pytest.mark.parametrize(
    ("text", "said"),
    [("epochs = 7", "names no recipe"), ("= 3", "cannot be read as TOML"), ('recipe = "gmf"\nepoch = 3', "'epoch'")],
)
def test_a_bad_file_is_told(tmp_path, text, said):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(RecipeError, match=said):
        read_entries([str(tmp_path / "bad.toml")])


def test_an_unknown_name_is_an_error_and_a_double_one_is_one_entry(tmp_path):
    with pytest.raises(RecipeError, match="did you mean gmf"):
        read_entries(["gfm"])
    assert [one.name for one in read_entries(["gmf", "ease", "gmf"])] == ["gmf", "ease"]
    with pytest.raises(RecipeError, match=r"none\.toml cannot be read"):
        read_entries([str(tmp_path / "none.toml")])


def test_every_grid_is_of_a_real_recipe_and_its_fields():
    for name, axes in GRIDS.items():
        for field, values in axes.items():
            for value in values:
                assert getattr(make_recipe(FORMS.get(name, name), {field: value}), field) == value


def test_a_grid_whose_best_setting_is_at_its_edge_grows(ml_100k_loo):
    grid = [make_recipe("ease", {"regularization": value}) for value in (5, 20)]
    best, words = choose_setting(ml_100k_loo, grid, CompareOptions(), UNLIMITED, silent)
    assert best.regularization >= 80
    assert "beyond the edges of the grid) on validation rows" in words


def test_a_grid_goes_on_beyond_the_edges_that_its_best_setting_lies_on():
    grid = [make_recipe("ease", {"regularization": one}) for one in (50, 100, 400)]
    assert beyond(grid[1], grid) == []
    assert [one.regularization for one in beyond(grid[2], grid)] == [1600]
    assert [one.regularization for one in beyond(grid[0], grid)] == [25]
    knn = [make_recipe("item-knn", {"neighbors": n, "shrinkage": s}) for n in (20, 100) for s in (0, 10)]
    # Both fields are at an edge, but nothing lies below a shrinkage of 0.
    assert [(one.neighbors, one.shrinkage) for one in beyond(knn[2], knn)] == [(500, 0)]


def test_the_grid_of_ials_surrounds_the_values_that_the_data_choose(checkerboard):
    grid = next(one.grid for one in baselines(checkerboard.train) if one.name == "ials (tuned)")
    assert len(grid) == 9
    middle = make_recipe("ials", fast=True).for_data(checkerboard.train)
    assert min(one.unobserved_weight for one in grid) < middle.unobserved_weight
    assert max(one.regularization for one in grid) > middle.regularization


def test_baselines_are_what_the_data_allow(checkerboard):
    train = checkerboard.train
    names = [one.name for one in baselines(train)]
    tuned = ("recent-popularity", "item-knn", "ease", "recent-ease", "ials", "recent-ials")
    assert names == ["popularity", *(f"{n} (tuned)" for n in tuned)]
    assert all(one.role == "baseline" for one in baselines(train))
    assert not left_out(train)
    timeless = train.with_rows(replace(train.interactions, time=None))
    assert "recent-popularity (tuned)" not in [one.name for one in baselines(timeless)]
    recent = ("recent-popularity", "recent-ease", "recent-ials")
    assert left_out(timeless) == [f"The baseline {name} is left out: the rows have no time." for name in recent]
    wide = replace(train, items=IdMap.of(np.arange(EASE_ITEMS + 1)))
    assert "ease (tuned)" not in [one.name for one in baselines(wide)]
    assert "sparse-ease (tuned)" in [one.name for one in baselines(wide)]
    assert "8,001 items would take 0.8 GB" in left_out(wide)[0]


def test_a_baseline_that_is_named_anyway_stands_once(checkerboard):
    known = read_entries(["popularity", "ease"])
    names = [one.name for one in baselines(checkerboard.train, known)]
    assert "popularity" not in names
    assert "ease (tuned)" in names  # other settings than the fast preset


def test_a_recipe_survives_json():
    recipe = make_recipe("neumf", {"layers": [8, 4]})
    assert from_plain(as_plain(recipe)) == recipe


def test_tuning_takes_the_best_on_validation_rows_and_says_so(ml_100k_loo):
    grid = [make_recipe("ease", {"regularization": value}) for value in (0.5, 300, 1e6)]
    best, words = choose_setting(ml_100k_loo, grid, CompareOptions(), UNLIMITED, silent)
    inner = validation_split(ml_100k_loo)
    values = [validation_callback(inner)(one.fit(inner.train)) for one in grid]
    assert best == grid[int(np.argmax(values))] == grid[1]
    assert words.startswith(f"regularization=300: best NDCG@10 ({max(values):.4f}) of 3 settings on validation rows")


def test_a_setting_that_fails_is_passed_over(checkerboard):
    grid = [make_recipe("ease", {"max_items": 1}), make_recipe("ease")]
    best, words = choose_setting(checkerboard, grid, CompareOptions(), UNLIMITED, silent)
    assert best == grid[1]
    assert "1 settings could not be fitted: 40 items exceed max_items=1" in words
    with pytest.raises(RecipeError, match="none of 1 settings of ease could be fitted"):
        choose_setting(checkerboard, grid[:1], CompareOptions(), UNLIMITED, silent)
