"""The entries of a comparison: recipes by name or from TOML files, and the tuned baselines that are added to them.

    entries = read_entries(["neumf", "best.toml"]) + baselines(split.train)

A baseline without tuning proves little (Ferrari Dacrema et al. 2019, "Are we really making much progress?", RecSys).
Each one has a small grid, from which NDCG on validation rows chooses. A grid whose best setting is at an edge grows.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

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
    "sparse-ease": {"neighbors": (50, 150), "regularization": (30, 100, 300)},
    "recent-ease": {"regularization": (200, 1_000), "half_life_events": (1, 3, 10), "floor": (0.02,)},
    "ials": {"regularization": (0.35, 0.7, 1.4), "unobserved_weight": (0.3, 1.0, 3.0)},
    "recent-ials": {"half_life_events": (1, 3, 10), "floor": (0.02,)},
}
# Baselines under a name of their own: another form of a recipe.
FORMS = {"recent-ease": "ease", "recent-ials": "ials"}
# The field holds multiples of the value that the data choose.
RELATIVE = {("ials", "regularization"), ("ials", "unobserved_weight")}
# Where time is limited: fitted before the recipes that are compared, in this order; the others after them.
FIRST = ("popularity", "item-knn", "ease", "sparse-ease", "ials")
MOST_ROUNDS = 4  # of settings beyond the edge of a grid


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
    reads them; fields that it omits are those of the preset. A name that is given twice makes one entry.

    Raises:
        RecipeError: an unknown recipe, a file that cannot be read, or two files of one name and recipe.
    """
    made = []
    for name in dict.fromkeys(names):
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
    """The baselines that the data allow, each with its grid, without those that are entries already.

    ``sparse-ease`` takes the place of ``ease`` where the catalog is too wide for it.
    """
    made = []
    for name, axes in GRIDS.items():
        if _reason(name, train) or (name == "sparse-ease" and train.n_items <= EASE_ITEMS):
            continue
        preset = make_recipe(FORMS.get(name, name), fast=True).for_data(train)
        settings = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        grid = tuple(dict.fromkeys(_setting(name, preset, fields) for fields in settings))
        tuned = len(grid) > 1
        made.append(Entry(f"{name} (tuned)" if tuned else name, grid[0], "baseline", grid if tuned else ()))
    taken = {(one.name, one.recipe) for one in known}
    return [one for one in made if (one.name, one.recipe) not in taken]


def cheapest_first(entries: Sequence[Entry]) -> list[Entry]:
    """The order in which a time limit takes entries: strong cheap baselines, the models, the other baselines."""
    names = [f"{name}{form}" for name in FIRST for form in ("", " (tuned)")]

    def place(entry: Entry) -> int:
        if entry.name in names and (entry.role == "baseline" or entry.name == "popularity"):
            return names.index(entry.name)
        return len(names) + (entry.role == "baseline")

    return sorted(entries, key=place)


def _setting(name: str, preset: Recipe[Any], fields: dict[str, Any]) -> Recipe[Any]:
    own = asdict(cast(Any, preset))
    values = {field: own[field] * value if (name, field) in RELATIVE else value for field, value in fields.items()}
    made: Recipe[Any] = replace(cast(Any, preset), **values)
    return made


def beyond(best: Recipe[Any], grid: Sequence[Recipe[Any]]) -> list[Recipe[Any]]:
    """The settings one step beyond the edges of a grid that its best setting lies on, a field at a time.

    A step is the ratio of the last two values of the field; fields with other values than positive numbers have none.
    """
    made = []
    for field, value in asdict(cast(Any, best)).items():
        axis = sorted({asdict(cast(Any, one))[field] for one in grid}, key=str)
        if len(axis) < 2 or any(isinstance(one, bool) or not isinstance(one, int | float) or one <= 0 for one in axis):
            continue
        axis.sort()
        if value in (axis[0], axis[-1]):
            near = axis[1] if value == axis[0] else axis[-2]
            further = value * value / near
            with suppress(RecipeError):  # out of the bounds of the field
                made.append(replace(cast(Any, best), **{field: round(further) if isinstance(value, int) else further}))
    return [one for one in made if one not in grid]


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
    return ", ".join(f"{name}={mine[name]:.3g}" for name in differ)


def _reason(name: str, train: Dataset) -> str:
    """Why the data do not allow a baseline, or nothing."""
    if name.startswith("recent-") and train.interactions.time is None:
        return "the rows have no time"
    if FORMS.get(name, name) == "ease" and train.n_items > EASE_ITEMS:
        return (
            f"{train.n_items:,} items would take {12e-9 * train.n_items**2:,.1f} GB; it is added up to "
            f"{EASE_ITEMS:,} items, {12e-9 * EASE_ITEMS**2:.1f} GB"
        )
    return ""
