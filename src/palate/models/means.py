"""MeanRating and UserItemMeans: the baselines below every table of ratings.

    MeanRating      rating(u, i) = mean
    UserItemMeans   rating(u, i) = mean + b_u + b_i

    b_u = sum_i (r_ui - mean) / (l_u + n_u),      b_i = sum_u (r_ui - mean - b_u) / (l_i + n_i)

damped means, first of users and then of items, and so on for several rounds (Koren 2008, sec. 2.1, in the other
order). Fold-in of a new user: b_u from the history, the item biases being fixed.

The order of the items is the same for all users, so ``can_personalize`` is False.

Shape legend: B users, C candidates, I items, N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palate.base import DataSpec, Query, Recipe, TrainOptions
from palate.bounds import Count, NonNegative
from palate.data.dataset import Dataset, Fingerprint
from palate.errors import RecipeError
from palate.models.rating_prior import damped_means


class MeanModel(nn.Module):
    """A mean and a bias for each user and item, all zero for MeanRating."""

    trained_on: Fingerprint | None = None
    mean: Tensor
    scale: Tensor
    user_bias: Tensor
    item_bias: Tensor
    trained: Tensor

    def __init__(self, spec: DataSpec, user_damping: float | None) -> None:
        super().__init__()
        self.user_damping = user_damping
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.tensor([0.0, 1.0]))
        self.register_buffer("user_bias", torch.zeros(spec.users))
        self.register_buffer("item_bias", torch.zeros(spec.items))
        self.register_buffer("trained", torch.zeros(spec.users, dtype=torch.bool))

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """The item's bias, the same for all users: (B, C) or (B, I)."""
        return self.item_bias.expand(len(query), -1) if items is None else self.item_bias[items]

    @property
    def reads_ratings(self) -> bool:
        """True: the mean of a new user is that of the ratings of the history."""
        return True

    def predict(self, query: Query, items: Tensor | None = None) -> Tensor:
        """Ratings inside the scale: (B, C), or (B, I) for the whole catalog."""
        rating = self.mean + self._user_bias(query)[:, None] + self.score(query, items)
        return rating.clamp(self.scale[0], self.scale[1])

    def can_personalize(self, query: Query) -> Tensor:
        """All False, (B,)."""
        return torch.zeros(len(query), dtype=torch.bool, device=self.mean.device)

    def _user_bias(self, query: Query) -> Tensor:
        """Biases (B,): trained, from the history, or 0."""
        inside_B = (query.user >= 0) & (query.user < len(self.user_bias))
        row_B = query.user.where(inside_B, 0)
        known_B = inside_B & self.trained[row_B]
        bias_B = self.user_bias[row_B].where(known_B, 0)
        if self.user_damping is None or query.offsets is None or query.items is None or query.weights is None:
            return bias_B
        rest_H = query.weights.clamp(self.scale[0], self.scale[1]) - self.mean - self.item_bias[query.items]
        # Sums per history as differences of a running sum, in double: it may run over millions of events.
        total_B = F.pad(rest_H.double().cumsum(0), (1, 0))[query.offsets].diff()
        # Without damping and without events this would be 0 / 0.
        folded_B = total_B / (self.user_damping + query.counts()).clamp(min=1e-9)
        return bias_B.where(known_B, folded_B.to(bias_B))


@dataclass(frozen=True)
class MeanRating(Recipe[MeanModel]):
    """Predict the mean rating of the training rows, always."""

    name: ClassVar[str] = "mean-rating"

    def build(self, spec: DataSpec) -> MeanModel:
        """Zeros, ready for ``load_state_dict``."""
        return MeanModel(spec, None)

    def training_rows(self, train: Dataset) -> Dataset:
        """All rows: low ratings pull a mean down."""
        return train

    def _fit(self, train: Dataset, options: TrainOptions) -> MeanModel:
        """Take the mean and the scale of the weights."""
        return _fitted(self.build(DataSpec(train.n_users, train.n_items)), train)


@dataclass(frozen=True)
class UserItemMeans(Recipe[MeanModel]):
    """Predict the mean plus damped biases of user and item.

    Args:
        user_damping, item_damping: ratings at the mean that are added to each user's and item's own; 0 is the plain
            mean of the residuals.
        rounds: passes over users and items.
    """

    name: ClassVar[str] = "user-item-means"

    user_damping: NonNegative = 5.0
    item_damping: NonNegative = 5.0
    rounds: Count = 3

    def build(self, spec: DataSpec) -> MeanModel:
        """Zeros, ready for ``load_state_dict``."""
        return MeanModel(spec, self.user_damping)

    def training_rows(self, train: Dataset) -> Dataset:
        """All rows: low ratings pull a mean down."""
        return train

    def _fit(self, train: Dataset, options: TrainOptions) -> MeanModel:
        """Take damped means of the residuals, users first, ``rounds`` times."""
        model = _fitted(self.build(DataSpec(train.n_users, train.n_items)), train)
        rows = train.interactions
        rest = rows.weight.astype(np.float64) - float(model.mean)
        item_bias = np.zeros(train.n_items)
        for _ in range(self.rounds):
            user_bias = damped_means(rest - item_bias[rows.item], rows.user, train.n_users, self.user_damping)
            item_bias = damped_means(rest - user_bias[rows.user], rows.item, train.n_items, self.item_damping)
        model.user_bias.copy_(torch.from_numpy(user_bias))
        model.item_bias.copy_(torch.from_numpy(item_bias))
        return model


def _fitted(model: MeanModel, train: Dataset) -> MeanModel:
    rows = train.interactions
    if not len(rows):
        raise RecipeError(f"{train.name} has no rows to train on")
    model.mean.fill_(float(rows.weight.mean(dtype=np.float64)))
    model.scale.copy_(torch.tensor([float(rows.weight.min()), float(rows.weight.max())]))
    model.trained.copy_(torch.from_numpy(np.bincount(rows.user, minlength=train.n_users) > 0))
    model.trained_on = train.fingerprint
    return model.eval()
