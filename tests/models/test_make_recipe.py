"""Recipes from names and fields, as the command line and bundles make them."""

from __future__ import annotations

import pytest

from palate.errors import RecipeError
from palate.models import make_recipe
from palate.models.neumf import MLP


def test_fields_are_converted_and_laid_over_the_preset() -> None:
    assert make_recipe("mlp", {"layers": [8, 4], "epochs": "3"}) == MLP(layers=(8, 4), epochs=3)
    assert make_recipe("mlp", fast=True) == MLP.fast()


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("mpl", {}, r"unknown recipe 'mpl': did you mean mlp\?"),
        ("mlp", {"epoch": 3}, r"no field 'epoch': it has epochs, negatives"),
        ("mlp", {"epochs": "many"}, r"field 'epochs'='many'"),
        ("mlp", {"epochs": -1}, r"recipe mlp: epochs=-1: must be at least 0"),
        ("popularity", {"dim": 3}, r"no field 'dim': it has none"),
    ],
)
def test_mistakes_say_what_there_is(name: str, fields: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_recipe(name, fields)
