"""Held-out ridge and recent blend: item-to-item weights that learn from hidden history, alone and with recency.

    EDLAE   score(u, i) = sum_{j in u} B_ji
    RecentEDLAE    score(u, i) = log r_i + since * log((a_i(t_u) + 1) / (n_i + 2))
                                         + mix * z_u(sum_{j in u} B_ji / (n_i + 5)^damping)

    B         ridge regression of the part of each history that a coin hides on the part that it keeps (each event with
              chance p), in expectation over all throws: minimize E |X_hidden - X_kept B|^2 / p + l |off-diagonal B|^2.
              With G = X^T X, D its diagonal, P = (p G + (1 - p) D + l I)^-1 and B' = (1 - p) P (G - D), column i of
              B is B'_i + P_i l B'_ii / (1 - l P_ii).
    r_i       sum over the training rows of i of (rating - rating_floor)+ 0.5 ** ((t_max - t) / half_life), plus 0.01
    n_i       training rows of i;  a_i(t_u) those later than the user's last event: items that the user ignored so far
              count less than items that came up since
    z_u       standardized over the catalog, per user

B is the denoising autoencoder of Steck 2020 ("Autoencoders that don't overfit toward the Identity", NeurIPS) with
hidden events as targets. Kept events are never targets, so B learns that seen items do not come back: its
diagonal, which is free of the penalty, is below zero. RecentEDLAE is for splits by time, where users come back after a
while; a larger ``mix`` trades accuracy for coverage of the catalog.

Fold-in: none is needed. All users are scored by the history in the query, trained users too. Without history the score
is popularity, or log r; without times RecentEDLAE leaves its second part out.

Memory: at most 36 I^2 bytes to train and 4 I^2 for the model, and 4 I per time bin (I items): 3.6 GB and 0.4 GB at the
default bound of 10,000.

Shape legend: B users, C candidates, I items, U users of the training data, H history events, T time bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from scipy import linalg, sparse
from torch import Tensor, nn

from palate.base import Contributions, DataSpec, Query, Recipe, TrainOptions
from palate.bounds import Count, NonNegative, Positive
from palate.data.dataset import Dataset, Fingerprint
from palate.errors import RecipeError

DAY = 86_400.0
STRENGTH_FLOOR = 0.01  # so that an item without recent rows has a logarithm
SMOOTHING = 5.0  # rows added to each item before damping
SCORE_CELLS = 8_000_000  # scores held at once while only candidates are asked for
NEAR_ONE = 1 - 1e-6  # share of the penalty taken off the diagonal: all of it would divide by zero for an unseen item


class EDLAEModel(nn.Module):
    """Item-to-item weights (I, I), and the scores of users without history, (I,)."""

    trained_on: Fingerprint | None = None
    weights: Tensor
    prior: Tensor

    def __init__(self, items: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(items, items))
        self.register_buffer("prior", torch.zeros(items))

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """(B, C) or (B, I); the prior for users without a positive event."""
        pair_H = self._pairs(query)
        step = max(1, len(query) if items is None else SCORE_CELLS // len(self.prior))
        parts = []
        for row_B in torch.arange(len(query), device=self.prior.device).split(step):
            score_BI = self._catalog(query, row_B, pair_H)
            parts.append(score_BI if items is None else score_BI.gather(1, items[row_B]))
        return torch.cat(parts)

    def can_personalize(self, query: Query) -> Tensor:
        """Users, trained or new, with at least one event that is not a dislike, (B,)."""
        known_B = torch.zeros_like(query.user, dtype=torch.bool)
        known_B[self._pairs(query) // max(1, len(self.prior))] = True
        return known_B

    def contributions(self, query: Query, items: Tensor) -> Contributions:
        """B_ji of the first event with each liked item; the rest is the prior for users without a positive event."""
        rest_BC = self.prior[items].where(~self.can_personalize(query)[:, None], 0)
        if query.items is None:
            return Contributions(rest_BC[:0], rest_BC)
        event_HC = self.weights[query.items[:, None], items[query.owners()]]
        return Contributions(event_HC.where(self._counted(query)[:, None], 0), rest_BC)

    def _counted(self, query: Query) -> Tensor:
        """Which events count, (H,): of those of one user with one item the first that is no dislike."""
        assert query.items is not None
        place_H = torch.arange(len(query.items), device=query.items.device)
        liked_H = query.positive()
        pair, inverse_H = (query.owners() * len(self.prior) + query.items).unique(return_inverse=True)
        first = torch.full_like(pair, -1)
        first.scatter_reduce_(0, inverse_H[liked_H], place_H[liked_H], "amin", include_self=False)
        return first[inverse_H] == place_H

    def _catalog(self, query: Query, row_B: Tensor, pair_H: Tensor) -> Tensor:
        """Scores of all items for the users of ``row_B``, (B, I)."""
        return self._sums(row_B, pair_H).where(self.can_personalize(query)[row_B, None], self.prior)

    def _sums(self, row_B: Tensor, pair_H: Tensor) -> Tensor:
        """Sums of the rows of ``weights`` over the histories of adjacent users, (B, I)."""
        start_B, end_B = torch.searchsorted(pair_H, torch.stack([row_B, row_B + 1]) * len(self.prior))
        # A pair is user * I + item: pairs of adjacent users are adjacent, and the remainder is the item.
        event_H = pair_H[int(start_B[0]) : int(end_B[-1])] % len(self.prior)
        return F.embedding_bag(event_H, self.weights, start_B - start_B[0], mode="sum")

    def _pairs(self, query: Query) -> Tensor:
        """Distinct (user of the query, item) as one number each, ascending; dislikes are left out."""
        if query.items is None:
            return query.user[:0]
        pair_H = query.owners() * len(self.prior) + query.items
        distinct_H: Tensor = pair_H[query.positive()].unique()
        return distinct_H


class RecentEDLAEModel(EDLAEModel):
    """Adds the log strength of items now (as ``prior``), and the shares of later rows per time bin."""

    edges: Tensor
    later: Tensor

    def __init__(self, items: int, bins: int, since: float, mix: float) -> None:
        super().__init__(items)
        self.since, self.mix = since, mix
        self.register_buffer("edges", torch.zeros(bins, dtype=torch.float64))
        self.register_buffer("later", torch.zeros(bins + 1, items))

    def contributions(self, query: Query, items: Tensor) -> Contributions:
        """mix (B_ji - mean of B_j) / std_u of each event, std_u held as it is; the other two parts are the rest."""
        rest_BC = self.prior[items]
        if query.items is None:
            return Contributions(rest_BC[:0], rest_BC)
        all_B = torch.arange(len(query), device=items.device)
        rest_BC += (self._novelty(query, all_B) * self.can_personalize(query)[:, None]).gather(1, items)
        spread_B1 = _spread(self._sums(all_B, self._pairs(query)))
        scale_H1 = (self.mix * self._counted(query) / spread_B1[query.owners(), 0])[:, None]
        # Mean over the catalog and sum over the events swap, so every event carries the mean of its own row.
        added_HC = self.weights[query.items[:, None], items[query.owners()]]
        return Contributions(scale_H1 * (added_HC - self.weights.mean(1)[query.items, None]), rest_BC)

    def _catalog(self, query: Query, row_B: Tensor, pair_H: Tensor) -> Tensor:
        sum_BI = self._sums(row_B, pair_H)
        personal_BI = self.mix * (sum_BI - sum_BI.mean(1, keepdim=True)) / _spread(sum_BI)
        return self.prior + (personal_BI + self._novelty(query, row_B)) * self.can_personalize(query)[row_B, None]

    def _novelty(self, query: Query, row_B: Tensor) -> Tensor:
        """``since`` times the log share of later rows, (B, I); zeros without times."""
        if query.times is None:
            return torch.zeros_like(self.prior).expand(len(row_B), -1)
        # A user without events stays at -inf, in the first bin; the caller multiplies that row by 0.
        last_B = torch.full((len(query),), -torch.inf, dtype=torch.float64, device=row_B.device)
        last_B = last_B.scatter_reduce(0, query.owners(), query.times.double(), "amax")[row_B]
        return self.since * self.later[torch.searchsorted(self.edges, last_B, right=True)]


@dataclass(frozen=True)
class EDLAE(Recipe[EDLAEModel]):
    """Item-to-item weights that predict hidden events, and so rank seen items behind unseen ones.

    Args:
        keep: p, the chance that an event is kept rather than hidden.
        regularization: l, the L2 weight.
        max_items: refuse larger catalogs, since memory grows with the square.
    """

    name: ClassVar[str] = "edlae"

    keep: Annotated[float, Field(gt=0, lt=1)] = 0.8
    regularization: Positive = 200.0
    max_items: Count = 10_000

    def build(self, spec: DataSpec) -> EDLAEModel:
        """Zeros, ready for ``load_state_dict``.

        Raises:
            RecipeError: more items than ``max_items``.
        """
        self._check_size(spec)
        return EDLAEModel(spec.items)

    def _fit(self, train: Dataset, options: TrainOptions) -> EDLAEModel:
        """Invert the co-occurrences of the training rows; nothing is random.

        Raises:
            RecipeError: more items than ``max_items``.
        """
        model = self.build(DataSpec(train.n_users, train.n_items))
        weights_II, count_I = self._weights(train)
        model.weights.copy_(torch.from_numpy(weights_II))
        model.prior.copy_(torch.from_numpy(count_I / max(1, train.n_users)))
        model.trained_on = train.fingerprint
        return model.eval()

    def _weights(self, train: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """B, (I, I), and users per item, (I,)."""
        rows = train.interactions
        x_UI = sparse.csr_array((np.ones(len(rows)), (rows.user, rows.item)), shape=(train.n_users, train.n_items))
        x_UI.data[:] = 1  # a pair that occurs twice counts once
        target_II = (x_UI.T @ x_UI).toarray()
        diagonal = np.diag_indices_from(target_II)
        count_I = target_II[diagonal]
        gram_II = self.keep * target_II
        gram_II[diagonal] = count_I + self.regularization
        target_II[diagonal] = 0
        # The inverse itself is needed, not only a solution: its diagonal corrects the unpenalized one below.
        inverse_II = linalg.inv(gram_II, overwrite_a=True, check_finite=False)
        weights_II = (1 - self.keep) * (inverse_II @ target_II)
        free = self.regularization * NEAR_ONE
        weights_II += inverse_II * (free * weights_II[diagonal] / (1 - free * inverse_II[diagonal]))
        return weights_II, count_I

    def _check_size(self, spec: DataSpec) -> None:
        if spec.items > self.max_items:
            raise RecipeError(
                f"{spec.items:,} items exceed max_items={self.max_items:,}: training would take "
                f"{36e-9 * spec.items**2:,.1f} GB. Raise max_items if there is that much memory, or drop rare items"
            )


@dataclass(frozen=True)
class RecentEDLAE(EDLAE):
    """Recent popularity, novelty to the user and item-to-item weights in one score; rows need times.

    Args:
        half_life: days after which a row counts half.
        rating_floor: explicit ratings count by how much they are above it; implicit rows count 1.
        since: exponent of the share of an item's rows that came after the user's last visit.
        mix: weight of the item-to-item part, in standard deviations.
        damping: exponent of popularity that the item-to-item part is divided by.
        bins: time bins, each holding as many rows, that last visits are rounded to.
    """

    name: ClassVar[str] = "recent-edlae"

    keep: Annotated[float, Field(gt=0, lt=1)] = 0.5
    regularization: Positive = 100.0
    half_life: Positive = 10.0
    rating_floor: float = 0.0
    since: NonNegative = 0.5
    mix: NonNegative = 0.5
    damping: NonNegative = 0.9
    bins: Count = 64

    def build(self, spec: DataSpec) -> RecentEDLAEModel:
        """Zeros, ready for ``load_state_dict``.

        Raises:
            RecipeError: more items than ``max_items``.
        """
        self._check_size(spec)
        return RecentEDLAEModel(spec.items, self.bins, self.since, self.mix)

    def _fit(self, train: Dataset, options: TrainOptions) -> RecentEDLAEModel:
        """Count, and invert the co-occurrences of the training rows; nothing is random.

        Raises:
            RecipeError: the rows have no times, no rating is above ``rating_floor``, or there are too many items.
        """
        rows = train.interactions
        model = self.build(DataSpec(train.n_users, train.n_items))
        if rows.time is None or not len(rows):
            raise RecipeError(f"{train.name} has no times, which recency needs: name the time column, or use ease")
        value = np.maximum(rows.weight - self.rating_floor, 0) if train.explicit else np.ones(len(rows))
        if not value.any():
            highest = f"rating_floor={self.rating_floor:g}, the highest rating is {rows.weight.max():g}"
            raise RecipeError(f"{highest}: nothing would count, lower rating_floor")
        decay = np.exp2((rows.time - rows.time.max()) / (DAY * self.half_life))
        strength_I = np.bincount(rows.item, value * decay, train.n_items)
        weights_II, count_I = self._weights(train)
        weights_II /= (count_I + SMOOTHING) ** self.damping
        edges, later_TI = later_shares(rows.time, rows.item, train.n_items, self.bins)
        prior_I = np.log(strength_I + STRENGTH_FLOOR)
        mine = (model.weights, model.prior, model.edges, model.later)
        for buffer, value in zip(mine, (weights_II, prior_I, edges, later_TI), strict=True):
            buffer.copy_(torch.from_numpy(value))
        model.trained_on = train.fingerprint
        return model.eval()


def later_shares(
    time: NDArray[np.float64], item: NDArray[np.int32], n_items: int, bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bin edges (T,) at quantiles of time, and log((a + 1) / (n + 2)) for a last visit in each bin, (T + 1, I)."""
    # Quantiles rather than equal steps: each bin then holds as many rows, whatever the growth of the log.
    edges = np.quantile(time, np.linspace(0, 1, bins))
    place = np.searchsorted(edges, time, side="right") * n_items + item
    count_TI = np.bincount(place, minlength=(bins + 1) * n_items).reshape(bins + 1, n_items).astype(np.float64)
    total_I = count_TI.sum(0)
    after_TI = total_I - count_TI.cumsum(0)
    return edges, np.log((after_TI + 1) / (total_I + 2))


def _spread(sum_BI: Tensor) -> Tensor:
    """Standard deviation over the catalog, never 0, (B, 1)."""
    return sum_BI.std(1, correction=0, keepdim=True).clamp(min=1e-12)
