"""GF-CF: graph filters on the bipartite graph of users and items, in closed form.

    R_a = D_U^-a X D_I^(a-1),   P = R_a'R_a                   D: degrees; a: ``asymmetry``
    s_u = x_u [ P_K^s + b D_I^-1/2 V V' D_I^1/2 ]             V: the first right singular vectors of R_1/2

P is a linear filter of the signal x_u on the graph of items, of which each item keeps its K greatest entries, raised to
the power s (``power``) element by element. V V' is an ideal low-pass filter, weighted by b (``low_pass``). With a = .5,
s = 1 and all entries this is GF-CF (Shen et al. 2021, "How Powerful is Graph Convolution for Recommendation?", CIKM,
eq. 13); the asymmetric normalization and the power are those of Turbo-CF (Park, Shin & Shin 2024, "Turbo-CF: Matrix
Decomposition-Free Graph Filtering for Fast Recommendation", SIGIR, eq. 6 and 10), where s < 1 lifts weak entries.

The cutoff of the low-pass filter is set by the data: R_1/2 of random rows with n events per user and m per item has
singular values up to about n^-1/2 + m^-1/2, the first one apart, which stands for popularity. V holds the vectors
whose singular value is above that, at most ``dim``.

Fold-in: none is needed. All users are scored by the history in the query, trained users too; a query without history,
or with items only that share no user with another, gets popularity. Dislikes count -1.

Memory: 8 K I + 4 D I bytes for the model; training holds R~, its singular vectors and a bounded block of P.

Shape legend: B users, C candidates, I items, H history events, K neighbors, D width of the low-pass filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds
from torch import Tensor, nn

from palate.base import Contributions, DataSpec, Query, Recipe, TrainOptions
from palate.bounds import Count, Fraction, NonNegative, Positive, Width
from palate.data.dataset import Dataset, Fingerprint
from palate.models.dot_product import Recency
from palate.models.item_knn import BLOCK_CELLS, ItemKNNModel, nearest, signed_rows
from palate.models.scale import Scale
from palate.progress import ProgressEvent
from palate.training.layers import dot_products

__all__ = ["GFCF", "GFCFModel"]

SPECTRUM = 8  # the low-pass filter keeps at most one in so many of the singular vectors


class GFCFModel(nn.Module):
    """The two filters: ``linear`` holds P_K^s as lists of neighbors, ``inward`` and ``outward`` (I, D) the low-pass."""

    trained_on: Fingerprint | None = None
    inward: Tensor
    outward: Tensor

    def __init__(self, items: int, neighbors: int, dim: int, recency: Recency) -> None:
        super().__init__()
        self.linear = ItemKNNModel(items, neighbors, recency=recency)
        self.register_buffer("inward", torch.zeros(items, dim))
        self.register_buffer("outward", torch.zeros(items, dim))

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """(B, C) or (B, I); popularity for users without an item that shares a user with another."""
        known_B = self.can_personalize(query)
        if not bool(known_B.any()):
            return self.linear.score(query, items)
        low_BD = self._low_pass(query) * known_B[:, None]
        return self.linear.score(query, items) + dot_products(low_BD, self.outward, items)

    def can_personalize(self, query: Query) -> Tensor:
        """Users, trained or new, whose history holds an item near to another, (B,)."""
        return self.linear.can_personalize(query)

    def contributions(self, query: Query, items: Tensor) -> Contributions:
        """Both filters' part of each event; popularity is the rest where nothing is known."""
        parts = self.linear.contributions(query, items)
        if query.items is None:
            return parts
        owner_H = query.owners()
        low_HC = torch.einsum("hd,hcd->hc", self.inward[query.items], self.outward[items][owner_H])
        value_H = self.linear.values(query) * self.can_personalize(query)[owner_H]
        return Contributions(parts.event + low_HC * value_H[:, None], parts.rest)

    def _low_pass(self, query: Query) -> Tensor:
        """The spectrum of each history below the cutoff, (B, D)."""
        assert query.offsets is not None
        assert query.items is not None
        values_H = self.linear.values(query)
        return F.embedding_bag(
            query.items,
            self.inward,
            query.offsets,
            mode="sum",
            per_sample_weights=values_H.to(self.inward.dtype),
            include_last_offset=True,
        )


@dataclass(frozen=True)
class GFCF(Recipe[GFCFModel]):
    """Graph filters without training: a sparse linear filter between items and an ideal low-pass of their spectrum.

    Args:
        neighbors: entries kept of each item's row of the linear filter.
        asymmetry: a; above 0.5 long histories count less in P, and popular items more.
        power: s, of each entry of the linear filter.
        low_pass: b, weight of the low-pass filter; 0 leaves it out.
        dim: the most singular vectors of the low-pass filter, and never more than an eighth of the users or items.
        half_life_events: history events after which an item counts half in the history; None counts all alike.
        floor: the least weight of an item, however old, as a fraction of the latest.
    """

    name: ClassVar[str] = "gf-cf"

    neighbors: Count = 500
    asymmetry: Fraction = 0.6
    power: Positive = 0.6
    low_pass: NonNegative = 0.6
    dim: Width = 256
    half_life_events: Positive | None = None
    floor: Fraction = 0.0

    def build(self, spec: DataSpec) -> GFCFModel:
        """Empty filters, ready for ``load_state_dict``; never more neighbors than other items."""
        recency = Recency(self.half_life_events, self.floor)
        # A filter that lets more than the lowest part of a short spectrum pass is none.
        width = min(self.dim, max(1, min(spec.users, spec.items) // SPECTRUM)) if self.low_pass else 0
        return GFCFModel(spec.items, max(1, min(self.neighbors, spec.items - 1)), width, recency)

    def training_rows(self, train: Dataset) -> Dataset:
        """The positive rows, and the dislikes."""
        return train.positives(dislikes=True)

    def _fit(self, train: Dataset, options: TrainOptions) -> GFCFModel:
        """Compute both filters; nothing is random."""
        model = self.build(DataSpec(train.n_users, train.n_items))
        x_UI = signed_rows(train)
        x_UI.data = np.sign(x_UI.data)  # several rows of a pair are one edge
        degree_U, degree_I = (np.maximum(abs(x_UI).sum(axis=axis), 1.0) for axis in (1, 0))
        self._linear(model.linear, normalized(x_UI, degree_U, degree_I, self.asymmetry), options)
        if model.inward.shape[1]:
            options.progress(ProgressEvent(f"train {self.name}", message="singular vectors"))
            v_ID = low_pass(normalized(x_UI, degree_U, degree_I, 0.5), model.inward.shape[1], Scale.of(train).noise)
            model.inward.copy_(torch.from_numpy(v_ID / np.sqrt(degree_I[:, None])))
            model.outward.copy_(torch.from_numpy(self.low_pass * v_ID * np.sqrt(degree_I[:, None])))
        model.linear.know(train, x_UI)
        model.trained_on = train.fingerprint
        return model.eval()

    def _linear(self, linear: ItemKNNModel, r_UI: sparse.csr_array, options: TrainOptions) -> None:
        """Write the greatest entries of each row of P, in blocks of rows."""
        n_items, width = linear.neighbors.shape
        r_IU, ones_I = r_UI.T.tocsr(), np.ones(n_items)
        step = max(1, BLOCK_CELLS // n_items)
        for first in range(0, n_items, step):
            part = slice(first, min(first + step, n_items))
            near_NK, entry_NK = nearest((r_IU[part] @ r_UI).tocsr(), ones_I, first, 0.0, width)
            linear.neighbors[part], linear.similarities[part] = map(torch.from_numpy, (near_NK, entry_NK**self.power))
            options.progress(ProgressEvent(f"train {self.name}", part.stop, n_items, "item"))


def normalized(
    x_UI: sparse.csr_array, degree_U: NDArray[np.float64], degree_I: NDArray[np.float64], asymmetry: float
) -> sparse.csr_array:
    """R_a: the entries over powers of the degrees of their users and items."""
    scaled_U = np.repeat(degree_U**-asymmetry, np.diff(x_UI.indptr))
    weight = x_UI.data * scaled_U * degree_I[x_UI.indices] ** (asymmetry - 1)
    return sparse.csr_array((weight, x_UI.indices, x_UI.indptr), shape=x_UI.shape)


def low_pass(r_UI: sparse.csr_array, count: int, cutoff: float) -> NDArray[np.float64]:
    """The first right singular vectors (I, D) in columns; those with values up to ``cutoff`` are 0, but never all."""
    if count < min(r_UI.shape) // 4:
        _, value_D, v_DI = svds(r_UI, k=count, rng=np.random.default_rng(0), return_singular_vectors="vh")
    else:  # ARPACK needs room between the vectors and the rank; so small a matrix may be dense
        _, value_D, v_DI = np.linalg.svd(r_UI.toarray(), full_matrices=False)
        value_D, v_DI = value_D[:count], v_DI[:count]
    kept_D = value_D > min(cutoff, value_D.max() * (1 - 1e-9))
    return np.where(kept_D[:, None], v_DI, 0.0).T
