"""Training losses as pure functions of scores."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["bce"]


def bce(score: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy of sigmoid(score) against targets in [0, 1] (He et al. 2017, eq. 7)."""
    return F.binary_cross_entropy_with_logits(score, target)
