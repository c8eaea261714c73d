"""Recipes by name and from TOML, and the baselines that the data allow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from palate.data.ids import IdMap
from palate.errors import RecipeError
from palate.evaluation.evaluate import validation_callback
from palate.experiment import CompareOptions, baselines, read_entries
from palate.experiment.baselines import EASE_ITEMS, GRIDS, as_plain, from_plain, left_out
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


def test_unknown_and_double_names_are_told(tmp_path):
    with pytest.raises(RecipeError, match="did you mean gmf"):
        read_entries(["gfm"])
    with pytest.raises(RecipeError, match="gmf stands twice"):
        read_entries(["gmf", "gmf"])
    with pytest.raises(RecipeError, match=r"none\.toml cannot be read"):
        read_entries([str(tmp_path / "none.toml")])


def test_every_grid_is_of_a_real_recipe_and_its_fields():
    for name, axes in GRIDS.items():
        for field, values in axes.items():
            for value in values:
                assert getattr(make_recipe(name, {field: value}), field) == value


def test_baselines_are_what_the_data_allow(checkerboard):
    train = checkerboard.train
    names = [one.name for one in baselines(train)]
    assert names == ["popularity", *(f"{n} (tuned)" for n in ("recent-popularity", "item-knn", "ease", "ials"))]
    assert all(one.role == "baseline" for one in baselines(train))
    assert not left_out(train)
    timeless = train.with_rows(replace(train.interactions, time=None))
    assert "recent-popularity (tuned)" not in [one.name for one in baselines(timeless)]
    assert left_out(timeless) == ["The baseline recent-popularity is left out: the rows have no time."]
    wide = replace(train, items=IdMap.of(np.arange(EASE_ITEMS + 1)))
    assert "ease (tuned)" not in [one.name for one in baselines(wide)]
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
    best, words = choose_setting(ml_100k_loo, grid, CompareOptions(), silent)
    inner = validation_split(ml_100k_loo)
    values = [validation_callback(inner)(one.fit(inner.train)) for one in grid]
    assert best == grid[int(np.argmax(values))] == grid[1]
    assert words.startswith(f"regularization=300: best NDCG@10 ({max(values):.4f}) of 3 settings on validation rows")


def test_a_setting_that_fails_is_passed_over(checkerboard):
    grid = [make_recipe("ease", {"max_items": 1}), make_recipe("ease")]
    best, words = choose_setting(checkerboard, grid, CompareOptions(), silent)
    assert best == grid[1]
    assert "1 settings could not be fitted: 40 items exceed max_items=1" in words
    with pytest.raises(RecipeError, match="none of 1 settings of ease could be fitted"):
        choose_setting(checkerboard, grid[:1], CompareOptions(), silent)
