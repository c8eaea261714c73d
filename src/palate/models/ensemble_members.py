"""What recipes that are made of other recipes share: members as plain data, and scores that can be put side by side.

Shape legend: B users, I items.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from palate.base import Recipe
from palate.errors import RecipeError

__all__ = ["member", "standardized", "table"]

NOISE = 1e-3  # a spread of the scores below this share of their size is no spread


def member(one: str | Mapping[str, Any]) -> Recipe[Any]:
    """The recipe of a name (at its published defaults), or of a table of fields such as {"recipe": "ials", "dim": 32}.

    Raises:
        RecipeError: the table does not name its recipe, or as ``make_recipe``.
    """
    from palate.models import make_recipe  # the list holds the recipes that call this

    fields = {"recipe": one} if isinstance(one, str) else dict(one)
    name = fields.pop("recipe", None)
    if not isinstance(name, str):
        raise RecipeError(f'member {dict(fields)} does not name its recipe: add recipe = "NAME" to it')
    return make_recipe(name, fields)


def table(recipe: Recipe[Any]) -> dict[str, Any]:
    """Name and fields of a recipe as plain data, the same before and after JSON."""
    fields: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return {"recipe": recipe.name, **fields}


def standardized(score_BI: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 per user; less where the scores hardly differ, zeros where they do not."""
    centred_BI = score_BI - score_BI.mean(1, keepdim=True)
    # Scores that are equal but for rounding must not become an opinion.
    floor_B1 = NOISE * score_BI.abs().amax(1, keepdim=True).clamp(min=1e-12)
    return centred_BI / centred_BI.square().mean(1, keepdim=True).sqrt().maximum(floor_B1)
