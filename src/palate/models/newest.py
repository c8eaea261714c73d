"""Newest: every user gets the same list, the items that appeared last.

    score(i) = days from the first training row of all to the first one of i;   -1 where i has none

Not personal. As a list of its own it is of little use; as a retriever of ``two-stage`` it brings in what is too new for
anybody else to find.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from palate.base import DataSpec, Recipe, TrainOptions
from palate.data.dataset import Dataset
from palate.errors import RecipeError
from palate.models.popularity import PopularityModel

__all__ = ["Newest"]

DAY = 86_400.0


@dataclass(frozen=True)
class Newest(Recipe[PopularityModel]):
    """Rank items by the time of their first training row, the latest first."""

    name: ClassVar[str] = "newest"

    def build(self, spec: DataSpec) -> PopularityModel:
        """Zeros, ready for ``load_state_dict``."""
        return PopularityModel(spec.items)

    def _fit(self, train: Dataset, options: TrainOptions) -> PopularityModel:
        """Find the first row of each item.

        Raises:
            RecipeError: the rows have no time.
        """
        rows = train.interactions
        if rows.time is None:
            raise RecipeError(f"{train.name} has no time, so nothing is new: name the time column, or leave newest out")
        first_I = np.full(train.n_items, np.inf)
        np.minimum.at(first_I, rows.item, rows.time)
        days_I = (first_I - rows.time.min(initial=np.inf)) / DAY
        model = self.build(DataSpec(train.n_users, train.n_items))
        model.counts.copy_(torch.from_numpy(np.where(np.isfinite(days_I), days_I, -1.0)))
        model.trained_on = train.fingerprint
        return model.eval()
