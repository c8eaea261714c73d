"""The fitted form of iALS and WALS: users are solutions of their rows, so a score can be taken apart by event.

    A_u p_u = sum_j w_j t_j q_j,    A_u = sum_j w_j q_j q_j^T + a Q^T Q + l_u
    score(u, i) = p_u . q_i (+ b_i) = sum_j  w_j t_j q_i . A_u^-1 q_j  (+ b_i)

over the events j of u's history, with targets t, weights w, a and l_u as in ``ials`` (Hu, Koren & Volinsky 2008,
"Collaborative Filtering for Implicit Feedback Datasets", ICDM, eq. 7). A dislike has target 0 in iALS: it adds nothing,
but changes A_u, and with it what the others add.

Shape legend: B users of a query, C candidates, S strangers, H events, I items, D width, E width of an item vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from palate.base import Contributions, DataSpec, Query
from palate.models.dot_product import EVENLY, DotProductModel, Events, FoldIn, events_of, likes
from palate.models.least_squares import Floats, Rows, solve_rows, solved_parts
from palate.models.recency import Recency

if TYPE_CHECKING:
    from palate.models.ials import _Als

__all__ = ["ALSModel", "LeastSquares"]


class LeastSquares(FoldIn):
    """The exact row of a stranger, in double precision, so that a batch equals one by one.

    Args:
        recipe: regularization and weights of the training.
    """

    spectrum: Tensor
    lowest: Tensor

    def __init__(self, recipe: _Als) -> None:
        super().__init__(Recency(recipe.half_life_events, recipe.floor))
        self.recipe = recipe
        self.register_buffer("spectrum", torch.zeros(recipe.dim))  # diagonal of Q^T Q
        self.register_buffer("lowest", torch.zeros(()))  # the target of a dislike

    def forward(self, item_IE: Tensor, typical_D: Tensor, events: Events) -> Tensor:
        """Solutions (S, D)."""
        solved = solve_rows(*self._problem(item_IE, events))
        return torch.from_numpy(solved).to(item_IE.device, item_IE.dtype)

    def parts(self, item_IE: Tensor, events: Events, items_SC: Tensor) -> Tensor:
        """What each event adds to the scores of its owner's candidates, (H, C)."""
        parts = solved_parts(*self._problem(item_IE, events), items_SC.cpu().numpy())
        return torch.from_numpy(parts).to(item_IE.device, item_IE.dtype)

    def _problem(self, item_IE: Tensor, events: Events) -> tuple[Floats, Floats, Rows]:
        """Item vectors (I, D), the penalty (D,) and the rows of the strangers."""
        item = item_IE.cpu().numpy()
        offsets, columns, strength, recency = (t.cpu().numpy() for t in events)
        recipe = self.recipe
        bias = item[columns, recipe.dim] if recipe.bias else None
        targets, weights = recipe.observed(strength, bias, float(self.lowest))
        if self.recency != EVENLY:
            weights = recency if weights is None else weights * recency
        ridge = recipe.ridge(offsets, weights, len(item)).astype(np.float64)
        penalty = recipe.unobserved_weight * self.spectrum.cpu().numpy().astype(np.float64)
        return item[:, : recipe.dim], penalty, Rows(offsets, columns, targets.astype(np.float64), weights, ridge)


class ALSModel(DotProductModel):
    """User vectors, item vectors, and strangers solved exactly.

    Args:
        spec: rows of the tables.
        recipe: what is minimized.
    """

    fold_in: LeastSquares

    def __init__(self, spec: DataSpec, recipe: _Als) -> None:
        super().__init__(spec, recipe.dim, LeastSquares(recipe), bias=recipe.bias, std=recipe.std / recipe.dim**0.5)

    def contributions(self, query: Query, items: Tensor) -> Contributions:
        """w t q_i . A^-1 q_j of each event; the rest is the bias, and for those of whom nothing is known the score."""
        known_B = likes(query) > 0
        item_IE = self.item_vectors()
        nobody = Query(torch.full_like(query.user, -1))
        rest_BC = self.score(nobody, items)
        if self.bias:
            rest_BC = item_IE[items, self.dim].where(known_B[:, None], rest_BC)
        else:
            rest_BC = rest_BC.where(~known_B[:, None], 0)
        event_HC = rest_BC.new_zeros(int(query.counts().sum()), items.shape[1])
        if bool(known_B.any()):
            index_S = known_B.nonzero().squeeze(1)
            events = events_of(query, index_S, self.fold_in.recency)
            known_H = torch.repeat_interleave(known_B, query.counts())
            event_HC[known_H] = self.fold_in.parts(item_IE, events, items[index_S])
        return Contributions(event_HC, rest_BC)
