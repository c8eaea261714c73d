"""A comparison in sentences for readers who know no metric: hits per hundred users, and whether the lead may be luck.

summarize(found, "sasrec", wording(split.train))

sasrec puts one of the items a customer really took next into the top 10 for 22 of 100 customers; most popular
items: 8 of 100 (difference certain)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.data.columns import plain
from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.evaluation.significance import LEVEL, METRIC, paired
from palate.experiment.results import Comparison

POPULARITY = "popularity"
FEW_USERS = 100  # with fewer, the interval of a share of users spans 20 points
FEW_EVENTS = 5

# Nouns and verbs by the beginning of a column's name, in lower case without punctuation.
NOUNS = (
    "customer", "visitor", "member", "reviewer", "client", "shopper", "buyer", "listener", "viewer", "reader",
    "player", "student", "session",
)  # fmt: skip
VERBS = {
    "play": "played", "listen": "listened to", "view": "viewed", "watch": "watched", "click": "clicked",
    "purchase": "bought", "quantity": "bought", "qty": "bought", "read": "read", "download": "downloaded",
}  # fmt: skip


@dataclass(frozen=True)
class Wording:
    """The words for a user and for a positive row."""

    user: str = "user"
    took: str = "took"

    @property
    def users(self) -> str:
        """The plural of ``user``."""
        return f"{self.user}s"


def wording(dataset: Dataset) -> Wording:
    """The words that fit the source: ``customer_id`` holds customers, what has ``plays`` was played.

    Columns that tell nothing give "user" and "took".
    """
    named = re.match(r"columns: user=(\S+)", dataset.columns)
    user, weight = plain(named[1] if named else ""), plain(dataset.feedback.column or "")
    noun = next((noun for noun in NOUNS if user.startswith(noun)), "user")
    if not dataset.explicit:
        return Wording(noun, next((verb for start, verb in VERBS.items() if weight.startswith(start)), "took"))
    least = dataset.feedback.min_rating
    return Wording(noun, "rated" if least is None else f"rated {least:g} or more")


def summarize(found: Comparison, best: str, words: Wording = Wording()) -> list[str]:
    """The result of a comparison in sentences.

    Args:
        found: a comparison with ``popularity`` among its models.
        best: the model that was chosen on validation rows.
        words: for a user and a positive row.

    Returns:
        A sentence on the users with a hit in the list, of the chosen model and of the most popular items; where the
        lead is uncertain or missing, a second one that says so and a third one with possible causes.
    """
    k, split = found.options.k, found.split
    values = {one.name: one.values("full") for one in found.outcomes}
    hits, popular = values[best][f"HitRate@{k}"], values[POPULARITY][f"HitRate@{k}"]
    mine, theirs = _shares(hits, popular)
    when = " next" if split.train.interactions.time is not None else ""
    what = f"one of the items a {words.user} really {words.took}{when} into the top {k} for {mine} {words.users}"
    causes = _causes(split, k, words)
    if best == POPULARITY:
        first = f"The most popular items, the same list for all, put {what}."
        if len(values) == 1:
            return [first, "No other recipe was measured."]
        return [first, "Nothing that was tried beats them on validation rows.", *causes]
    resamples = found.options.resamples
    test = paired(hits, popular, resamples=resamples)
    certain = "difference certain" if test.p < LEVEL else "difference not certain"
    first = f"{best} puts {what}; most popular items: {theirs} ({certain})."
    if test.p < LEVEL and test.difference > 0:
        return [first]
    order = paired(values[best][f"{METRIC}@{k}"], values[POPULARITY][f"{METRIC}@{k}"], resamples=resamples)
    if order.p < LEVEL and order.difference > 0 and not test.p < LEVEL:
        return [first, f"Its lists have the better order: {METRIC}@{k} is higher beyond luck."]
    if test.difference > 0:
        doubt = f"With {len(hits):,} measured {words.users} such a lead may be luck."
    else:
        doubt = f"Nothing beats the most popular items here: {best} was the best on validation rows only."
    return [first, doubt, *causes]


def _shares(*hits: NDArray[Any]) -> list[str]:
    """Each share of users as "22 of 100", or of 1,000 where that would round small shares to the same or to 0."""
    means = [float(np.mean(one)) for one in hits]
    rounded = [round(100 * mean) for mean in means]
    fine = min(rounded) < 1 or (len(set(rounded)) < len(rounded) and len(set(means)) == len(means))
    return [f"{round(1_000 * mean)} of 1,000" if fine else f"{round(100 * mean)} of 100" for mean in means]


def _causes(split: Split, k: int, words: Wording) -> list[str]:
    """A sentence on the properties of the rows that leave little to gain over popularity, or none."""
    train, users = split.train, len(split.test_users)
    per_user = np.bincount(train.interactions.user, minlength=train.n_users)
    per_item = np.bincount(train.interactions.item, minlength=train.n_items)
    median = float(np.median(per_user[per_user > 0]))
    top = np.sort(per_item)[-k:].sum() / max(1, len(train))
    held_out = len(split.test) / max(1, users)
    checks = (
        (users < FEW_USERS, f"few {words.users} could be measured ({users:,})"),
        (median < FEW_EVENTS, f"few events per {words.user} (half of them have at most {median:g})"),
        (train.n_items < 5 * k, f"few items ({train.n_items:,}), of which a list holds a large part"),
        (top > 0.5 and train.n_items > k, f"the {k} most popular items are {top:.0%} of all events"),
        (held_out > k, f"{held_out:.0f} held-out items per {words.user}, of which any list holds one easily"),
    )
    found = [text for holds, text in checks if holds]
    return [f"Possible causes: {'; '.join(found)}."] if found else []
