"""Recent popularity: every user gets the same list, the items most often touched of late.

    score(i) = sum over the training rows of i of  0.5 ** ((t_max - t) / half_life)

with t_max the time of the latest training row. Not personal. Under a split by time it is the baseline to beat: what is
popular now differs from what has been popular ever (Ji et al. 2020, "A Re-visit of the Popularity Baseline in
Recommender Systems", SIGIR).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from palate.base import DataSpec, Query, Recipe, TrainOptions
from palate.bounds import Positive
from palate.data.dataset import Dataset, Fingerprint
from palate.errors import RecipeError

__all__ = ["RecentPopularity", "RecentPopularityModel"]

DAY = 86_400.0


class RecentPopularityModel(nn.Module):
    """One number per item."""

    trained_on: Fingerprint | None = None
    counts: Tensor

    def __init__(self, items: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(items))

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """The item's decayed count, whoever asks: (B, C) or (B, I)."""
        if items is None:
            return self.counts.expand(len(query), -1)
        return self.counts[items]

    def can_personalize(self, query: Query) -> Tensor:
        """Nothing personal about anybody: all False."""
        return torch.zeros(len(query), dtype=torch.bool, device=self.counts.device)


@dataclass(frozen=True)
class RecentPopularity(Recipe[RecentPopularityModel]):
    """Rank items by how often they occur in training, recent rows counting more.

    Args:
        half_life: days after which a row counts half. A row older than about 150 half-lives counts nothing, since it is
            below the smallest float32.
        by_rating: each row counts as much as its weight (its rating) instead of one.
    """

    name: ClassVar[str] = "recent-popularity"

    half_life: Positive = 10.0
    by_rating: bool = False

    def build(self, spec: DataSpec) -> RecentPopularityModel:
        """Zero counts, ready for ``load_state_dict``."""
        return RecentPopularityModel(spec.items)

    def _fit(self, train: Dataset, options: TrainOptions) -> RecentPopularityModel:
        """Sum the decayed rows of each item.

        Raises:
            RecipeError: the rows have no time.
        """
        rows = train.interactions
        if rows.time is None:
            raise RecipeError(
                f"{train.name} has no time, which recent popularity needs: name the time column, or use popularity"
            )
        age = (rows.time.max(initial=-np.inf) - rows.time) / DAY
        strength = np.exp2(-age / self.half_life) * (rows.weight if self.by_rating else 1.0)
        counts = np.bincount(rows.item, weights=strength, minlength=train.n_items)
        model = self.build(DataSpec(train.n_users, train.n_items))
        model.counts.copy_(torch.from_numpy(counts))
        model.trained_on = train.fingerprint
        return model.eval()
