"""Weights of history events by the number of events since, shared by EASE and the dot-product models.

    w = floor + (1 - floor) 0.5 ** (events since / half_life_events)

The latest events of a history predict the next one best. Age is a count of events rather than a time, so it needs no
clock, and a pause of a year changes nothing.

Shape legend: B users of a query, H their events together (CSR, oldest first).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Recency:
    """Weights of events; all 1 without a half-life.

    Args:
        half_life_events: history events after which an event counts half; None counts all alike.
        floor: the least weight of an event, however old, as a fraction of the latest.
    """

    half_life_events: float | None = None
    floor: float = 0.0

    def weights(self, offsets: Tensor) -> Tensor:
        """The weight of each event (H,), float32, for histories in compressed rows with ``offsets`` (B + 1,)."""
        count_B = offsets.diff()
        if self.half_life_events is None:
            return torch.ones(int(count_B.sum()), device=offsets.device)
        end_H = torch.repeat_interleave(offsets[1:] - offsets[0], count_B)
        since_H = end_H - 1 - torch.arange(len(end_H), device=offsets.device)
        return self.floor + (1 - self.floor) * torch.exp2(-since_H / self.half_life_events)
