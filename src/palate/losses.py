"""Training losses as pure functions of scores.

Shape legend: B positives of a batch, n negatives of a positive.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["bce", "bpr", "in_batch_softmax"]


def bce(score: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy of sigmoid(score) against targets in [0, 1] (He et al. 2017, eq. 7)."""
    return F.binary_cross_entropy_with_logits(score, target)


def bpr(positive_B: Tensor, negative_Bn: Tensor) -> Tensor:
    """Mean of -log sigmoid(positive - negative) over all pairs (Rendle et al. 2009, BPR-Opt without its prior)."""
    return -F.logsigmoid(positive_B[:, None] - negative_Bn).mean()


def in_batch_softmax(
    score_BB: Tensor, item_B: Tensor, log_q_B: Tensor | None = None, *, mask_hits: bool = False
) -> Tensor:
    """Mean softmax cross-entropy where the items of the other rows are a row's negatives.

    Args:
        score_BB: score of the user of each row with the item of each column; the diagonal holds the positives.
        item_B: item row number of each column.
        log_q_B: log of the chance that the item of a column stands in a batch row. Subtracted from its column, so that
            frequent items, which are negatives more often, are not held down (Bengio & Senecal 2008; Yi et al. 2019,
            "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", eq. 6).
        mask_hits: leave out columns that hold the row's own positive once more (accidental hits).
    """
    logit_BB = score_BB
    if mask_hits:
        # One constant for both corrections: a sum needs no work on the way back, masking in place would.
        add_BB = torch.zeros_like(score_BB) if log_q_B is None else (-log_q_B).repeat(len(item_B), 1)
        add_BB[(item_B[:, None] == item_B).fill_diagonal_(False)] = -torch.inf
        logit_BB = score_BB + add_BB
    elif log_q_B is not None:
        logit_BB = score_BB - log_q_B
    return F.cross_entropy(logit_BB, torch.arange(len(item_B), device=item_B.device))
