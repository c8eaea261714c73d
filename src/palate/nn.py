"""Building blocks shared by the networks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn

__all__ = ["mlp"]


def mlp(widths: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers through ``widths`` (first = input), a ReLU behind each, dropout behind each if it is above 0."""
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)
