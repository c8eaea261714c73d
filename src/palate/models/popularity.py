"""Popularity: every user gets the same list, the items most often touched in training.

    score(u, i) = number of training rows of item i

Not personal, and the floor under every table: a model that does not beat it has learned nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from palate.base import DataSpec, Query, Recipe, TrainOptions
from palate.data.dataset import Dataset, Fingerprint

__all__ = ["Popularity", "PopularityModel"]


class PopularityModel(nn.Module):
    """One number per item."""

    trained_on: Fingerprint | None = None
    counts: Tensor

    def __init__(self, items: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(items))

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """The item's count, whoever asks: (B, C) or (B, I)."""
        if items is None:
            return self.counts.expand(len(query), -1)
        return self.counts[items]

    def can_personalize(self, query: Query) -> Tensor:
        """Nothing personal about anybody: all False."""
        return torch.zeros(len(query), dtype=torch.bool, device=self.counts.device)


@dataclass(frozen=True)
class Popularity(Recipe[PopularityModel]):
    """Rank items by how often they occur in training."""

    name: ClassVar[str] = "popularity"

    def build(self, spec: DataSpec) -> PopularityModel:
        """Zero counts, ready for ``load_state_dict``."""
        return PopularityModel(spec.items)

    def _fit(self, train: Dataset, options: TrainOptions) -> PopularityModel:
        """Count the training rows of each item."""
        model = self.build(DataSpec(train.n_users, train.n_items))
        counts = np.bincount(train.interactions.item, minlength=train.n_items)
        model.counts.copy_(torch.from_numpy(counts))
        model.trained_on = train.fingerprint
        return model.eval()
