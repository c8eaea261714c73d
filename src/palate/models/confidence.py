"""Confidence: how much a row counts by its weight, for recipes that weigh their rows.

    log      c = ln(1 + 100 w / m) / mean      quantities: hours, plays, pieces; m is their median
    linear   c = w / mean                      event types: the weights that a person gave
    none     c = 1

The mean is over the training rows with w > 0: c has mean 1 there, so that hyperparameters keep their meaning. Both are
free of units: hours and minutes give the same c. The logarithm saturates, since the tail of a quantity says more about
the person than about the liking: a row of a thousand medians counts 2.5 times as much as the median (after Hu, Koren &
Volinsky 2008, "Collaborative Filtering for Implicit Feedback Datasets", eq. 6).

"auto" is "log" for quantities, "linear" for events and "none" for others. The factor 100 was chosen on validation rows
of play hours and listening counts (``benchmarks/weights.py``): with smaller ones short plays count too little.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.data.dataset import Dataset

Weighting = Literal["auto", "log", "linear", "none"]
STEEPNESS = 100.0
MODES: tuple[Weighting, ...] = ("none", "log", "linear")
AUTO: dict[str, Weighting] = {"quantity": "log", "event": "linear"}


class Confidence(nn.Module):
    """Confidence of rows by their weights; a module, so that its scale is saved with the weights of a model.

    Args:
        weighting: "auto" is decided by ``measure``.
    """

    scale: Tensor

    def __init__(self, weighting: Weighting) -> None:
        super().__init__()
        self.weighting: Weighting = weighting
        if weighting != "none":  # mode, median, mean
            self.register_buffer("scale", torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64))

    def state_problem(self) -> str | None:
        """A scale that no measure gives, in words, or None."""
        if self.weighting == "none":
            return None
        mode, median, mean = self.scale.tolist()
        fine = mode in range(len(MODES)) and median > 0 and mean > 0
        return None if fine else f"the scale of the confidence is {mode:g}, {median:g}, {mean:g}"

    def measure(self, train: Dataset) -> Confidence:
        """Take mode, median and mean from the training rows."""
        if self.weighting == "none":
            return self
        mode = AUTO.get(train.feedback.kind, "none") if self.weighting == "auto" else self.weighting
        weight = train.interactions.weight
        positive = weight[weight > 0].astype(np.float64)
        if mode != "none" and len(positive):
            self.scale[0], self.scale[1] = MODES.index(mode), float(np.median(positive))
            self.scale[2] = float(self._of(positive).mean())
        return self

    @property
    def rule(self) -> str:
        """The confidence in words; "" where all rows count alike."""
        if self.weighting == "none" or not int(self.scale[0]):
            return ""
        median = float(self.scale[1])
        log = f"rows weigh ln(1 + {STEEPNESS:g} w / {median:g}), scaled to mean 1"
        return log if MODES[int(self.scale[0])] == "log" else "rows weigh w, scaled to mean 1"

    def of(self, weight: NDArray[Any]) -> NDArray[np.float32] | None:
        """Confidences of weights (N,), dislikes counting by their size; None where all are 1."""
        if not self.rule:
            return None
        return self._of(np.abs(weight.astype(np.float64))).astype(np.float32)

    def _of(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        mode, median, mean = self.scale.tolist()
        size = np.log1p(STEEPNESS * weight / median) if MODES[int(mode)] == "log" else weight
        confidence: NDArray[np.float64] = size / mean
        return confidence
