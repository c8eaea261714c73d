"""Recipes by name, and as plain data.

``palate.models`` fills ``RECIPES``. It is a module of its own so that recipes made of other recipes can look up their
members without an import circle.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from typing import Any

from palate.base import Recipe
from palate.errors import RecipeError

RECIPES: dict[str, type[Recipe[Any]]] = {}


def make_recipe(name: str, fields: Mapping[str, Any] | None = None, *, fast: bool = False) -> Recipe[Any]:
    """The recipe of that name with some fields set, the rest at the published defaults or the fast preset.

    Args:
        name: a key of ``RECIPES``.
        fields: values by field name; text ("0.01") is converted by the type of the field.
        fast: start from the fast preset.

    Raises:
        RecipeError: unknown name, unknown field or a value out of bounds.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise RecipeError(f"unknown recipe {name!r}: {hint}there are {', '.join(RECIPES)}")
    kind, wanted = RECIPES[name], dict(fields or {})
    known = [field.name for field in dataclasses.fields(kind)]
    for field in wanted:
        if field not in known:
            raise RecipeError(f"recipe {name} has no field {field!r}: it has {', '.join(known) or 'none'}")
    made: Recipe[Any] = dataclasses.replace(kind.fast(), **wanted) if fast else kind(**wanted)
    return made


def as_recipe(recipe: Recipe[Any] | str | Mapping[str, Any] | Any) -> Recipe[Any]:
    """A recipe from whatever names one, for every function that takes recipes.

    Args:
        recipe: a recipe, a name ("ease", at its published defaults), or a table such as
            ``{"recipe": "ials", "dim": 32}``.

    Raises:
        RecipeError: it names no recipe, or a field does not fit.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, str):
        return make_recipe(recipe)
    if isinstance(recipe, Mapping):
        fields = dict(recipe)
        name = fields.pop("recipe", None)
        if isinstance(name, str):
            return make_recipe(name, fields)
        raise RecipeError(f'{dict(recipe)} does not name its recipe: add recipe = "NAME" to it')
    if isinstance(recipe, type) and issubclass(recipe, Recipe):
        raise RecipeError(f"{recipe.__name__} is a class: pass {recipe.__name__}() or {recipe.__name__}.fast()")
    raise RecipeError(f"{recipe!r} is not a recipe: pass one such as EASE(), or its name, 'ease'")


def as_table(recipe: Recipe[Any]) -> dict[str, Any]:
    """Name and all fields of a recipe as plain data, equal before and after JSON: the inverse of ``as_recipe``."""
    fields: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return {"recipe": recipe.name, **fields}
