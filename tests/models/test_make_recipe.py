"""Recipes from names and fields, as the command line and bundles make them."""

from __future__ import annotations

import dataclasses
import math

import pytest

from palate.errors import RecipeError
from palate.models import RECIPES, as_recipe, make_recipe
from palate.models.ials import IALS
from palate.models.neumf import MLP


def test_fields_are_converted_and_laid_over_the_preset() -> None:
    assert make_recipe("mlp", {"layers": [8, 4], "epochs": "3"}) == MLP(layers=(8, 4), epochs=3)
    assert make_recipe("mlp", fast=True) == MLP.fast()


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("mpl", {}, r"unknown recipe 'mpl': did you mean mlp\?"),
        ("mlp", {"epoch": 3}, r"no field 'epoch': it has epochs, negatives"),
        ("mlp", {"epochs": "many"}, r"field epochs='many': must be a whole number"),
        ("mlp", {"epochs": -1}, r"epochs=-1: must be at least 0"),
        ("popularity", {"dim": 3}, r"no field 'dim': it has none"),
    ],
)
def test_mistakes_say_what_there_is(name: str, fields: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_recipe(name, fields)


@pytest.mark.parametrize("name", RECIPES)
def test_every_number_of_every_recipe_has_bounds(name: str) -> None:
    recipe = RECIPES[name]()
    # A threshold of ratings may be any finite number.
    fields = {one.name for one in dataclasses.fields(recipe)} - {"min_rating", "rating_floor"}
    for field in (one for one in fields if type(getattr(recipe, one)) in (int, float)):
        for value in (math.nan, math.inf, -math.inf, -(10**30), 10**30, 1e300, "x", []):
            with pytest.raises(RecipeError, match=r"\A.*\Z"):
                make_recipe(name, {field: value})


def test_recipes_are_named_by_themselves_names_and_tables() -> None:
    assert as_recipe(MLP.fast()) == MLP.fast()
    assert as_recipe("ials") == IALS()
    assert as_recipe({"recipe": "ials", "dim": 32}) == IALS(dim=32)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (IALS, r"IALS is a class: pass IALS\(\) or IALS.fast\(\)"),
        ("eas", "did you mean ease"),
        ({"dim": 3}, "does not name its recipe"),
        (3, r"3 is not a recipe: pass one such as EASE\(\), or its name"),
    ],
)
def test_what_names_no_recipe_is_refused(wrong: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        as_recipe(wrong)


def test_a_field_inside_a_tuple_is_named_by_its_place() -> None:
    with pytest.raises(RecipeError, match=r"recipe mlp, field layers\[1\]='wide': must be a whole number"):
        MLP(layers=(8, "wide"))  # type: ignore[arg-type]
