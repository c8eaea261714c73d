"""Popularity, RecentPopularity, Newest: one ranking of the catalog for all users.

    Popularity         score(i) = number of training rows of i
    RecentPopularity   score(i) = sum over the training rows of i of  0.5 ** ((t_max - t) / half_life)
    Newest             score(i) = days from the first training row of all to the first one of i;   -1 where i has none

with t_max the time of the latest training row. ``can_personalize`` is False for every user.

Popularity is the floor under every table: a model that does not beat it has learned nothing. Under a split by time
RecentPopularity is the baseline to beat, since popularity drifts (Ji et al. 2020, "A Re-visit of the Popularity
Baseline in Recommender Systems", SIGIR). Newest is of little use alone; as a retriever of ``two-stage`` it brings in
items that are too new for the other retrievers.

Shape legend: B users, C candidates, I items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.base import DataSpec, Query, Recipe, TrainOptions
from palate.bounds import Positive
from palate.data.dataset import Dataset, Fingerprint
from palate.errors import RecipeError

DAY = 86_400.0


class PopularityModel(nn.Module):
    """One number per item."""

    trained_on: Fingerprint | None = None
    counts: Tensor

    def __init__(self, items: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(items))

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """The number of the item, the same for all users: (B, C) or (B, I)."""
        return self.counts.expand(len(query), -1) if items is None else self.counts[items]

    def can_personalize(self, query: Query) -> Tensor:
        """All False, (B,)."""
        return torch.zeros(len(query), dtype=torch.bool, device=self.counts.device)


class _CountingRecipe(Recipe[PopularityModel]):
    """Base of the three recipes: one number per item, computed from the rows."""

    def build(self, spec: DataSpec) -> PopularityModel:
        """Zeros, ready for ``load_state_dict``."""
        return PopularityModel(spec.items)

    def _fit(self, train: Dataset, options: TrainOptions) -> PopularityModel:
        model = self.build(DataSpec(train.n_users, train.n_items))
        model.counts.copy_(torch.from_numpy(self.count(train)))
        model.trained_on = train.fingerprint
        return model.eval()

    def count(self, train: Dataset) -> NDArray[np.float64]:
        """Scores of all items, (I,)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Popularity(_CountingRecipe):
    """Rank items by how often they occur in training."""

    name: ClassVar[str] = "popularity"

    def count(self, train: Dataset) -> NDArray[np.float64]:
        """Training rows of each item, (I,)."""
        return np.bincount(train.interactions.item, minlength=train.n_items).astype(np.float64)


@dataclass(frozen=True)
class RecentPopularity(_CountingRecipe):
    """Rank items by how often they occur in training, recent rows counting more.

    Args:
        half_life: days after which a row counts half. A row older than about 150 half-lives counts nothing, since its
            weight is below the smallest float32.
        by_rating: each row counts as much as its weight (its rating) instead of one.
    """

    name: ClassVar[str] = "recent-popularity"

    half_life: Positive = 10.0
    by_rating: bool = False

    def count(self, train: Dataset) -> NDArray[np.float64]:
        """Decayed training rows of each item, (I,).

        Raises:
            RecipeError: the rows have no time.
        """
        rows = train.interactions
        if rows.time is None:
            raise RecipeError(
                f"{train.name} has no time, which recent popularity needs: name the time column, or use popularity"
            )
        # Ages count from the latest row, not from today: the same log gives the same scores on any day.
        age = (rows.time.max(initial=-np.inf) - rows.time) / DAY
        strength = np.exp2(-age / self.half_life) * (rows.weight if self.by_rating else 1.0)
        return np.bincount(rows.item, weights=strength, minlength=train.n_items).astype(np.float64)


@dataclass(frozen=True)
class Newest(_CountingRecipe):
    """Rank items by the time of their first training row, the latest first."""

    name: ClassVar[str] = "newest"

    def count(self, train: Dataset) -> NDArray[np.float64]:
        """Days from the first row of all to the first row of each item, (I,).

        Raises:
            RecipeError: the rows have no time.
        """
        rows = train.interactions
        if rows.time is None:
            raise RecipeError(f"{train.name} has no time, so nothing is new: name the time column, or leave newest out")
        first_I = np.full(train.n_items, np.inf)
        np.minimum.at(first_I, rows.item, rows.time)
        days_I = (first_I - rows.time.min(initial=np.inf)) / DAY
        score_I: NDArray[np.float64] = np.where(np.isfinite(days_I), days_I, -1.0)
        return score_I
