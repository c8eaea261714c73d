"""The explicit list of recipes. A new recipe is one file and one line here; the contract tests then cover it."""

from __future__ import annotations

import dataclasses
import difflib
import json
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
from palate.models.newest import Newest
from palate.models.popularity import Popularity
from palate.models.recent_popularity import RecentPopularity
from palate.models.sasrec import SASRec
from palate.models.svdpp import SVDpp
from palate.models.two_stage import TwoStage
from palate.models.two_tower import TwoTower

__all__ = ["RECIPES", "make_recipe"]

RECIPES: dict[str, type[Any]] = {
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

    Values may be JSON or text ("0.01", "[64, 32]"): they are checked and converted by the type of the field.

    Raises:
        RecipeError: unknown name, unknown field or a value that does not fit.
    """
    from pydantic import TypeAdapter, ValidationError

    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise RecipeError(f"unknown recipe {name!r}: {hint}there are {', '.join(RECIPES)}")
    kind = RECIPES[name]
    start = kind.fast() if fast else kind()
    merged = {**dataclasses.asdict(start), **(fields or {})}
    try:
        made: Recipe[Any] = TypeAdapter(kind).validate_json(json.dumps(merged))
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # the recipe's own check of its values
            raise RecipeError(f"recipe {name}: {first['msg'].removeprefix('Value error, ')}") from None
        field, known = str(first["loc"][0]), [one.name for one in dataclasses.fields(kind)]
        if field not in known:
            raise RecipeError(f"recipe {name} has no field {field!r}: it has {', '.join(known) or 'none'}") from None
        raise RecipeError(f"recipe {name}, field {field!r}={merged.get(field)!r}: {first['msg']}") from None
    return made
