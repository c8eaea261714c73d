"""Who stands in a comparison: recipes by name or from TOML files, and the baselines that are added to them.

    entrants = read_entrants(["neumf", "best.toml"]) + baselines(split.train)

A baseline that nobody tuned proves nothing (Ferrari Dacrema et al. 2019, "Are we really making much progress?",
RecSys). Each one has a small fixed grid, of which validation rows choose: see ``palate.experiment.baseline_tuning``.
"""

from __future__ import annotations

import dataclasses
import itertools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from palate.base import Recipe
from palate.data.dataset import Dataset
from palate.errors import RecipeError
from palate.models import make_recipe

__all__ = ["Entrant", "Role", "as_plain", "baselines", "from_plain", "left_out", "read_entrants"]

Role = Literal["model", "baseline"]

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
class Entrant:
    """A recipe under the name that tables show.

    Args:
        name: distinct among all entrants of a comparison.
        recipe: what is fitted, unless ``grid`` holds more than one.
        role: "model", or "baseline" for what models must beat.
        grid: settings of which validation rows choose one; empty or one where there is nothing to choose.
    """

    name: str
    recipe: Recipe[Any]
    role: Role = "model"
    grid: tuple[Recipe[Any], ...] = ()


def read_entrants(names: Sequence[str], *, published: bool = False) -> list[Entrant]:
    """One entrant per recipe name (its fast preset, or the published settings) or TOML file.

    A file ``best.toml`` becomes "neumf (best)". It holds ``recipe = "neumf"`` and fields as ``palate train --config``
    reads them; what it leaves out is taken from the preset.

    Raises:
        RecipeError: an unknown recipe, a file that cannot be read, or a name given twice.
    """
    made = [_named(name, published) for name in names]
    known = [one.name for one in made]
    twice = sorted({name for name in known if known.count(name) > 1})
    if twice:
        raise RecipeError(f"{', '.join(twice)} stands twice among the recipes: name each once, rename one TOML file")
    return made


def baselines(train: Dataset, known: Sequence[Entrant] = ()) -> list[Entrant]:
    """The baselines that this data allows, each with its grid; one that an entrant already is stays that entrant."""
    fits = [name for name in GRIDS if not _reason(name, train)]
    made = [_baseline(name) for name in fits]
    taken = {(one.name, one.recipe) for one in known}
    return [one for one in made if (one.name, one.recipe) not in taken]


def left_out(train: Dataset) -> list[str]:
    """A sentence for each baseline that the data do not allow."""
    reasons = {name: _reason(name, train) for name in GRIDS}
    return [f"The baseline {name} is left out: {reason}." for name, reason in reasons.items() if reason]


def as_plain(recipe: Recipe[Any]) -> dict[str, Any]:
    """A recipe as JSON holds it: its name and all its fields."""
    return {"recipe": recipe.name, "fields": dataclasses.asdict(recipe)}


def from_plain(plain: dict[str, Any]) -> Recipe[Any]:
    """The recipe that ``as_plain`` wrote down."""
    return make_recipe(plain["recipe"], plain["fields"])


def _baseline(name: str) -> Entrant:
    axes = GRIDS[name]
    grid = tuple(
        make_recipe(name, dict(zip(axes, values, strict=True)), fast=True)
        for values in itertools.product(*axes.values())
    )
    tuned = len(grid) > 1
    return Entrant(f"{name} (tuned)" if tuned else name, grid[0], "baseline", grid if tuned else ())


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


def _named(name: str, published: bool) -> Entrant:
    if not name.endswith(".toml"):
        return Entrant(name, make_recipe(name, fast=not published))
    path = Path(name)
    try:
        fields = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as TOML: {error}") from None
    recipe = fields.pop("recipe", None)
    if not isinstance(recipe, str):
        raise RecipeError(f'{path} names no recipe: put a line like recipe = "neumf" on top of its fields')
    return Entrant(f"{recipe} ({path.stem})", make_recipe(recipe, fields, fast=not published))
