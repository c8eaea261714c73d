"""Items similar to an item: looked up by id or title, compared by the model's item vectors or by common users.

Shape legend: I items, D width of a vector.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from palate.base import ItemVectors, Model
from palate.data.dataset import History
from palate.data.ids import IdMap
from palate.errors import DataError
from palate.top_k import top_k


@dataclass(frozen=True, eq=False)
class SimilarItems:
    """Nearest neighbors among the items of a fitted model.

    Args:
        model: a fitted model, with or without item vectors.
        items: the id map of the training data.
        seen: the training history, one (perhaps empty) history per user row.
        titles: one readable name per item row, or None.
    """

    model: Model
    items: IdMap
    seen: History
    titles: pl.Series | None = None

    def to(self, item: int | str, k: int) -> pl.DataFrame:
        """The k most similar items, best first: item_id, rank, score, source, title (if titles are known).

        Source "model" is the cosine of item vectors; source "co-occurrence", for models without them, is that of the
        sets of users, n_ij / sqrt(n_i n_j), where only items with n_ij > 0 are listed.

        Raises:
            DataError: the item is unknown; the message suggests similar names.
        """
        row = self.row(item)
        if self.unit_items is None:
            # The cosine with every item over their users.
            by_user, by_item = self._incidence
            both = np.bincount(by_user[by_item[[row]].indices].indices, minlength=len(self.items))
            users_I: NDArray[np.float64] = np.diff(by_item.indptr).astype(np.float64)
            cosine_I = both / np.sqrt(np.maximum(users_I * users_I[row], 1.0))
            source = "co-occurrence"
            score_I = torch.from_numpy(np.where(both > 0, cosine_I, -np.inf).astype(np.float32))
        else:
            source, score_I = "model", self.unit_items @ self.unit_items[row]
        score_I[row] = -torch.inf
        values, index = (found[0].cpu().numpy() for found in top_k(score_I.unsqueeze(0), k))
        kept = values > -np.inf
        best = index[kept]
        frame = pl.DataFrame(
            {
                "item_id": self.items.external(best),
                "rank": pl.Series(np.arange(1, len(best) + 1), dtype=pl.Int32),
                "score": pl.Series(values[kept], dtype=pl.Float32),
                "source": pl.Series([source] * len(best), dtype=pl.String),
            }
        )
        return frame if self.titles is None else frame.with_columns(title=self.titles.gather(best))

    def row(self, item: int | str) -> int:
        """The row of an item id, or of a title (in any case) that belongs to exactly one item.

        Raises:
            DataError: no item, or several, are called that.
        """
        row = int(self.items.rows([item])[0])
        if row >= 0:
            return row
        text = str(item)
        if self.titles is not None:
            same = np.flatnonzero((self.titles.str.to_lowercase() == text.lower()).fill_null(False).to_numpy())
            if len(same) == 1:
                return int(same[0])
            if len(same) > 1:
                ids = ", ".join(str(i) for i in self.items.external(same[:5]))
                raise DataError(f"{len(same)} items are called {text!r} (item ids {ids}): give one of the ids")
        # Suggestions: titles that contain the text, then near misses of titles and ids.
        near: list[str] = []
        if self.titles is not None:
            names = self.titles.drop_nulls().unique(maintain_order=True)
            folded = dict(zip(names.str.to_lowercase(), names, strict=True))
            near = names.filter(names.str.to_lowercase().str.contains(text.lower(), literal=True)).head(3).to_list()
            near += [folded[name] for name in difflib.get_close_matches(text.lower(), folded, n=3)]
        near += difflib.get_close_matches(text, self.items.ids.cast(pl.String).to_list(), n=3)
        suggested = " or ".join(repr(name) for name in list(dict.fromkeys(near))[:3])
        hint = f"did you mean {suggested}?" if near else "give an item id or a title of the catalog"
        raise DataError(f"unknown item {text!r}: {hint}")

    @cached_property
    def unit_items(self) -> Tensor | None:
        """Item vectors of length one, or None where the model has none."""
        if not isinstance(self.model, ItemVectors):
            return None
        with torch.inference_mode():
            return nn.functional.normalize(self.model.item_vectors().to(torch.float32), dim=1)

    @cached_property
    def _incidence(self) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Users by items and items by users, 1 where the user has the item, however often.

        Both orders are kept, so that one request reads only the users of its item and their items.
        """
        owner = np.repeat(np.arange(len(self.seen)), self.seen.counts)
        ones = np.ones(len(owner), np.int8)
        by_user = sparse.csr_array((ones, (owner, self.seen.items)), shape=(len(self.seen), len(self.items)))
        by_user.sum_duplicates()
        return by_user, by_user.T.tocsr()
