"""Evaluation of models: full ranking or sampled candidates, never mixed, and never a bare number.

    report = evaluate(model, split, k=10)                                # every item is a candidate
    report = evaluate(model, split, k=10, candidates=split.candidates)   # the listed negatives only

Shape legend: B users in a chunk, C candidates, I items, N (user, relevant item) pairs, K list length, U users.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.data.dataset import Interactions
from palate.data.split import Candidates, Split
from palate.errors import EvaluationError, LeakError, ModelError
from palate.metrics import METRICS, novelty
from palate.protocols import Model, Query
from palate.ranking import TIE_RULE, candidate_ranks, pair_ranks, top_k
from palate.stats import interval

__all__ = ["Measure", "Report", "evaluate", "watch"]

# Scores held at once: 64 MB of float32, and about six times that with sorting keys.
SCORE_CELLS = 16_000_000


@dataclass(frozen=True)
class Measure:
    """One metric with its 95 % interval over users (NaN where it is no mean over users)."""

    metric: str
    k: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.metric}@{self.k}"


@dataclass(frozen=True)
class Report:
    """What was measured, and everything needed to know what it means.

    Args:
        model: name of the model.
        data: name of the data set.
        protocol: how the rows were split, in words.
        candidates: which items each relevant item had to beat, in words.
        measures: the numbers.
        users: how many users were measured.
        seen_removed: whether items of the training rows were taken out of the lists.
        fingerprints: of "train", "split" and "candidates" (None for full ranking).
        seconds: time for scoring and ranking.
        per_user: values per user and measure, (U,) each, in the order of ``user_rows``.
        user_rows: (U,) row numbers of the measured users.
        notes: what else a reader should know.
        ties: the tie rule.
    """

    model: str
    data: str
    protocol: str
    candidates: str
    measures: tuple[Measure, ...]
    users: int
    seen_removed: bool
    fingerprints: dict[str, str | None]
    seconds: float
    per_user: dict[str, NDArray[np.float64]] = field(repr=False)
    user_rows: NDArray[np.int32] = field(repr=False)
    notes: tuple[str, ...] = ()
    ties: str = TIE_RULE

    def measure(self, metric: str, k: int) -> Measure:
        """The measure of that name and k.

        Raises:
            EvaluationError: it was not measured.
        """
        for one in self.measures:
            if one.metric == metric and one.k == k:
                return one
        raise EvaluationError(f"{metric}@{k} was not measured: there are {', '.join(map(str, self.measures))}")

    def value(self, metric: str, k: int) -> float:
        """The number alone."""
        return self.measure(metric, k).value

    def rows(self) -> list[dict[str, Any]]:
        """One row per number that still says what it means when it stands alone, as in a bundle."""
        what = {"candidates": self.candidates, "ties": self.ties, "users": self.users, "protocol": self.protocol}
        return [{**row, **what} for row in self.to_dict()["measures"]]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the values per user, ready for JSON."""
        plain = {
            name: getattr(self, name)
            for name in ("model", "data", "protocol", "candidates", "ties", "users", "seen_removed", "fingerprints")
        }
        numbers = [
            {"metric": m.metric, "k": m.k, "value": m.value, "low": _or_none(m.low), "high": _or_none(m.high)}
            for m in self.measures
        ]
        return {**plain, "seconds": self.seconds, "notes": list(self.notes), "measures": numbers}


def evaluate(
    model: Model,
    split: Split,
    *,
    k: int | Sequence[int] = 10,
    candidates: Candidates | None = None,
    remove_seen: bool = True,
    name: str | None = None,
    allow_trained_rows: bool = False,
    resamples: int = 1_000,
) -> Report:
    """Measure a model on the test rows of a split.

    Args:
        model: scores users and items by the row numbers of the split.
        split: the test rows are the relevant items; the training rows are each user's history.
        k: list length, or several.
        candidates: sampled negatives; None ranks the whole catalogue.
        remove_seen: in full ranking, take the items of the user's training rows out of the lists.
        name: for the report; the class of the model otherwise.
        allow_trained_rows: measure even if the model was trained on test rows.
        resamples: of the bootstrap; 0 gives no intervals.

    Raises:
        LeakError: the model was trained on test rows.
        EvaluationError: no test rows, k below 1, or candidates of other users.
        ModelError: the model gave NaN.
    """
    lengths = sorted({k} if isinstance(k, int) else set(k))
    _check(model, split, lengths, candidates, allow_trained_rows)
    begin = time.perf_counter()
    lists = _Lists(model, split, max(lengths), candidates, remove_seen)
    values = _per_user(lists, split, lengths)
    seconds = time.perf_counter() - begin
    measures = [_measure(label, per_user, resamples) for label, per_user in values.items()]
    if candidates is None:
        measures += [_coverage(lists.top_UK, length, split.train.n_items) for length in lengths]
    return Report(
        model=name or type(model).__name__,
        data=split.test.name,
        protocol=split.how,
        candidates=_in_words(split, candidates, remove_seen),
        measures=tuple(measures),
        users=len(lists.user_rows),
        seen_removed=remove_seen or candidates is not None,
        fingerprints={
            "train": str(split.train.fingerprint.digest),
            "split": split.fingerprint,
            "candidates": candidates.fingerprint(split.train.users, split.train.items) if candidates else None,
        },
        seconds=seconds,
        per_user={f"{metric}@{length}": per_user for (metric, length), per_user in values.items()},
        user_rows=lists.user_rows,
        notes=lists.notes,
    )


def watch(
    split: Split, metric: str = "NDCG", k: int = 10, candidates: Candidates | None = None
) -> Callable[[Model], float]:
    """A callback for ``Run.watch``: the mean of one metric on the test side of a validation split.

    Make the split from training rows: ``watch(leave_one_out(split.train))``.
    """

    def measure(model: Model) -> float:
        lists = _Lists(model, split, k, candidates, remove_seen=True)
        return float(METRICS[metric](lists.hits_UK, lists.relevant_U).mean())

    return measure


class _Lists:
    """Where the relevant items of each test user stand, computed in chunks of bounded memory.

    Attributes:
        user_rows: (U,) test users, ascending.
        hits_UK: bool, relevant item at that place.
        relevant_U: relevant items per user.
        top_UK: item rows of the lists, -1 where the list ends (full ranking only).
    """

    def __init__(
        self, model: Model, split: Split, length: int, candidates: Candidates | None, remove_seen: bool
    ) -> None:
        rows = split.test.interactions
        pairs = _distinct_pairs(rows)
        self.user_rows, starts = np.unique(pairs[0], return_index=True)
        offsets = np.append(starts, pairs.shape[1])
        self.relevant_U = torch.from_numpy(np.diff(offsets))
        self.notes: tuple[str, ...] = ()
        self._model, self._split, self._length = model, split, length
        self._device = next((p.device for p in _tensors(model)), torch.device("cpu"))
        width = split.train.n_items
        if candidates is not None:
            width = candidates.negatives.shape[1] + int(self.relevant_U.max())
        size = max(1, SCORE_CELLS // width)
        hits, tops, lost = [], [], 0
        with torch.inference_mode():
            for first in range(0, len(self.user_rows), size):
                last = min(first + size, len(self.user_rows))
                users = self.user_rows[first:last]
                item_N = torch.from_numpy(pairs[1, offsets[first] : offsets[last]].astype(np.int64))
                row_N = torch.repeat_interleave(torch.arange(len(users)), self.relevant_U[first:last])
                query = Query.of(users, split.train.history.select(users)).to(self._device)
                if candidates is None:
                    rank_N, top_BK = self._full(query, row_N, item_N, users, remove_seen)
                    tops.append(top_BK)
                    lost += int(rank_N.isinf().sum())
                else:
                    rank_N = self._sampled(query, row_N, item_N, candidates.negatives[first:last])
                hits.append(_places(rank_N, row_N, len(users), length))
        self.hits_UK = torch.cat(hits)
        self.top_UK = torch.cat(tops) if tops else torch.empty(0, length, dtype=torch.int64)
        if lost:
            self.notes = (
                f"{lost} relevant items were seen in training and cannot be found in lists without seen items",
            )

    def _full(
        self, query: Query, row_N: Tensor, item_N: Tensor, users: NDArray[np.int32], remove_seen: bool
    ) -> tuple[Tensor, Tensor]:
        scores_BI = _checked(self._model.score(query)).float().cpu()
        if remove_seen:
            history = self._split.train.history.select(users)
            row = np.repeat(np.arange(len(users)), history.counts)
            scores_BI = scores_BI.clone()
            scores_BI[torch.from_numpy(row), torch.from_numpy(history.items.astype(np.int64))] = -torch.inf
        value_BK, top_BK = top_k(scores_BI, self._length)
        return pair_ranks(scores_BI, row_N, item_N), torch.where(value_BK == -torch.inf, -1, top_BK)

    def _sampled(self, query: Query, row_N: Tensor, item_N: Tensor, negatives: NDArray[np.int32]) -> Tensor:
        negative_BC = torch.from_numpy(negatives.astype(np.int64))
        count_B = torch.bincount(row_N, minlength=len(query))
        column_N = torch.arange(len(row_N)) - torch.repeat_interleave(count_B.cumsum(0) - count_B, count_B)
        positive_BP = torch.full((len(query), int(count_B.max())), -1, dtype=torch.int64)
        positive_BP[row_N, column_N] = item_N
        both = torch.cat([positive_BP.clamp(min=0), negative_BC], dim=1).to(self._device)
        scores = _checked(self._model.score(query, both)).float().cpu()
        width = positive_BP.shape[1]
        positive = scores[:, :width].masked_fill(positive_BP < 0, torch.nan)
        duplicate_BC = (negative_BC[:, :, None] == positive_BP[:, None, :]).any(2)
        return candidate_ranks(positive, scores[:, width:], duplicate_BC)[row_N, column_N]


def _distinct_pairs(rows: Interactions) -> NDArray[np.int64]:
    """Distinct (user, item) pairs by user and item, (2, N). Sorted keys: np.unique on two rows is far slower."""
    key = np.sort(rows.user.astype(np.int64) << 32 | rows.item)
    first = np.ones(len(key), dtype=bool)
    first[1:] = key[1:] != key[:-1]
    key = key[first]
    return np.stack([key >> 32, key & 0xFFFFFFFF])


def _places(rank_N: Tensor, row_N: Tensor, users: int, length: int) -> Tensor:
    hits_BK = torch.zeros(users, length, dtype=torch.bool)
    found = rank_N <= length
    hits_BK[row_N[found], rank_N[found].long() - 1] = True
    return hits_BK


def _per_user(lists: _Lists, split: Split, lengths: list[int]) -> dict[tuple[str, int], NDArray[np.float64]]:
    values: dict[tuple[str, int], NDArray[np.float64]] = {}
    for length in lengths:
        for metric, function in METRICS.items():
            values[metric, length] = function(lists.hits_UK[:, :length], lists.relevant_U).numpy()
    if len(lists.top_UK):
        train = split.train
        pairs = _distinct_pairs(train.interactions)
        users_I = np.bincount(pairs[1], minlength=train.n_items)
        share_I = np.maximum(users_I, 1) / max(1, np.count_nonzero(np.bincount(pairs[0])))
        information_I = torch.from_numpy(-np.log2(share_I))
        for length in lengths:
            values["Novelty", length] = novelty(lists.top_UK[:, :length], information_I).numpy()
    return values


def _measure(label: tuple[str, int], per_user: NDArray[np.float64], resamples: int) -> Measure:
    low, high = interval(per_user, resamples=resamples) if resamples else (float("nan"), float("nan"))
    return Measure(*label, float(per_user.mean()), low, high)


def _coverage(top_UK: Tensor, length: int, items: int) -> Measure:
    """Share of the catalogue that stands in at least one list."""
    shown = top_UK[:, :length].unique()
    return Measure("Coverage", length, int((shown >= 0).sum()) / items, float("nan"), float("nan"))


def _check(
    model: Model, split: Split, lengths: list[int], candidates: Candidates | None, allow_trained_rows: bool
) -> None:
    if not len(split.test):
        raise EvaluationError(f"{split.test.name} has no test rows ({split.how}): choose another split")
    if not lengths or lengths[0] < 1:
        raise EvaluationError(f"k={lengths}: must be at least 1")
    if candidates is not None:
        users = split.test_users
        if not np.array_equal(users, candidates.users):
            raise EvaluationError(
                f"the candidates are for {len(candidates.users)} users, the test rows for {len(users)}: "
                "draw candidates for this split"
            )
    trained = getattr(model, "trained_on", None)
    if trained is not None and not allow_trained_rows:
        found, checked = trained.overlap(split.test.fingerprint)
        if found:
            raise LeakError(
                f"the model was trained on test rows: {found} of {checked} checked rows of {split.test.name} were in "
                "its training data. Evaluate on held-out rows, or allow it knowingly (allow_trained_rows=True, "
                "--allow-trained-rows)"
            )


def _checked(scores: Tensor) -> Tensor:
    if bool(scores.isnan().any()):
        raise ModelError(f"the model gave NaN for {int(scores.isnan().sum())} scores: it did not train well")
    return scores


def _tensors(model: Model) -> list[Tensor]:
    if not isinstance(model, torch.nn.Module):
        return []
    return [*model.parameters(), *model.buffers()]


def _in_words(split: Split, candidates: Candidates | None, remove_seen: bool) -> str:
    if candidates is not None:
        return candidates.how
    return f"all {split.train.n_items:,} items, seen items {'removed' if remove_seen else 'left in'}"


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
