"""Metrics of the listed items themselves, relevant or not: how known, how varied, how fitting, how evenly spread.

    items = ItemFacts.of(train)
    novelty(list_BK, items.information)          # (B,) bits per user
    gini(exposure_I)                             # one number of all lists

Shape legend: B users, K places, I items, G feature values. A list holds row numbers of items, -1 where a place is
empty. A user for whom a metric is undefined (an empty list, items without features) has NaN: a 0 would move the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import rel_entr

from palate.data.dataset import Dataset, History
from palate.data.features import indicators

Floats = NDArray[np.float64]
EVENTS = 1 << 18  # training rows looked at together: about 10 MB
STEEPNESS = 0.01  # Steck's alpha: how much of the target is mixed into the list, so that the divergence stays finite
BIN_EDGES = (0.01, 0.05, 0.2, 0.5, 1.0)  # of the catalog by popularity: its head is small, so bins widen


@dataclass(frozen=True)
class ItemFacts:
    """Training counts and feature vectors of each item.

    Args:
        rows: (I,) training rows of the item.
        users: (I,) distinct training users of the item.
        information: (I,) -log2 of their fraction of all training users; an item without users counts as one user.
        vectors: (I, G) unit rows over the values of the categorical features, such as genres; None without any.
        features: names of these features.
    """

    rows: NDArray[np.int64]
    users: NDArray[np.int64]
    information: Floats
    vectors: sparse.csr_array | None
    features: tuple[str, ...]

    @classmethod
    def of(cls, train: Dataset) -> ItemFacts:
        """Count the training rows, a part of the users at a time, and encode the item features."""
        rows_I, users_I = np.zeros((2, train.n_items), np.int64)
        history, offsets = train.history, train.history.offsets
        first = 0
        while first < train.n_users:
            last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + EVENTS, side="right")) - 1)
            items = history.items[offsets[first] : offsets[last]]
            rows_I += np.bincount(items, minlength=train.n_items)
            user = np.repeat(np.arange(last - first), np.diff(offsets[first : last + 1]))
            # Distinct pairs by sorting keys: np.unique over two columns is far slower.
            key = np.sort(user * train.n_items + items)
            distinct = key[np.flatnonzero(np.diff(key, prepend=-1))]
            users_I += np.bincount(distinct % train.n_items, minlength=train.n_items)
            first = last
        active_users = max(1, int(np.count_nonzero(history.counts)))
        vectors, features = _vectors(train.item_features)
        return cls(rows_I, users_I, -np.log2(np.maximum(users_I, 1) / active_users), vectors, features)

    @property
    def mix(self) -> sparse.csr_array | None:
        """(I, G) how an item spreads over the feature values: rows sum to 1, or 0 where nothing is known."""
        return None if self.vectors is None else self.vectors.power(2)  # squares of a unit row sum to 1


def novelty(list_BK: NDArray[Any], information_I: Floats) -> Floats:
    """Mean self-information, in bits, of the items of each list (Vargas & Castells 2011)."""
    return _mean_of_filled(list_BK, information_I)


def popularity(list_BK: NDArray[Any], users_I: NDArray[Any]) -> Floats:
    """Average popularity: mean number of training users of the items of each list (Yin et al. 2012, ARP)."""
    return _mean_of_filled(list_BK, users_I)


def diversity(list_BK: NDArray[Any], vectors_IG: sparse.csr_array) -> Floats:
    """Intra-list diversity: mean of 1 - cosine over the pairs of items of each list (Ziegler et al. 2005).

    For unit vectors v the cosines of all pairs sum to (|sum v|^2 - n) / 2, so no pair is ever formed. Items without
    features are left out; a list with fewer than two others has no pairs: NaN.
    """
    known_B = _sums(list_BK, sparse.csr_array((np.diff(vectors_IG.indptr) > 0).astype(np.float64)[:, None]))[:, 0]
    square_B = np.square(_sums(list_BK, vectors_IG)).sum(axis=1)
    pairs_B = np.where(known_B > 1, known_B * (known_B - 1), np.nan)
    diversity_B: Floats = np.maximum(0.0, 1 - (square_B - known_B) / pairs_B)
    return diversity_B


def calibration(list_BK: NDArray[Any], mix_IG: sparse.csr_array, history: History) -> Floats:
    """Miscalibration, in nats: KL divergence of the list's mix of feature values from that of the user's history.

    Steck 2018 ("Calibrated Recommendations", equations 2 to 5) with equal weights and alpha = 0.01: sum over g of
    p(g) log(p(g) / ((1 - alpha) q(g) + alpha p(g))). 0 is perfect, 4.6 the worst. NaN where the list or the history
    (one per list) holds no item with features.
    """
    shape = (len(history), mix_IG.shape[0])
    events = sparse.csr_array((np.ones(len(history.items)), history.items, history.offsets), shape)
    p_BG, q_BG = (events @ mix_IG).toarray(), _sums(list_BK, mix_IG)
    for sums_BG in (p_BG, q_BG):
        total_B1 = sums_BG.sum(axis=1, keepdims=True)
        # NaN, not 0, where nothing has features: it then stays out of the mean over users.
        np.divide(sums_BG, np.where(total_B1 > 0, total_B1, np.nan), out=sums_BG)
    divergence_B: Floats = rel_entr(p_BG, (1 - STEEPNESS) * q_BG + STEEPNESS * p_BG).sum(axis=1)
    return np.maximum(0.0, divergence_B)


def exposure(list_BK: NDArray[Any], items: int) -> NDArray[np.int64]:
    """Number of places that each item fills in all lists, (I,)."""
    return np.bincount(list_BK[list_BK >= 0], minlength=items)


def coverage(exposure_I: NDArray[np.int64]) -> float:
    """Share of the catalog that stands in at least one list."""
    return float(np.count_nonzero(exposure_I) / len(exposure_I))


def gini(exposure_I: NDArray[np.int64]) -> float:
    """Gini coefficient of exposure over the whole catalog: 0 if all items are listed alike, near 1 if one is always.

    sum over i of (2 i - I - 1) x_i / (I sum x), with x ascending and i from 1 (Fleder & Hosanagar 2009). NaN where
    nothing is listed.
    """
    total, items = int(exposure_I.sum()), len(exposure_I)
    if not total:
        return float("nan")
    weight_I = 2 * np.arange(1, items + 1) - items - 1
    return float((weight_I * np.sort(exposure_I)).sum() / (items * total))


def lorenz(exposure_I: NDArray[np.int64], points: int = 50) -> list[tuple[float, float]]:
    """Lorenz curve of exposure: (share of the catalog, least listed first; its share of all places)."""
    total, items = max(1, int(exposure_I.sum())), len(exposure_I)  # empty lists give a flat curve
    places = np.append(0, np.cumsum(np.sort(exposure_I)))
    at = np.unique(np.linspace(0, items, min(points, items + 1)).round().astype(np.int64))
    return [(float(x / items), float(places[x] / total)) for x in at]


def popularity_bins(users_I: NDArray[np.int64], exposure_I: NDArray[np.int64]) -> list[tuple[str, float, float, float]]:
    """Bins of items from the most popular down: (label, share of catalog, of training users' items, of places)."""
    # Stable, so that items of equal popularity fall into the same bin for every model.
    order = np.argsort(-users_I, kind="stable")
    # Edges that coincide in a small catalog count once, so that no bin is empty.
    edges = np.unique(np.ceil(np.array((0, *BIN_EDGES)) * len(order)).astype(np.int64))
    bins = []
    for low, high in pairwise(edges.tolist()):
        history, lists = (float(x[order[low:high]].sum() / max(1, x.sum())) for x in (users_I, exposure_I))
        label = f"{low / len(order):.0%} to {high / len(order):.0%} most popular"
        bins.append((label, (high - low) / len(order), history, lists))
    return bins


def _vectors(table: pl.DataFrame | None) -> tuple[sparse.csr_array | None, tuple[str, ...]]:
    """Unit rows over the categories of every categorical column, each known column weighing the same."""
    blocks, names = [], []
    for column in [] if table is None else table:
        if _categorical(column) and (found := indicators(column.to_frame())):
            blocks += found
            names.append(column.name)
    if not blocks:
        return None, ()
    stacked = sparse.csr_array(sparse.hstack(blocks, format="csr"), dtype=np.float64)
    # Lengths over all columns together, so that the product of two rows is their cosine.
    length_I = np.sqrt(stacked.power(2).sum(axis=1))
    scale = np.repeat(1 / np.where(length_I > 0, length_I, 1), np.diff(stacked.indptr))
    return sparse.csr_array((stacked.data * scale, stacked.indices, stacked.indptr), stacked.shape), tuple(names)


def _categorical(column: pl.Series) -> bool:
    """Lists of strings, or strings that repeat."""
    # Strings that mostly occur once are names or titles: as categories they would make all items look different.
    if isinstance(column.dtype, pl.List):
        return column.dtype.inner == pl.String
    text = column.dtype == pl.String or isinstance(column.dtype, pl.Categorical | pl.Enum)
    return text and column.n_unique() <= len(column) / 2


def _mean_of_filled(list_BK: NDArray[Any], value_I: NDArray[Any]) -> Floats:
    filled_BK = list_BK >= 0
    count_B = filled_BK.sum(axis=1)
    sum_B: Floats = np.where(filled_BK, value_I[np.maximum(list_BK, 0)], 0.0).sum(axis=1)  # -1 would read the last item
    return sum_B / np.where(count_B, count_B, np.nan)


def _sums(list_BK: NDArray[Any], matrix_IG: sparse.csr_array) -> Floats:
    """Sum of the matrix rows of each list's items, (B, G)."""
    filled_BK = list_BK >= 0
    offsets = np.append(0, np.cumsum(filled_BK.sum(axis=1)))
    items = list_BK[filled_BK]
    # A product with a 0/1 matrix adds up the rows without forming (B, K, G).
    picked = sparse.csr_array((np.ones(len(items)), items, offsets), (len(list_BK), matrix_IG.shape[0]))
    sums: Floats = (picked @ matrix_IG).toarray()
    return sums
