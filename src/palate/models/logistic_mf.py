"""Dot-product matrix factorization trained with binary cross-entropy on observed and sampled rows.

    y_ui = sigmoid(p_u.q_i + b_i),   L = - sum_{(u,i) in S} [ ln y_ui + sum_{n negatives j of u} ln(1 - y_uj) ]
           + l/2 (|p_u|^2 + |q_i|^2) for each of these rows

(Rendle, Krichene, Zhang & Anderson 2020, "Neural Collaborative Filtering vs. Matrix Factorization Revisited", sec. 3;
Johnson 2014, "Logistic Matrix Factorization for Implicit Feedback Data"). Negatives are uniform over what the user
has not touched. Instead of n draws for each row, a pool of them is drawn for a batch of users and weighted to the same
expectation: less noise for less work. Adam, with a falling learning rate, takes the place of plain SGD.

Fold-in of a stranger: the likeliest vector given the same loss, with the items fixed and the distribution of the
trained users' vectors as prior in place of the penalty (see ``GradientFoldIn``). With ``half_life_events`` trained
users get their vectors in that way too, from events weighted by recency: items learn from all events, users lean on
their latest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from palate.base import DataSpec, Recipe, TrainOptions
from palate.bounds import Count, Fraction, NonNegative, Positive, Rounds, Width
from palate.data.dataset import Dataset
from palate.models.dot_product import (
    DotProductModel,
    GradientFoldIn,
    UserBatch,
    decaying_adam,
    penalty,
    predict,
    user_batches,
)
from palate.models.recency import Recency
from palate.training import trainer as training
from palate.training.negative_sampling import epoch_rng

__all__ = ["LogisticMF"]


@dataclass(frozen=True)
class LogisticMF(Recipe[DotProductModel]):
    """Dot product, item bias, binary cross-entropy.

    Args:
        epochs: passes over the users; the learning rates fall to zero over them.
        dim: width D of the vectors.
        negatives: n, the weight of unseen items against each event.
        pool: items drawn for each batch to stand for the unseen ones.
        batch_users: users, with all their events, in one optimizer step.
        user_learning_rate, item_learning_rate: initial learning rates of Adam; a user is in one step per
            epoch, an item in nearly all.
        regularization: l.
        std: of the first vectors' length.
        half_life_events: history events after which an event counts half in its user's vector; None counts all alike.
        floor: the least that an event counts there, however long ago, as a share of the latest.
    """

    name: ClassVar[str] = "logistic-mf"

    epochs: Rounds = 40
    dim: Width = 64
    negatives: Count = 8
    pool: Count = 512
    batch_users: Count = 64
    user_learning_rate: Positive = 0.2
    item_learning_rate: Positive = 0.03
    regularization: NonNegative = 0.005
    std: Positive = 0.7
    half_life_events: Positive | None = None
    floor: Fraction = 0.0

    @classmethod
    def fast(cls) -> Self:
        """Fewer epochs and smaller pools: seconds instead of minutes on two cores."""
        return cls(epochs=15, dim=32, pool=256, item_learning_rate=0.05)

    def build(self, spec: DataSpec) -> DotProductModel:
        """An untrained model with tables of the given sizes."""
        recency = Recency(self.half_life_events, self.floor)
        fold_in = GradientFoldIn(self.dim, replace(self, regularization=0.0).objective, recency=recency)
        return DotProductModel(spec, self.dim, fold_in, bias=True, std=self.std / self.dim**0.5)

    def _fit(self, train: Dataset, options: TrainOptions) -> DotProductModel:
        """Train on the rows of ``train`` as implicit feedback; a weight below 0 is a dislike."""
        model = cast(DotProductModel, training.fit(self, train, options))
        model.finish(train)
        return model

    def batches(self, train: Dataset, seed: int, epoch: int) -> Iterator[UserBatch]:
        """All users in random order, each batch with a pool of its own."""
        return user_batches(train, self.batch_users, self.pool, epoch_rng(seed, epoch))

    def loss(self, module: Any, batch: UserBatch) -> Tensor:
        """Mean over the rows of the batch, negatives included."""
        total = self.objective(module.user_table(batch.user), module.item_table.weight, batch)
        return total / (len(batch.item) * (1 + self.negatives))

    def objective(self, user_BD: Tensor, item_IE: Tensor, batch: UserBatch) -> Tensor:
        """L over the users of the batch, in expectation over their unseen items of the pool."""
        event_H, pool_BN = predict(user_BD, item_IE, batch)
        negative_B = (batch.share * F.softplus(pool_BN)).sum(1)
        rows = (batch.strength * F.softplus(-batch.sign * event_H)).sum() + self.negatives * (
            batch.sizes * negative_B
        ).sum()
        return rows + self.regularization * penalty(user_BD, item_IE, batch, self.negatives)

    def optimizers(self, module: Any) -> list[torch.optim.Optimizer]:
        """Fused Adam, users and items at rates of their own."""
        steps = self.epochs * -(-module.user_table.num_embeddings // self.batch_users)
        return [decaying_adam(module, self.user_learning_rate, self.item_learning_rate, steps)]
