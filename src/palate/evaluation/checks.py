"""Checks of the arguments of an evaluation, made before anything is scored."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.data.splits.split import Split
from palate.errors import EvaluationError, LeakError

SAME = 0.9  # share of trained pairs among the test rows from which they are the training rows
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def check_model(model: Any, split: Any, allow_trained_rows: bool) -> None:
    """Refuse what is not a fitted model and a split, a model of other ids, and a model that was trained on test rows.

    Raises:
        EvaluationError: an argument of the wrong kind, or no test rows.
        ModelError: the model was trained on other ids.
        LeakError: the model was trained on test rows.
    """
    # Swapped arguments: the check of the split would complain about the model's type.
    if isinstance(model, Split):
        raise EvaluationError("the split comes second: evaluate(model, split)")
    check_split(split)
    if isinstance(model, list | tuple | set | dict):
        names = [one if isinstance(one, str) else getattr(one, "name", type(one).__name__) for one in model]
        raise EvaluationError(
            f"evaluate measures one fitted model, {len(names)} were given: "
            f"fit and measure recipes by palate.compare(split, {names!r})"
        )
    if isinstance(model, str):
        raise EvaluationError(
            f"{model!r} names a recipe, which is not fitted yet: "
            f"evaluate(palate.make_recipe({model!r}).fit(split.train), split)"
        )
    if callable(getattr(model, "fit", None)):
        raise EvaluationError(
            f"{type(model).__name__} is a recipe, which is not fitted yet: evaluate(recipe.fit(split.train), split)"
        )
    # A model from elsewhere keeps no record of its training rows, so there is nothing to check.
    trained = getattr(model, "trained_on", None)
    if trained is None:
        return
    trained.check_same_ids(split.train.users, split.train.items)
    if allow_trained_rows:
        return
    # A sketch of the rows is compared, not all of them: models keep it, and the check costs the same at any size.
    found, checked = trained.overlap(split.test.fingerprint)
    if found:
        raise LeakError(
            f"the model was trained on test rows: {found} of {checked} checked rows of {split.test.name} were in "
            "its training data. Evaluate on held-out rows, or allow it knowingly (allow_trained_rows=True, "
            "--allow-trained-rows)"
        )
    # The same rows without times, or with times cut to days, are other rows but the same pairs. Users come back to
    # items, so some trained pairs are no leak; rows of one split are disjoint, so none of them are.
    n, pairs = len(split.test), sum(note.rows for note in split.notes if note.kind == "trained-pairs")
    if not pairs and trained != split.train.fingerprint:
        pairs, n = trained.pair_overlap(split.test.fingerprint)
        if _later(split).mean() >= SAME and _repeats(split).mean() >= SAME:
            return
    if n and pairs >= SAME * n:
        raise LeakError(
            f"the model was trained on test rows: {pairs:,} of {n:,} checked pairs of user and item of "
            f"{split.test.name} were in its training data, and are not later. Evaluate on held-out rows, or allow it "
            "knowingly (allow_trained_rows=True, --allow-trained-rows)"
        )


def _repeats(split: Split) -> NDArray[np.bool_]:
    """Which test rows have a pair of user and item of the training rows."""
    known, held = (
        rows.user.astype(np.int64) * split.train.n_items + rows.item
        for rows in (split.train.interactions, split.test.interactions)
    )
    return np.isin(held, known)


def _later(split: Split) -> NDArray[np.bool_]:
    """Which test rows are not older than any training row of their user; none where there are no times."""
    known, held = split.train.interactions, split.test.interactions
    if known.time is None or held.time is None:
        return np.zeros(len(held), np.bool_)
    last = np.full(split.train.n_users, -np.inf)
    np.maximum.at(last, known.user, known.time)
    return np.asarray(held.time >= last[held.user])


def check_split(split: Any) -> None:
    """Refuse what is not a split with test rows.

    Raises:
        EvaluationError: another type, or no test rows.
    """
    if not isinstance(split, Split):
        raise EvaluationError(
            f"split is a {type(split).__name__}, not a Split: make one with palate.by_time(dataset), "
            "palate.leave_one_out(dataset) or palate.at_random(dataset)"
        )
    if not len(split.test):
        raise EvaluationError(f"{split.test.name} has no test rows ({split.how}): choose another split")


def check_lists(users: NDArray[Any], items: NDArray[Any], split: Split) -> None:
    """Refuse finished lists, (L,) and (L, K), that are not one per user in row numbers of the split.

    Raises:
        EvaluationError: another shape, row numbers beyond those of the split, or a user with two lists.
    """
    check_split(split)
    if items.ndim != 2 or users.shape != items.shape[:1] or not items.shape[1]:
        raise EvaluationError(f"lists of shape {items.shape} for users of shape {users.shape}: give (L, K) for (L,)")
    if len(np.unique(users)) != len(users):
        raise EvaluationError(f"{len(users)} lists of {len(np.unique(users))} users: give one list per user")
    for kind, rows, known, low in (("users", users, split.train.n_users, 0), ("items", items, split.train.n_items, -1)):
        if rows.size and (rows.min() < low or rows.max() >= known):
            raise EvaluationError(
                f"lists hold {kind} {rows.min()} to {rows.max()} of {known}: give row numbers of the split, "
                "and -1 for an empty place"
            )


def list_lengths(k: Any) -> list[int]:
    """The distinct list lengths, ascending.

    Raises:
        EvaluationError: not an integer of at least 1, or a sequence of such.
    """
    given = list(k) if isinstance(k, Iterable) and not isinstance(k, str | bytes) else [k]
    # bool is an int too, and k=True is a slip rather than a length.
    # An invalid length drops out here, and is then noticed by the count of distinct lengths.
    lengths = {int(n) for n in given if isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 1}
    if not given or len(lengths) < len(set(map(str, given))):
        raise EvaluationError(f"k={k!r}: must be an integer of at least 1, or several: k=10 or k=(5, 10)")
    return sorted(lengths)


def memory_bytes(memory: int | str) -> int:
    """Bytes of "512MB", "2 GiB" or a number.

    Raises:
        EvaluationError: another text, or 0.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?)?B?\s*", str(memory).upper())
    if not found or (size := int(float(found[1]) * UNITS[found[2] or ""])) <= 0:
        raise EvaluationError(f"memory={memory!r} is no size: write it like 512MB, 2GB or 1GiB")
    return size
