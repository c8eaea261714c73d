"""Evaluation of ranking models: full ranking or sampled candidates, as a report with intervals and protocol.

    report = evaluate(model, split, k=10)                                # every item is a candidate
    report = evaluate(model, split, k=10, candidates=split.candidates)   # the listed negatives only
    report = evaluate_lists(Lists(users, items), split, k=10)            # lists of another system

Shape legend: U test users, L lists, K list length.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from palate.base import Model, reads_request_time
from palate.data.feedback import MinRating
from palate.data.splits.split import Candidates, Split
from palate.errors import EvaluationError
from palate.evaluation.accumulator import MetricAccumulator
from palate.evaluation.checks import check_lists, check_model, list_lengths, memory_bytes
from palate.evaluation.metrics import METRICS, at_length
from palate.evaluation.rankings import (
    DEFAULT_CHUNK,
    GroundTruth,
    Lists,
    by_candidates,
    by_catalog,
    by_lists,
    places,
    without_repeats,
)
from palate.evaluation.report import Report

REQUEST_TIME = "each user asked at the time of the first held-out row"
# Short-lived memory: parts of the training rows and of tied rows, resamples of the bootstrap.
WORKING_BYTES = 24_000_000


def evaluate(
    model: Model,
    split: Split,
    *,
    k: int | Sequence[int] = 10,
    candidates: Candidates | None = None,
    exclude_seen: bool = True,
    relevant: MinRating = "auto",
    name: str | None = None,
    allow_trained_rows: bool = False,
    resamples: int = 1_000,
    memory: int | str | None = None,
) -> Report:
    """Measure a model on the test rows of a split.

    Args:
        model: scores users and items by the row numbers of the split. One that reads the time of request gets that
            of each user's first test row, and the report's protocol says so.
        split: its test rows hold the relevant items; the training rows are each user's history.
        k: list length, or several. Default: 10. Lists end with the catalog, so memory does not grow with k.
        candidates: sampled negatives. Default: None, the whole catalog.
        exclude_seen: in full ranking, take the items of the user's training rows out of the lists. Default: True.
        relevant: which test rows are relevant, as in ``Split.relevant``: by the rule of the data set ("auto"), all of
            them ("any"), or those of a weight or more. Users without a relevant row are left out and counted.
            Default: "auto".
        name: for the report. Default: the class of the model.
        allow_trained_rows: measure even if the model was trained on test rows. Default: False.
        resamples: number of bootstrap resamples; 0 gives no intervals. Default: 1,000.
        memory: bound on the memory beyond the model and the data, in bytes or as "512MB": it sets how many
            users are ranked at once. Default: 16 million scores at once.

    Raises:
        LeakError: the model was trained on test rows.
        EvaluationError: no test rows, k below 1, candidates of other users, or too little memory for one user.
        ModelError: the model was trained on other ids, or gave NaN.
    """
    lengths = list_lengths(k)
    check_model(model, split, allow_trained_rows)
    if candidates is not None and not np.array_equal(split.test_users, candidates.users):
        raise EvaluationError(
            f"the candidates are for {len(candidates.users)} users, the test rows for {len(split.test_users)}: "
            "draw candidates for this split"
        )
    begin = time.perf_counter()
    ground = GroundTruth.of(replace(split, candidates=candidates), relevant)
    candidates = ground.split.candidates
    accumulator = MetricAccumulator(ground, lengths, lists=candidates is None)
    if candidates is None:
        budget = _budget(memory, accumulator, ground.catalog_bytes().max(), f"{split.train.n_items:,} items")
        parts = by_catalog(model, ground, accumulator.longest, budget, exclude_seen=exclude_seen)
        words = f"all {split.train.n_items:,} items, seen items {'removed' if exclude_seen else 'left in'}"
    else:
        width = candidates.negatives.shape[1]
        budget = _budget(memory, accumulator, ground.candidate_bytes(width).max(), f"{width:,} candidates")
        parts = by_candidates(model, ground, accumulator.longest, budget, candidates)
        words = candidates.how
    for part in parts:
        accumulator.add(part)
    # Sampled negatives are unseen items, so a list of candidates is free of seen ones either way.
    exclude_seen = exclude_seen or candidates is not None
    named = name or type(model).__name__
    notes = [*accumulator.notes(), *(str(one) for one in split.notes if one.kind == "trained-pairs")]
    report = _report(accumulator, ground, split, named, words, exclude_seen, candidates, begin, notes, resamples)
    if ground.request_times is None or not reads_request_time(model):
        return report
    return replace(report, protocol=f"{report.protocol}; {REQUEST_TIME}")


def evaluate_lists(
    lists: Lists,
    split: Split,
    *,
    k: int | Sequence[int] = 10,
    relevant: MinRating = "auto",
    name: str = "lists",
    resamples: int = 1_000,
    memory: int | str | None = None,
) -> Report:
    """Measure finished lists of another system as full ranking: the same report as that of a model.

    A test user without a list counts as 0. Items that the user has in training stay in the lists,
    an item listed twice keeps its first place only, and lists of users who are not tested are left out: the notes say
    how often.

    Args:
        lists: (users (L,), items (L, K)) row numbers of the split, best first, -1 for an empty place.
        split, k, relevant, resamples, memory: as for ``evaluate``.
        name: of the other system, for the report.

    Raises:
        EvaluationError: no test rows, row numbers beyond those of the split, or a user with two lists.
    """
    lists, lengths = Lists(*map(np.asarray, lists)), list_lengths(k)
    check_lists(*lists, split)
    begin = time.perf_counter()
    ground = GroundTruth.of(split, relevant)
    longest = lists.items.shape[1]
    # A given list that repeats items can be longer than the catalog.
    accumulator = MetricAccumulator(ground, lengths, lists=True, widest=max(longest, split.train.n_items))
    budget = _budget(memory, accumulator, 0, "given lists")  # a list is short: one user always fits
    tested = np.isin(lists.users, ground.user_rows)
    for part in by_lists(lists, ground, accumulator.longest, budget):
        accumulator.add(part)
    seen = accumulator.seen_places
    empty = len(ground.user_rows) - int(tested.sum())
    kept = lists.items[tested]
    repeats = int((kept >= 0).sum() - (without_repeats(kept) >= 0).sum())
    others = int((~tested).sum())
    counted = (
        (empty, f"{empty:,} of {len(ground.user_rows):,} test users have no list and count as 0"),
        (seen, f"{seen:,} places hold an item that the user has in training; they stay"),
        (repeats, f"{repeats:,} places repeat an item of the same list and count as empty"),
        (others, f"{others:,} lists are of users who are not tested, left out"),
        (lengths[-1] > longest, f"lists end at {longest}; places up to {lengths[-1]} are empty"),
    )
    notes = [line for count, line in counted if count] + accumulator.notes()
    words = f"given lists of up to {longest} of {split.train.n_items:,} items, seen items "
    words += "left in" if seen else "not in them"
    return _report(accumulator, ground, split, name, words, not seen, None, begin, notes, resamples)


def validation_callback(
    split: Split, metric: str = "NDCG", k: int = 10, candidates: Candidates | None = None
) -> Callable[[Model], float]:
    """A validation callback for ``TrainOptions``: the mean of one metric on the test side of a validation split.

    Make the split from training rows: ``validation_callback(leave_one_out(split.train))``.
    """
    ground, length = GroundTruth.of(replace(split, candidates=candidates)), list_lengths(k)[0]
    candidates = ground.split.candidates
    longest = min(length, split.train.n_items)

    # Called after every epoch: without accumulator and intervals, and the ground truth is made once.
    def measure(model: Model) -> float:
        values = []
        for part in (
            by_catalog(model, ground, longest, DEFAULT_CHUNK)
            if candidates is None
            else by_candidates(model, ground, longest, DEFAULT_CHUNK, candidates)
        ):
            hits_BK = places(part.rank, part.row, part.last - part.first, longest)
            relevant_B = torch.from_numpy(ground.relevant[part.first : part.last])
            values.append(at_length(metric, METRICS[metric](hits_BK, relevant_B), length))
        return float(torch.cat(values).mean())

    return measure


def _report(
    accumulator: MetricAccumulator,
    ground: GroundTruth,
    split: Split,
    name: str,
    words: str,
    exclude_seen: bool,
    candidates: Candidates | None,
    begin: float,
    notes: list[str],
    resamples: int,
) -> Report:
    seconds = time.perf_counter() - begin
    # The rows that are not relevant are said where the numbers are read, not only in the split.
    dropped = ground.split.notes[len(split.notes) :]
    return Report(
        model=name,
        data=split.test.name,
        protocol=ground.split.how,
        candidates=words,
        measures=accumulator.measures(resamples),
        users=len(ground.user_rows),
        exclude_seen=exclude_seen,
        fingerprints={
            "train": str(split.train.fingerprint.digest),
            "split": split.fingerprint,
            "candidates": candidates.fingerprint(split.train.users, split.train.items) if candidates else None,
            "relevant": ground.split.how[len(split.how) :].removeprefix("; relevant: ") or None,
        },
        seconds=seconds,
        per_user={f"{metric}@{length}": values for (metric, length), values in accumulator.values.items()},
        user_rows=ground.user_rows,
        notes=(*map(str, dropped), *notes),
        segments=accumulator.segments(resamples),
        **accumulator.exposure(),
    )


def _budget(memory: int | str | None, accumulator: MetricAccumulator, one: int, ranked: str) -> int:
    """Bytes for one chunk of users under the bound, of which the values per user and per item are kept throughout."""
    if memory is None:
        return DEFAULT_CHUNK
    total, kept = memory_bytes(memory), accumulator.nbytes() + WORKING_BYTES
    if total < kept + one:
        raise EvaluationError(
            f"memory={memory} is too small: results and working space take {kept / 1e6:,.1f} MB, ranking one user "
            f"among {ranked} {one / 1e6:,.1f} MB: allow at least {np.ceil((kept + one) / 1e6):.0f}MB, or fewer k"
        )
    return total - kept
