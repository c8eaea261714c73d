"""LogisticMF: matrix factorization trained with binary cross-entropy on observed and sampled rows.

    y_ui = sigmoid(p_u.q_i + b_i),   L = - sum_{(u,i) in S} [ ln y_ui + sum_{n negatives j of u} ln(1 - y_uj) ]
           + l/2 (|p_u|^2 + |q_i|^2) for each of these rows

(Rendle, Krichene, Zhang & Anderson 2020, "Neural Collaborative Filtering vs. Matrix Factorization Revisited", sec. 3;
Johnson 2014, "Logistic Matrix Factorization for Implicit Feedback Data"). Negatives are uniform over the items that the
user has not touched. Training, negatives and the fold-in of new users are those of ``sampled_mf``.

With ``half_life_events`` trained users get their final vectors by the fold-in too, from events weighted by recency:
items learn from all events, users lean on their latest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch.nn.functional as F
from torch import Tensor

from palate.bounds import Count, Fraction, NonNegative, Positive
from palate.models.recency import Recency
from palate.models.sampled_mf import SampledMF, UserBatch, penalty, predict


@dataclass(frozen=True)
class LogisticMF(SampledMF):
    """Dot product, item bias, binary cross-entropy; further fields are those of ``SampledMF``.

    Args:
        negatives: n, the weight of unseen items against each event.
        half_life_events: history events after which an event counts half in its user's vector; None counts all alike.
        floor: the least weight of an event there, however old, as a fraction of the latest.
    """

    name: ClassVar[str] = "logistic-mf"

    shared_negatives: Count = 512
    regularization: NonNegative = 0.005
    init_std: Positive = 0.7
    negatives: Count = 8
    half_life_events: Positive | None = None
    floor: Fraction = 0.0

    @property
    def recency(self) -> Recency:
        """How much events count by their age in a user's vector."""
        return Recency(self.half_life_events, self.floor)

    @classmethod
    def fast(cls) -> Self:
        """Fewer epochs and smaller pools: seconds instead of minutes on two cores."""
        return cls(epochs=15, dim=32, shared_negatives=256, item_learning_rate=0.05)

    def loss(self, module: Any, batch: UserBatch) -> Tensor:
        """Mean over the rows of the batch, negatives included."""
        total = self.objective(module.user_table(batch.user), module.item_table.weight, batch)
        return total / (len(batch.item) * (1 + self.negatives))

    def objective(self, user_BD: Tensor, item_IE: Tensor, batch: UserBatch) -> Tensor:
        """L over the users of the batch, in expectation over their unseen items of the pool."""
        event_H, pool_BN = predict(user_BD, item_IE, batch)
        negative_B = (batch.share * F.softplus(pool_BN)).sum(1)
        rows = (batch.strength * F.softplus(-batch.sign * event_H)).sum() + self.negatives * (
            batch.counts * negative_B
        ).sum()
        return rows + self.regularization * penalty(user_BD, item_IE, batch, self.negatives)
