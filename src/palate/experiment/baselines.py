"""The entries of a comparison: recipes by name or from TOML files, and the tuned baselines that are added to them.

    entries = read_entries(["neumf", "best.toml"]) + baselines(split.train)

A baseline without tuning proves little (Ferrari Dacrema et al. 2019, "Are we really making much progress?", RecSys).
Each one has a small fixed grid, from which NDCG on validation rows chooses.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from palate.base import Recipe
from palate.data.dataset import Dataset
from palate.errors import RecipeError
from palate.experiment.recipe_file import read_toml
from palate.models import as_recipe, make_recipe

Role = Literal["model", "baseline", "external"]

# EASE holds a few square tables of the catalog, 12 bytes per cell in all: 0.8 GB here, and seconds per setting.
EASE_ITEMS = 8_000
GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "popularity": {},
    "recent-popularity": {"half_life": (1, 3, 10, 30, 100, 300)},
    "item-knn": {"neighbors": (20, 100), "shrinkage": (0, 10, 100)},
    "ease": {"regularization": (50, 200, 500, 1_000, 2_000)},
    "ials": {"regularization": (0.001, 0.003, 0.01, 0.03), "unobserved_weight": (0.1, 0.3, 1.0)},
}


@dataclass(frozen=True)
class Entry:
    """A recipe under the name that tables show.

    Args:
        name: distinct among all entries of a comparison.
        recipe: the recipe to fit, unless ``grid`` holds more than one.
        role: "model", or "baseline" for a recipe that models must beat.
        grid: settings from which validation rows choose one; empty where there is no choice.
    """

    name: str
    recipe: Recipe[Any]
    role: Role = "model"
    grid: tuple[Recipe[Any], ...] = ()

    @classmethod
    def of(cls, recipe: Entry | Recipe[Any] | str) -> Entry:
        """An entry as it is, or a recipe or its name under the name of the recipe."""
        if isinstance(recipe, Entry):
            return recipe
        made = as_recipe(recipe)
        return cls(made.name, made)


def read_entries(names: Sequence[str], *, published: bool = False) -> list[Entry]:
    """One entry per recipe name (its fast preset, or the published settings) or TOML file.

    A file ``best.toml`` becomes "neumf (best)". It holds ``recipe = "neumf"`` and fields as ``palate train --config``
    reads them; fields that it omits are those of the preset.

    Raises:
        RecipeError: an unknown recipe, a file that cannot be read, or a name given twice.
    """
    made = []
    for name in names:
        if not name.endswith(".toml"):
            made.append(Entry(name, make_recipe(name, fast=not published)))
            continue
        fields = read_toml(Path(name))
        recipe = fields.pop("recipe", None)
        if not isinstance(recipe, str):
            raise RecipeError(f'{name} names no recipe: put a line like recipe = "neumf" on top of its fields')
        made.append(Entry(f"{recipe} ({Path(name).stem})", make_recipe(recipe, fields, fast=not published)))
    check_names([one.name for one in made])
    return made


def check_names(names: Sequence[str]) -> None:
    """Refuse a name that is given twice.

    Raises:
        RecipeError: it is.
    """
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise RecipeError(f"{', '.join(twice)} stands twice in the comparison: give each entry a name of its own")


def baselines(train: Dataset, known: Sequence[Entry] = ()) -> list[Entry]:
    """The baselines that the data allow, each with its grid, without those that are entries already."""
    made = []
    for name, axes in GRIDS.items():
        if _reason(name, train):
            continue
        settings = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        grid = tuple(make_recipe(name, fields, fast=True) for fields in settings)
        tuned = len(grid) > 1
        made.append(Entry(f"{name} (tuned)" if tuned else name, grid[0], "baseline", grid if tuned else ()))
    taken = {(one.name, one.recipe) for one in known}
    return [one for one in made if (one.name, one.recipe) not in taken]


def left_out(train: Dataset) -> list[str]:
    """A sentence for each baseline that the data do not allow."""
    reasons = {name: _reason(name, train) for name in GRIDS}
    return [f"The baseline {name} is left out: {reason}." for name, reason in reasons.items() if reason]


def as_plain(recipe: Recipe[Any]) -> dict[str, Any]:
    """A recipe for JSON: its name and all its fields."""
    return {"recipe": recipe.name, "fields": asdict(recipe)}


def from_plain(plain: dict[str, Any]) -> Recipe[Any]:
    """The recipe that ``as_plain`` wrote down."""
    return make_recipe(plain["recipe"], plain["fields"])


def differing_fields(chosen: Recipe[Any], grid: Sequence[Recipe[Any]]) -> str:
    """The fields in which the settings of a grid differ, with the values of the chosen one."""
    every, mine = [asdict(one) for one in grid], asdict(chosen)
    differ = [name for name in mine if len({str(fields[name]) for fields in every}) > 1]
    return ", ".join(f"{name}={mine[name]:g}" for name in differ)


def _reason(name: str, train: Dataset) -> str:
    """Why the data do not allow a baseline, or nothing."""
    if name == "recent-popularity" and train.interactions.time is None:
        return "the rows have no time"
    if name == "ease" and train.n_items > EASE_ITEMS:
        return (
            f"{train.n_items:,} items would take {12e-9 * train.n_items**2:,.1f} GB; it is added up to "
            f"{EASE_ITEMS:,} items, {12e-9 * EASE_ITEMS**2:.1f} GB"
        )
    return ""
