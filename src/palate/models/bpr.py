"""BPR-MF: matrix factorization trained to rank the items of a user's history before the items outside it.

    L = sum_{(u,i) in S} E_j [ - ln sigmoid(x_ui - x_uj) + l/2 (2 |p_u|^2 + |q_i|^2 + |q_j|^2) ]
    x_ui = p_u.q_i + b_i

with j uniform over the items that u has not touched (Rendle, Freudenthaler, Gantner & Schmidt-Thieme 2009, "BPR:
Bayesian Personalized Ranking from Implicit Feedback", eq. 4 to 6). Training, negatives and the fold-in of new users are
those of ``sampled_mf``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch.nn.functional as F
from torch import Tensor

from palate.models.sampled_mf import SampledMF, UserBatch, penalty, predict


@dataclass(frozen=True)
class BPR(SampledMF):
    """Dot product, item bias, pairwise logistic loss; its fields are those of ``SampledMF``.

    A row whose weight is below 0 is a dislike: its item is ranked behind the unseen ones.
    """

    name: ClassVar[str] = "bpr"
    probes: ClassVar[int] = 128  # the pairwise loss holds a number for each event and probe

    @classmethod
    def fast(cls) -> Self:
        """Fewer epochs and smaller vectors: seconds instead of minutes on two cores."""
        return cls(epochs=15, dim=32, item_learning_rate=0.05)

    def objective(self, user_BD: Tensor, item_IE: Tensor, batch: UserBatch) -> Tensor:
        """L over the users of the batch, in expectation over their unseen items of the pool."""
        event_H, pool_BN = predict(user_BD, item_IE, batch)
        worse_HN = F.softplus(batch.sign[:, None] * (F.embedding(batch.owner, pool_BN) - event_H[:, None]))
        rows = (F.embedding(batch.owner, batch.share) * worse_HN).sum()
        return rows + self.regularization * penalty(user_BD, item_IE, batch, 1)
