"""EASE: a linear model from items to items in closed form (Steck 2019, "Embarrassingly Shallow Autoencoders", WWW).

    minimize |X - X B|^2 + regularization |B|^2  with  diag(B) = 0
    P = (X^T X + regularization I)^-1,   B_ji = -P_ji / P_ii,  B_ii = 0                   (eq. 8)
    score(u, i) = sum over the items j of u's history of  w_uj B_ji

X holds 1 where a user touched an item and -1 where the weight is below zero (a dislike). The latest items of a history
predict the next one best, so the history may be weighted by the number of events since an item was touched (see
``Recency``); without ``half_life_events`` all w are 1.

With ``cooccurrence_window`` only items that a user touched at about the same time co-occur: X^T X becomes
sum_u X_u^T K_u X_u with K = exp(-|t_a - t_b| / cooccurrence_window) for two events of one user. The kernel is positive
definite, so the rest stays as it is. This model learns pages and sessions rather than taste: a member for ensembles.

Fold-in: none is needed. All users are scored by the history in the query, trained users too; a query without history,
or with items only that have no training rows, gets popularity.

Memory: 12 I^2 bytes to train and 4 I^2 for the model (I items), 4.8 GB and 1.6 GB at the default bound of 20,000, and
about 150 MB besides. Time to train grows with I^3: seconds at 4,000 items, many minutes at 20,000 on one core.

Shape legend: B users, C candidates, I items, N entries of X, n entries of one user, H history events of the query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack
from torch import Tensor, nn

from palate.base import Contributions, DataSpec, Query, Recipe, TrainOptions
from palate.bounds import Count, Fraction, Positive
from palate.data.dataset import Dataset, Fingerprint
from palate.errors import RecipeError
from palate.models.dot_product import Recency

SCORE_CELLS = 16_000_000  # scores held at once while only candidates are asked for: 64 MB
BLOCK_CELLS = 4_000_000  # cells of X^T X computed at once


class EASEModel(nn.Module):
    """Item-to-item weights (I, I): row j is the contribution of item j to the score of every item."""

    trained_on: Fingerprint | None = None
    weights: Tensor
    popularity: Tensor

    def __init__(self, items: int, half_life_events: float | None = None, floor: float = 0.0) -> None:
        super().__init__()
        self.recency = Recency(half_life_events, floor)
        self.register_buffer("weights", torch.zeros(items, items))
        self.register_buffer("popularity", torch.zeros(items))

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """(B, C) or (B, I); popularity for users without a known item."""
        known_B = self.can_personalize(query)
        if not bool(known_B.any()):
            return self.popularity.expand(len(query), -1) if items is None else self.popularity[items]
        strength_H = self._strengths(query)
        # For the whole catalog (B, I) is the answer itself; for a few candidates it is only an intermediate.
        step = len(query) if items is None else max(1, SCORE_CELLS // len(self.popularity))
        parts = []
        for first in range(0, len(query), step):
            part = slice(first, min(first + step, len(query)))
            scores_BI = self._catalog(query, strength_H, part).where(known_B[part, None], self.popularity)
            parts.append(scores_BI if items is None else scores_BI.gather(1, items[part]))
        return torch.cat(parts)

    def can_personalize(self, query: Query) -> Tensor:
        """Users, trained or new, whose history holds an item of the training rows, (B,)."""
        if query.items is None:
            return torch.zeros(len(query), dtype=torch.bool, device=self.popularity.device)
        met_H = (self.popularity[query.items] > 0).to(torch.int64)
        return torch.zeros_like(query.user).index_add_(0, query.owners(), met_H) > 0

    def contributions(self, query: Query, items: Tensor) -> Contributions:
        """w_uj B_ji of each event; the rest is popularity for users without a known item, 0 for others."""
        known_B = self.can_personalize(query)
        rest_BC = self.popularity[items].where(~known_B[:, None], 0)
        if query.items is None:
            return Contributions(rest_BC[:0], rest_BC)
        owner_H = query.owners()
        strength_H = self._strengths(query) * known_B[owner_H]
        return Contributions(strength_H[:, None] * self.weights[query.items[:, None], items[owner_H]], rest_BC)

    def _catalog(self, query: Query, strength_H: Tensor, part: slice) -> Tensor:
        """Sums of the rows of ``weights`` over the histories of some of the users, (B, I)."""
        assert query.offsets is not None
        assert query.items is not None
        offsets = query.offsets[part.start : part.stop + 1]
        events = slice(int(offsets[0]), int(offsets[-1]))
        return F.embedding_bag(
            query.items[events],
            self.weights,
            offsets - offsets[0],
            mode="sum",
            per_sample_weights=strength_H[events],
            include_last_offset=True,
        )

    def _strengths(self, query: Query) -> Tensor:
        """The weight of each event, (H,): of several events of one user with one item only the latest counts."""
        assert query.offsets is not None
        assert query.items is not None
        owner_H, place_H = query.owners(), torch.arange(len(query.items), device=query.items.device)
        # A user and an item as one number: one unique instead of a loop over users.
        pair, inverse_H = (owner_H * len(self.popularity) + query.items).unique(return_inverse=True)
        latest = torch.zeros_like(pair).scatter_reduce_(0, inverse_H, place_H, "amax", include_self=False)
        strength_H = (latest[inverse_H] == place_H).to(self.weights.dtype)
        if query.weights is not None:
            strength_H = torch.where(query.weights < 0, -strength_H, strength_H)
        return strength_H * self.recency.weights(query.offsets)


@dataclass(frozen=True)
class EASE(Recipe[EASEModel]):
    """Item-to-item weights by one inversion; strong where the catalog is of moderate size.

    Args:
        regularization: L2 weight; more data needs more (500 suits MovieLens 100K, 1,000 suits 1M).
        half_life_events: history events after which an item counts half in the history; None counts all alike.
        floor: the least weight of an item, however old, as a fraction of the latest.
        cooccurrence_window: seconds over which a co-occurrence loses all but 1/e of its weight; None counts all alike.
        max_items: refuse larger catalogs, since memory grows with the square.
    """

    name: ClassVar[str] = "ease"

    regularization: Positive = 500.0
    half_life_events: Positive | None = None
    floor: Fraction = 0.0
    cooccurrence_window: Positive | None = None
    max_items: Count = 20_000

    def build(self, spec: DataSpec) -> EASEModel:
        """Zero weights, ready for ``load_state_dict``.

        Raises:
            RecipeError: more items than ``max_items``.
        """
        if spec.items > self.max_items:
            needed = 12e-9 * spec.items**2
            raise RecipeError(
                f"{spec.items:,} items exceed max_items={self.max_items:,}: training would take {needed:,.1f} GB. "
                "Raise max_items if there is that much memory, drop rare items, or use sparse-ease"
            )
        return EASEModel(spec.items, self.half_life_events, self.floor)

    def training_rows(self, train: Dataset) -> Dataset:
        """The positive rows, and the dislikes."""
        return train.positives(dislikes=True)

    def _fit(self, train: Dataset, options: TrainOptions) -> EASEModel:
        """Invert the co-occurrences of the training rows; nothing is random.

        Raises:
            RecipeError: more items than ``max_items``, ``regularization`` too small to invert, or
                ``cooccurrence_window`` without timestamps.
        """
        model = self.build(DataSpec(train.n_users, train.n_items))
        x_UI, time_N = _matrix(train)
        if self.cooccurrence_window is None:
            gram_II = _gram(x_UI)
        elif time_N is None:
            raise RecipeError(
                f"{train.name} has no timestamps: leave cooccurrence_window={self.cooccurrence_window:g} out"
            )
        else:
            gram_II = _gram_together(x_UI, time_N / self.cooccurrence_window)
        gram_II[np.diag_indices_from(gram_II)] += self.regularization
        # Symmetric, so its transpose is the same matrix in the column order that LAPACK overwrites in place.
        factor, failed = lapack.dpotrf(gram_II.T, overwrite_a=True, clean=False)
        inverse, failed = lapack.dpotri(factor, overwrite_c=True) if not failed else (factor, failed)
        if failed:
            raise RecipeError(f"regularization={self.regularization:g} is too small for {train.name}: raise it")
        _fill(model.weights.numpy(), inverse.T)
        model.popularity.copy_(torch.from_numpy(np.bincount(x_UI.indices[x_UI.data > 0], minlength=train.n_items)))
        model.popularity /= max(1, train.n_users)
        model.trained_on = train.fingerprint
        return model.eval()


def _matrix(train: Dataset) -> tuple[sparse.csr_array, NDArray[np.float64] | None]:
    """Users by items: 1, or -1 where the latest weight of the pair is below zero; and the latest time of each entry."""
    history = train.history
    owner = np.repeat(np.arange(len(history)), history.counts)
    pair = owner * train.n_items + history.items
    # Reversed, since unique keeps the first of each pair and the latest event must decide.
    pair, from_end = np.unique(pair[::-1], return_index=True)
    value = np.where(history.weights[::-1][from_end] < 0, -1.0, 1.0)
    user, item = np.divmod(pair, max(1, train.n_items))
    offsets = np.concatenate([[0], np.bincount(user, minlength=train.n_users).cumsum()])
    x_UI = sparse.csr_array((value, item, offsets), shape=(train.n_users, train.n_items))
    return x_UI, None if history.times is None else history.times[::-1][from_end]


def _gram(x_UI: sparse.csr_array) -> NDArray[np.float64]:
    """X^T X as a dense matrix, made in blocks of rows."""
    items = x_UI.shape[1]
    # A sparse product of the whole would hold every cell with its column number: three times the dense matrix.
    gram_II = np.empty((items, items))
    x_IU = x_UI.T.tocsr()
    step = max(1, BLOCK_CELLS // max(1, items))
    for first in range(0, items, step):
        gram_II[first : first + step] = (x_IU[first : first + step] @ x_UI).toarray()
    return gram_II


def _gram_together(x_UI: sparse.csr_array, time_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over users of X^T K X with K = exp(-|t_a - t_b|), one user's block of items at a time."""
    gram_II = np.zeros((x_UI.shape[1],) * 2)
    for user in np.flatnonzero(np.diff(x_UI.indptr)):
        part = slice(x_UI.indptr[user], x_UI.indptr[user + 1])
        item_n, value_n, time_n = x_UI.indices[part], x_UI.data[part], time_N[part]
        # One user's block at a time: a kernel over all entries would take memory by the square of the rows.
        kernel_nn = np.exp(-np.abs(time_n[:, None] - time_n))
        gram_II[np.ix_(item_n, item_n)] += kernel_nn * np.outer(value_n, value_n)
    return gram_II


def _fill(weights_II: NDArray[np.float32], inverse_II: NDArray[np.float64]) -> None:
    """Write -P_ji / P_ii and a zero diagonal; of ``inverse_II`` only the lower triangle is valid."""
    items = len(inverse_II)
    diagonal_I = np.diag(inverse_II).copy()
    step = max(1, BLOCK_CELLS // max(1, items))
    for first in range(0, items, step):
        last = min(first + step, items)
        square = np.tril(inverse_II[first:last, first:last])
        square += np.tril(square, -1).T
        above = inverse_II[last:, first:last].T
        whole = np.concatenate([inverse_II[first:last, :first], square, above], axis=1)
        weights_II[first:last] = -whole / diagonal_I
    np.fill_diagonal(weights_II, 0.0)
