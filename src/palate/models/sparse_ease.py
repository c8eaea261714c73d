"""Sparse EASE: the item-to-item weights of EASE, each item's on its nearest items only, for catalogs of any width.

    w_i = (G_NN + l 1)^-1 G_Ni                N: the ``neighbors`` items of the greatest cosine with i, without i
    score(u, i) = sum over j in N of w_ij x_uj

G = X'X counts co-occurrences. With all other items as N this is EASE, the ridge regression of each item on the others
(Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW). The choice of N by cosine is that of fsSLIM
(Ning & Karypis 2011, "SLIM: Sparse Linear Methods for Top-N Recommender Systems", ICDM, section 4.3).

Fold-in: none is needed. All users are scored by the history in the query, trained users too; a query without history,
or with items only that are near to no other, gets popularity.

Memory: that of ``item_knn`` for the model; training holds the co-occurrences, 12 bytes each, and a bounded block of
equations.

Shape legend: I items, N items of a block, K neighbors, E entries above the diagonal of a K x K matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from palate.base import DataSpec, Recipe, TrainOptions
from palate.bounds import Count, Fraction, NonNegative, Positive
from palate.data.dataset import Dataset
from palate.errors import RecipeError
from palate.models.dot_product import Recency
from palate.models.item_knn import BLOCK_CELLS, ItemKNNModel, nearest, signed_rows
from palate.parallel import one_blas_thread
from palate.progress import ProgressEvent

BLOCK = 256  # equations solved at once
ENTRY_BYTES = 12  # of a co-occurrence
MOST_NEIGHBORS, NARROW_ITEMS = 100, 1_000  # with half as many, lists without tastes are below 0.9 of popularity


@dataclass(frozen=True)
class SparseEASE(Recipe[ItemKNNModel]):
    """Item-to-item weights by a small ridge regression per item; close to EASE, on catalogs too wide for it.

    Args:
        neighbors: items that each item is regressed on. "auto": by the number of items, 100 up to 1,000 items and half
            as many from 8,000 on, so that the time does not grow faster than the catalog.
        regularization: L2 weight.
        shrinkage: added to the denominator of the cosine that chooses the neighbors.
        max_gb: refuse data whose co-occurrences take more memory than so many GB.
        half_life_events: history events after which an item counts half in the history; None counts all alike.
        floor: the least weight of an item, however old, as a fraction of the latest.
    """

    name: ClassVar[str] = "sparse-ease"

    neighbors: Count | Literal["auto"] = 100
    regularization: Positive = 100.0
    shrinkage: NonNegative = 50.0
    max_gb: Positive = 6.0
    half_life_events: Positive | None = None
    floor: Fraction = 0.0

    @classmethod
    def fast(cls) -> SparseEASE:
        """Neighbors by the number of items: on wide catalogs a quarter of the time."""
        return cls(neighbors="auto")

    def _for_rows(self, rows: Dataset) -> SparseEASE:
        """Neighbors by the number of items."""
        return replace(self, neighbors=self._width(rows.n_items))

    def _width(self, n_items: int) -> int:
        if self.neighbors != "auto":
            return self.neighbors
        # A regression takes time in proportion to the third power of its neighbors.
        share = float((NARROW_ITEMS / max(NARROW_ITEMS, n_items)) ** (1 / 3))
        return max(MOST_NEIGHBORS // 2, round(MOST_NEIGHBORS * share))

    def build(self, spec: DataSpec) -> ItemKNNModel:
        """No weights yet, ready for ``load_state_dict``; never more neighbors than other items."""
        recency = Recency(self.half_life_events, self.floor)
        return ItemKNNModel(spec.items, max(1, min(self._width(spec.items), spec.items - 1)), recency=recency)

    def training_rows(self, train: Dataset) -> Dataset:
        """The positive rows, and the dislikes."""
        return train.positives(dislikes=True)

    def _fit(self, train: Dataset, options: TrainOptions) -> ItemKNNModel:
        """Solve one regression per item, in blocks; nothing is random.

        Raises:
            RecipeError: the co-occurrences take more than ``max_gb``.
        """
        model = self.build(DataSpec(train.n_users, train.n_items))
        width = model.neighbors.shape[1]
        x_UI = signed_rows(train)
        near_IK, likeness_IK, together = self._neighbors(x_UI, width)
        for first in range(0, train.n_items, BLOCK):
            part = slice(first, first + BLOCK)
            # Sorted, so that all pairs are looked up above the diagonal; empty places have likeness 0 and weight 0.
            order_NK = np.argsort(near_IK[part], axis=1, kind="stable")
            near_NK = np.take_along_axis(near_IK[part], order_NK, axis=1)
            real_NK = np.take_along_axis(likeness_IK[part], order_NK, axis=1) > 0
            model.neighbors[part] = torch.from_numpy(near_NK)
            model.similarities[part] = torch.from_numpy(self._weights(first, near_NK, real_NK, together))
            options.progress(
                ProgressEvent(f"train {self.name}", min(first + BLOCK, train.n_items), train.n_items, "item")
            )
        model.know(train, x_UI)
        return model.eval()

    def _neighbors(
        self, x_UI: sparse.csr_array, width: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], Cooccurrences]:
        """The nearest items of each item (I, K), their cosines, and the co-occurrences of all pairs."""
        x_IU, norm_I = x_UI.T.tocsr(), np.sqrt(x_UI.power(2).sum(axis=0))
        n_items = x_UI.shape[1]
        near, likeness, keys, counts, pairs = [], [], [], [], 0
        step = max(1, BLOCK_CELLS // max(1, n_items))
        for first in range(0, n_items, step):
            dot_NI = (x_IU[first : first + step] @ x_UI).tocsr()
            found = nearest(dot_NI, norm_I, first, self.shrinkage, width)
            near.append(found[0])
            likeness.append(found[1])
            above = sparse.triu(dot_NI, k=first, format="csr")
            above.sort_indices()
            row = first + np.repeat(np.arange(above.shape[0], dtype=np.int64), np.diff(above.indptr))
            keys.append(row * n_items + above.indices)
            counts.append(above.data.astype(np.float32))
            pairs += len(row)
            if ENTRY_BYTES * pairs > 1e9 * self.max_gb:
                done = min(1.0, (first + step) / n_items)
                raise RecipeError(
                    f"recipe {self.name}: co-occurrences of {done:.0%} of the items take max_gb={self.max_gb:g} GB: "
                    "raise max_gb if there is that much memory, drop rare items, or use item-knn"
                )
        return np.concatenate(near), np.concatenate(likeness), Cooccurrences(keys, counts, n_items)

    @one_blas_thread()
    def _weights(
        self, first: int, near_NK: NDArray[np.int32], real_NK: NDArray[np.bool_], together: Cooccurrences
    ) -> NDArray[np.float32]:
        """The solution of the regressions of the items from ``first`` on, (N, K)."""
        n, k = near_NK.shape
        gram_NKK = np.zeros((n, k, k))
        row_E, column_E = np.triu_indices(k, 1)
        both_NE = real_NK[:, row_E] & real_NK[:, column_E]
        gram_NKK[:, row_E, column_E] = together.of(near_NK[:, row_E], near_NK[:, column_E]) * both_NE
        gram_NKK += gram_NKK.transpose(0, 2, 1)
        diagonal = np.arange(k)
        gram_NKK[:, diagonal, diagonal] = together.of(near_NK, near_NK) + self.regularization
        own_N1 = np.arange(first, first + n, dtype=np.int32)[:, None]
        target_NK = together.of(np.minimum(near_NK, own_N1), np.maximum(near_NK, own_N1)) * real_NK
        return np.linalg.solve(gram_NKK, target_NK[..., None])[..., 0].astype(np.float32)


class Cooccurrences:
    """Numbers of users with both items of a pair, on and above the diagonal.

    Args:
        keys: sorted numbers of pairs, row times ``n_items`` plus column, in parts.
        counts: of each pair, in the same parts.
        n_items: width of the catalog.
    """

    def __init__(self, keys: list[NDArray[np.int64]], counts: list[NDArray[np.float32]], n_items: int) -> None:
        self.keys, self.counts, self.n_items = np.concatenate(keys), np.concatenate(counts), n_items

    def of(self, row: NDArray[np.int32], column: NDArray[np.int32]) -> NDArray[np.float32]:
        """The counts of pairs with row <= column, of any shape; 0 where no user has both."""
        wanted = row.astype(np.int64) * self.n_items + column
        if not len(self.keys):
            return np.zeros(wanted.shape, np.float32)
        at = np.minimum(self.keys.searchsorted(wanted.ravel()), len(self.keys) - 1).reshape(wanted.shape)
        return np.where(self.keys[at] == wanted, self.counts[at], np.float32(0))
