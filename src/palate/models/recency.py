"""How much an event of a history counts by how many events came after it: shared by EASE and the factor models.

    w = floor + (1 - floor) 0.5 ** (events since / half_life_events)

What somebody touched last says more about what comes next. Counting events instead of time needs no clock, and a pause
of a year changes nothing.

Shape legend: B users of a query, H their events together (CSR, oldest first).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from palate.errors import RecipeError

__all__ = ["Recency"]


@dataclass(frozen=True)
class Recency:
    """Weights of events; all 1 without a half-life.

    Args:
        half_life_events: history events after which an event counts half; None counts all alike.
        floor: the least that an event counts, however long ago, as a share of the latest.

    Raises:
        RecipeError: a half-life that is not above 0, or a floor outside 0 to 1.
    """

    half_life_events: float | None = None
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.half_life_events is not None and not 0 < self.half_life_events < float("inf"):
            raise RecipeError(
                f"half_life_events={self.half_life_events:g}: must be a number of events above 0, or None"
            )
        if not 0 <= self.floor <= 1:
            raise RecipeError(f"floor={self.floor:g}: must be a share between 0 and 1")

    def weights(self, offsets: Tensor) -> Tensor:
        """The weight of each event (H,), float32, for histories in compressed rows with ``offsets`` (B + 1,)."""
        count_B = offsets.diff()
        if self.half_life_events is None:
            return torch.ones(int(count_B.sum()), device=offsets.device)
        end_H = torch.repeat_interleave(offsets[1:] - offsets[0], count_B)
        since_H = end_H - 1 - torch.arange(len(end_H), device=offsets.device)
        return self.floor + (1 - self.floor) * torch.exp2(-since_H / self.half_life_events)
