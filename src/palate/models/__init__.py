"""The explicit list of recipes. A new recipe is one file and one line here; the contract tests then cover it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from palate.base import Recipe
from palate.errors import RecipeError
from palate.models.bidirectional_sasrec import BidirectionalSASRec
from palate.models.bmf import BMF
from palate.models.bpr import BPR
from palate.models.ease import EASE
from palate.models.edlae import EDLAE, RecentEDLAE
from palate.models.ensemble import Ensemble
from palate.models.ials import IALS, WALS
from palate.models.item_knn import ItemKNN
from palate.models.logistic_mf import LogisticMF
from palate.models.means import MeanRating, UserItemMeans
from palate.models.mf import MF
from palate.models.neumf import GMF, MLP, NeuMF
from palate.models.popularity import Newest, Popularity, RecentPopularity
from palate.models.sasrec import SASRec
from palate.models.svdpp import SVDpp
from palate.models.two_stage import TwoStage
from palate.models.two_tower import TwoTower

__all__ = [
    "BMF",
    "BPR",
    "EASE",
    "EDLAE",
    "GMF",
    "IALS",
    "MF",
    "MLP",
    "RECIPES",
    "WALS",
    "BidirectionalSASRec",
    "Ensemble",
    "ItemKNN",
    "LogisticMF",
    "MeanRating",
    "NeuMF",
    "Newest",
    "Popularity",
    "RecentEDLAE",
    "RecentPopularity",
    "SASRec",
    "SVDpp",
    "TwoStage",
    "TwoTower",
    "UserItemMeans",
    "as_recipe",
    "make_recipe",
]

RECIPES: dict[str, type[Recipe[Any]]] = {
    recipe.name: recipe
    for recipe in (
        Popularity,
        RecentPopularity,
        Newest,
        ItemKNN,
        EASE,
        EDLAE,
        RecentEDLAE,
        IALS,
        WALS,
        BPR,
        LogisticMF,
        GMF,
        MLP,
        NeuMF,
        TwoTower,
        SASRec,
        BidirectionalSASRec,
        MeanRating,
        UserItemMeans,
        MF,
        SVDpp,
        BMF,
        Ensemble,
        TwoStage,
    )
}


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
