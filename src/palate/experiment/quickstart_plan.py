"""The recipes that quickstart tries: by the kind and size of the rows, within a time budget.

    plan = plan_quickstart(dataset, minutes=3)
    plan.recipes, plan.left_out

The time of every fit is estimated from the numbers of rows, users and items before anything is fitted, and nothing is
decided by a clock: the same rows, seed and budget choose the same recipes on a slow machine, where they take longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from palate.base import Recipe
from palate.data.dataset import Dataset
from palate.errors import RecipeError
from palate.experiment.baselines import EASE_ITEMS
from palate.models import make_recipe

# The estimates are CPU seconds of one core of the machine that they were measured on (2026-11-29, busy). A machine
# that is so many times slower still keeps to the minutes.
SLOWDOWN = 2.5
START_SECONDS = 8.0  # imports, reading and splitting
LIGHTNING_SECONDS = 4.0  # its import, before the first recipe that is trained by gradients
MEASURED_USERS = 2_000  # whose lists are measured on validation rows: a share is then known to two points
OTHERS = 0.75  # share of the budget in which recipes that were not chosen are measured on test rows too
TRAINED, TRIED = 0.8, 0.64  # shares of the rows that are left for training after test and validation rows


class Size(NamedTuple):
    """What the estimates depend on; ``pairs`` is the number of pairs of events of the same user."""

    rows: int
    users: int
    items: int
    pairs: int
    measured: int

    @classmethod
    def of(cls, dataset: Dataset) -> Size:
        """The size of a data set."""
        counts = np.bincount(dataset.interactions.user, minlength=dataset.n_users).astype(np.float64)
        users = int((counts > 0).sum())
        return cls(
            len(dataset), max(1, users), dataset.n_items, int(np.square(counts).sum()), min(users, MEASURED_USERS)
        )


class Candidate(NamedTuple):
    """A recipe with its estimated CPU seconds: to fit it on all rows, and to score the measured users."""

    recipe: Recipe[Any]
    fit: float
    score: float

    @property
    def tried(self) -> float:
        """Seconds of the fit on training rows without test and validation rows, with its measurement."""
        return TRIED * self.fit + self.score

    @property
    def measured(self) -> float:
        """Seconds of the fit on training rows without test rows, with the measurement on these."""
        return TRAINED * self.fit + self.score


@dataclass(frozen=True)
class Plan:
    """The recipes to try.

    Args:
        candidates: popularity first; the others as far as the budget reaches.
        left_out: a sentence for each recipe that the rows or the budget do not allow.
        seconds: the budget, in seconds of the machine that the estimates are of.
    """

    candidates: tuple[Candidate, ...]
    left_out: tuple[str, ...]
    seconds: float

    @property
    def recipes(self) -> list[Recipe[Any]]:
        """The recipes alone."""
        return [one.recipe for one in self.candidates]

    def measurable(self, order: Sequence[Recipe[Any]]) -> list[Recipe[Any]]:
        """The recipes to measure on test rows: the chosen one and popularity, then others while there is time.

        Args:
            order: recipes, the chosen one first.
        """
        costs = {one.recipe.name: one for one in self.candidates}
        left = (
            OTHERS * self.seconds - START_SECONDS - sum(one.tried for one in self.candidates) - costs[order[0].name].fit
        )
        kept = [order[0], *(one.recipe for one in self.candidates[:1] if one.recipe != order[0])]
        left -= sum(costs[one.name].measured for one in kept)
        for recipe in order:
            if recipe not in kept and costs[recipe.name].measured <= left:
                kept.append(recipe)
                left -= costs[recipe.name].measured
        return kept


# CPU seconds of one fit, and of scoring the measured users; fitted to eight data sets of 5,000 to 1,000,000 rows.
Estimate = Callable[[Size], tuple[float, float]]


def _closed_form(per_cube: float) -> Estimate:
    """Co-occurrences, and inversions of a square matrix of the items."""
    return lambda s: (3e-9 * s.pairs + 2e-6 * s.rows + per_cube * s.items**3, RANKING * s.measured * s.items)


def _neighbors(per_item: float) -> Estimate:
    """Co-occurrences and their order, an equation per item, and the votes of the histories."""
    return lambda s: (
        3e-9 * s.pairs + 1e-6 * s.rows + 1.2e-7 * min(s.pairs, s.items**2) + per_item * s.items,
        s.measured * (1e-6 * s.rows / s.users + RANKING * s.items),
    )


def _sequences(s: Size) -> tuple[float, float]:
    """All epochs over each row, and over each row and item where the softmax reads the whole catalog."""
    per_row = 2.5e-5 if s.items >= WIDE_ITEMS else 2.5e-5 + 6e-9 * s.items
    return LIGHTNING_SECONDS + per_row * s.rows * _epochs(s), 2 * RANKING * s.measured * s.items


def _epochs(s: Size) -> int:
    """Passes over the rows: 300,000 events in all, as far as these are 4 to 20 passes."""
    # 5 passes over 100,000 rows were better than any item-to-item model, twice as many better by a fifth.
    return round(float(np.clip(SEQUENCE_EVENTS / s.rows, 4, 20)))


RANKING = 1.4e-8  # seconds per user and item of the full ranking, whatever the model

# In the order in which they are added while the budget reaches.
RECIPES: dict[str, Estimate] = {
    "popularity": lambda s: (1e-7 * s.rows, RANKING * s.measured * s.items),
    "recent-popularity": lambda s: (2e-7 * s.rows, RANKING * s.measured * s.items),
    "item-knn": _neighbors(0.0),
    "sparse-ease": _neighbors(2e-4),
    "gf-cf": _neighbors(8e-4),  # singular vectors instead of equations
    "ease": _closed_form(4.5e-11),
    "recent-edlae": _closed_form(1e-10),
    "sasrec": _sequences,
    "ials": lambda s: (7e-6 * s.rows + 3e-4 * (s.users + s.items), 2 * RANKING * s.measured * s.items),
    "edlae": _closed_form(1e-10),
    "two-tower": lambda s: (LIGHTNING_SECONDS + 1e-4 * s.rows, 2 * RANKING * s.measured * s.items),
}
NEEDS_TIME = ("recent-popularity", "recent-edlae", "sasrec")
SQUARE = ("ease", "edlae", "recent-edlae")  # hold tables of items by items
# From here on two towers are tried (below, item-to-item models are better and cheaper) and softmaxes are sampled.
WIDE_ITEMS = 5_000
SEQUENCE_EVENTS = 300_000


def plan_quickstart(dataset: Dataset, minutes: float = 3.0) -> Plan:
    """The recipes that fit into the budget on these rows, with all that follows: measuring, and fitting the chosen one.

    Args:
        dataset: all rows, of which a part is held out later.
        minutes: the budget on a machine that is ``SLOWDOWN`` times slower than that of the estimates. Popularity is
            always tried.

    Raises:
        RecipeError: minutes is not above 0.
    """
    if not minutes > 0:
        raise RecipeError(f"minutes={minutes:g}: must be above 0, 3 is a good number")
    size, seconds = Size.of(dataset), 60 * minutes / SLOWDOWN
    kept: list[Candidate] = []
    left_out = []
    for name, estimate in RECIPES.items():
        reason = _reason(name, dataset)
        if reason:
            left_out.append(f"{name} is left out: {reason}.")
            continue
        one = Candidate(_recipe(name, size), *estimate(size))
        # All are tried; the most expensive and popularity are measured on test rows, and it is fitted on all rows.
        tried = [*kept, one]
        most = max(tried, key=lambda one: one.fit)
        needed = START_SECONDS + sum(one.tried for one in tried) + most.fit + most.measured + tried[0].measured
        if name != "popularity" and needed > seconds:
            more = np.ceil(needed * SLOWDOWN / 60)
            left_out.append(
                f"{name} is left out: with it, {size.rows:,} rows and {size.items:,} items may take "
                f"{_duration(needed * SLOWDOWN)}, and {_duration(60 * minutes)} are allowed (--minutes {more:g} "
                "includes it)."
            )
            continue
        kept.append(one)
    return Plan(tuple(kept), tuple(left_out), seconds)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:,.0f} minutes"


def usual_recipes(train: Dataset, *, published: bool = False) -> list[Recipe[Any]]:
    """The models beside the baselines of a comparison that names none: a sequence model where the rows have times.

    Two towers where there is something for them, item features or a wide catalog; graph filtering on a wide one; and
    a pair network where nothing else suits.
    """
    size, wide = Size.of(train), train.n_items >= WIDE_ITEMS
    names = [] if train.interactions.time is None else ["sasrec"]
    if wide or train.item_features is not None:
        names.append("two-tower")
    if wide:
        names.append("gf-cf")
    if len(names) < 2:
        names.append("neumf")
    return [make_recipe(name) if published else _recipe(name, size) for name in names]


def _recipe(name: str, size: Size) -> Recipe[Any]:
    """The fast preset; a sequence model with as many passes as ``_epochs`` allows."""
    if name != "sasrec":
        return make_recipe(name, fast=True)
    objective = "sampled-softmax" if size.items >= WIDE_ITEMS else "softmax"
    return make_recipe(name, {"epochs": _epochs(size), "objective": objective}, fast=True)


def _reason(name: str, dataset: Dataset) -> str:
    """Why the rows do not suit a recipe, or nothing."""
    if name in NEEDS_TIME and dataset.interactions.time is None:
        return "the rows have no times"
    if name in SQUARE and dataset.n_items > EASE_ITEMS:
        return f"its tables of {dataset.n_items:,} by {dataset.n_items:,} items take too much memory"
    if name == "gf-cf" and dataset.n_items <= EASE_ITEMS:
        return f"it suits catalogs that are too wide for ease, and {dataset.n_items:,} items are few"
    if name == "two-tower" and dataset.n_items < WIDE_ITEMS:
        return f"it suits wide catalogs, and {dataset.n_items:,} items are few"
    return ""
