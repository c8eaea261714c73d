"""BPR-MF: matrix factorization trained to put what a user touched before what the user did not.

    L = sum_{(u,i) in S} E_j [ - ln sigmoid(x_ui - x_uj) + l/2 (2 |p_u|^2 + |q_i|^2 + |q_j|^2) ]
    x_ui = p_u.q_i + b_i

with j uniform over the items that u has not touched (Rendle, Freudenthaler, Gantner & Schmidt-Thieme 2009, "BPR:
Bayesian Personalized Ranking from Implicit Feedback", eq. 4 to 6). The expectation is taken over a pool of items drawn
for a batch of users: many negatives for each event at the price of a few. Adam, with a falling learning rate, takes
the place of plain SGD.

Fold-in of a stranger: the likeliest vector given the same loss, with the items fixed and the distribution of the
trained users' vectors as prior in place of the penalty (see ``GradientFoldIn``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from palate.base import DataSpec, Recipe, TrainOptions
from palate.bounds import Count, NonNegative, Positive, Rounds, Width
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
from palate.training import trainer as training
from palate.training.negative_sampling import epoch_rng

__all__ = ["BPR"]


@dataclass(frozen=True)
class BPR(Recipe[DotProductModel]):
    """Dot product, item bias, pairwise logistic loss.

    Args:
        epochs: passes over the users; the learning rates fall to zero over them.
        dim: width D of the vectors.
        pool: items drawn for each batch; each event is compared with those that its user has not touched.
        batch_users: users, with all their events, in one optimizer step.
        user_learning_rate, item_learning_rate: initial learning rates of Adam; a user is in one step per
            epoch, an item in nearly all.
        regularization: l.
        std: of the first vectors' length.
    """

    name: ClassVar[str] = "bpr"

    epochs: Rounds = 40
    dim: Width = 64
    pool: Count = 64
    batch_users: Count = 64
    user_learning_rate: Positive = 0.2
    item_learning_rate: Positive = 0.03
    regularization: NonNegative = 0.003
    std: Positive = 0.5

    @classmethod
    def fast(cls) -> Self:
        """Fewer epochs and smaller vectors: seconds instead of minutes on two cores."""
        return cls(epochs=15, dim=32, item_learning_rate=0.05)

    def build(self, spec: DataSpec) -> DotProductModel:
        """An untrained model with tables of the given sizes."""
        fold_in = GradientFoldIn(self.dim, replace(self, regularization=0.0).objective, probes=128)
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
        """Mean over the events of the batch."""
        return self.objective(module.user_table(batch.user), module.item_table.weight, batch) / len(batch.item)

    def objective(self, user_BD: Tensor, item_IE: Tensor, batch: UserBatch) -> Tensor:
        """L over the users of the batch, in expectation over their unseen items of the pool."""
        event_H, pool_BN = predict(user_BD, item_IE, batch)
        worse_HN = F.softplus(batch.sign[:, None] * (F.embedding(batch.owner, pool_BN) - event_H[:, None]))
        rows = (F.embedding(batch.owner, batch.share) * worse_HN).sum()
        return rows + self.regularization * penalty(user_BD, item_IE, batch, 1)

    def optimizers(self, module: Any) -> list[torch.optim.Optimizer]:
        """Fused Adam, users and items at rates of their own."""
        steps = self.epochs * -(-module.user_table.num_embeddings // self.batch_users)
        return [decaying_adam(module, self.user_learning_rate, self.item_learning_rate, steps)]
