"""Training data of the ranker: slices of time that the retrievers did not see.

The retrievers are fitted on the rows before a slice and find candidates for its returning users, given their earlier
history. A candidate is relevant if its user has a row with it in the slice. The
last slice ends with the training rows, each one before it a step earlier: end to end, or overlapping. Rows without
times are sampled: a slice is a random part, and all other rows are "before" it.

Shape legend: N candidates of all users, F inputs, Q users.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.data.dataset import Dataset
from palate.errors import RecipeError


class Slice(NamedTuple):
    """Rows to fit retrievers on, and the relevant rows of the returning users."""

    before: Dataset
    after: Dataset


class LabeledCandidates(NamedTuple):
    """Candidates of Q users, one user after the other.

    ``inputs`` (N, F) is what the ranker reads; ``labels`` (N,) float32, 1 for a touch; ``rows`` (N,) the user of each,
    0 to Q - 1, ascending.
    """

    inputs: Tensor
    labels: Tensor
    rows: Tensor

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Candidates of each user that has any, in order."""
        size_Q: NDArray[np.int64] = self.rows.unique_consecutive(return_counts=True)[1].cpu().numpy()
        return size_Q

    def of(self, users: Tensor) -> LabeledCandidates:
        """The candidates of some users, given by a (Q,) mask."""
        kept_N = users[self.rows]
        return LabeledCandidates(*(part[kept_N] for part in self))


def cut(train: Dataset, size: float, slices: int, step: float, min_rating: float, seed: int) -> Iterator[Slice]:
    """The slices, the latest last, each ``size`` of the rows.

    Relevant rows are positive and weigh ``min_rating`` or more.

    From the end of one slice to that of the next it is ``step`` of the rows.

    Raises:
        RecipeError: no user of a slice has a row before it.
    """
    rows = train.interactions
    rng = np.random.default_rng(seed)
    place = np.argsort(rng.random(len(rows)) if rows.time is None else rows.time, kind="stable")
    for back in range(slices - 1, -1, -1):
        # Rounded twice: slices that lie end to end must not differ by a row where they meet.
        ends = [round(len(rows) * round(1 - step * back - part, 9)) for part in (size, 0)]
        inside = np.zeros(len(rows), dtype=bool)
        inside[place[ends[0] : ends[1]]] = True
        earlier = ~inside
        earlier[place[ends[1] :]] &= rows.time is None
        known = (np.bincount(rows.user[earlier], minlength=train.n_users) > 0)[rows.user]
        returning = inside & known & train.positive & (rows.weight >= min_rating)
        if not returning.any():
            raise RecipeError(
                f"{train.name}: no user of slice {slices - back} of {slices} ({int(inside.sum()):,} rows) has rows "
                f"before it and positive rows in it of weight {min_rating:g} or more: set another slice_size or "
                "min_rating"
            )
        yield Slice(train.with_rows(rows.take(earlier)), train.with_rows(rows.take(returning)))


def concatenated(parts: list[LabeledCandidates]) -> LabeledCandidates:
    """Several parts as one, users counted on."""
    first, rows = 0, []
    for candidates in parts:
        rows.append(candidates.rows + first)
        first += int(candidates.rows.max()) + 1 if len(candidates.rows) else 0
    inputs, labels = (torch.cat([candidates[field] for candidates in parts]) for field in (0, 1))
    return LabeledCandidates(inputs, labels, torch.cat(rows))
