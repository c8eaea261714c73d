"""Drift: how far new events are from the rows a model was trained on.

    found = drift(bundle.recommender, palate.read_interactions("today.csv"))
    found.past                        # the measures beyond their limits

Distributions of numbers are compared by the population stability index over the quantiles of the training rows, items
by the Jensen-Shannon divergence in bits (Lin 1991, "Divergence measures based on the Shannon entropy", IEEE
Transactions on Information Theory 37):

    PSI = sum_b (q_b - p_b) ln(q_b / p_b)          JS = H((p + q) / 2) - (H(p) + H(q)) / 2

with p of the training rows and q of the new ones. Both are above 0 for two samples of one distribution, the more so the
smaller they are. So the value that such samples would have is subtracted: for PSI its mean (B - 1) (1 / n + 1 / m) for
B bins (Yurdakul & Naranjo 2020, "Statistical properties of the population stability index", Journal of Risk Model
Validation 14), for JS the mean over samples of n events drawn from p. The limits of PSI are those of its usual reading:
below 0.1 no shift, above 0.25 a large one (Siddiqi 2006, "Credit Risk Scorecards").

Shape legend: N events, I items, U users, B bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.data.dataset import Dataset
from palate.errors import EvaluationError
from palate.evaluation.tables import Plain, Tabular
from palate.recommend.state import State
from palate.recommend.top_n import FOLD_IN, MODEL, RecommendOptions, recommend

Floats = NDArray[np.float64]
LIMITS = {
    "popularity": 0.1,
    "new-items": 0.1,
    "new-users": 0.5,
    "volume": 1.0,
    "activity": 0.25,
    "weights": 0.25,
    "scores": 0.25,
}
BINS = 10
FEW = 20  # distinct values up to which each is a bin
LEAST = 50  # numbers on either side below which two distributions are not compared
SAMPLES = 5  # samples of the training rows that the noise of JS is averaged over
SCORED = 1_000  # users whose lists are compared
DAY, HOUR = 86_400.0, 3_600.0


@dataclass(frozen=True)
class Measure:
    """One measure of drift.

    Args:
        name: a key of ``LIMITS``.
        value: of the measure, without the noise of two samples; NaN where it was not measured.
        limit: the largest value that passes.
        about: what was compared, or why nothing was, in words.
    """

    name: str
    value: float
    limit: float
    about: str

    @property
    def past(self) -> bool:
        """Whether the value is beyond the limit; a measure that was not taken passes."""
        return self.value > self.limit


@dataclass(frozen=True)
class Drift(Tabular, Plain):
    """All measures of one comparison.

    Args:
        data: name of the new events.
        events: their number.
        measures: in the order of ``LIMITS``.
    """

    data: str
    events: int
    measures: tuple[Measure, ...]

    @property
    def past(self) -> tuple[Measure, ...]:
        """The measures beyond their limits."""
        return tuple(one for one in self.measures if one.past)

    def rows(self) -> list[dict[str, Any]]:
        """One row per measure: measure, value, limit, past, about."""
        return [
            {"measure": one.name, "value": one.value, "limit": one.limit, "past": one.past, "about": one.about}
            for one in self.measures
        ]


def drift(
    recommender: State, events: Dataset, limits: Mapping[str, float] | None = None, *, k: int = 10, seed: int = 0
) -> Drift:
    """Compare new events with the training rows of a recommender.

    Measures:
        popularity: JS between the shares of the items, among the items of the training rows, in bits (0 to 1).
        new-items, new-users: share of the events whose item, or user, the training rows lack.
        volume: |log2| of the events per day, against the latest training rows over as many days; 1 is double or half.
        activity: PSI of the events per active user, against the same rows.
        weights: PSI of ratings or weights, where they differ at all.
        scores: PSI of the scores of the lists of users with training rows, those who came against all. Lists are made
            from the training rows: a longer history alone raises the scores of many models.

    Args:
        recommender: with its training rows.
        events: new events, by external ids.
        limits: by name of the measure, over ``LIMITS``.
        k: length of the lists whose scores are compared. Default: 10.
        seed: of the samples.

    Raises:
        EvaluationError: no events, no training rows, or a limit of an unknown measure or below 0.
    """
    allowed = {**LIMITS, **(limits or {})}
    for name, limit in allowed.items():
        if name not in LIMITS or not limit >= 0:
            raise EvaluationError(f"limit {name}={limit}: give a number of at least 0 for one of {', '.join(LIMITS)}")
    rows, seen = events.interactions, recommender.seen
    if not len(rows) or not len(seen.items):
        raise EvaluationError(f"{len(rows):,} new events and {len(seen.items):,} training rows: both are needed")
    rng = np.random.default_rng(seed)
    user_N = recommender.users.rows(events.users.ids)[rows.user]
    item_N = recommender.items.rows(events.items.ids)[rows.item]
    trained_U = seen.counts > 0
    count_I = np.bincount(seen.items, minlength=len(recommender.items))
    known_N = item_N >= 0
    known_N[known_N] = count_I[item_N[known_N]] > 0
    old_N = user_N >= 0
    old_N[old_N] = trained_U[user_N[old_N]]
    owner = np.repeat(np.arange(len(seen)), seen.counts)
    found: dict[str, tuple[float, str]] = {
        "popularity": _popularity(recommender, count_I, item_N[known_N], rng),
        "new-items": (1 - known_N.mean(), f"{(~known_N).sum():,} of {len(rows):,} events"),
        "new-users": (1 - old_N.mean(), f"{(~old_N).sum():,} of {len(rows):,} events"),
        "weights": _psi(seen.weights, rows.weight, "weights of the training rows and of the events"),
        "scores": _scores(recommender, np.unique(user_N[old_N]), k, rng),
    }
    if seen.times is None or rows.time is None:
        untimed = float("nan"), "not measured: the training rows or the events have no times"
        found |= {"volume": untimed, "activity": untimed}
    else:
        span = max(float(np.ptp(rows.time)), HOUR)
        latest_N = seen.times > seen.times.max() - span
        then = min(span, max(float(np.ptp(seen.times)), HOUR))
        per_day = len(rows) * DAY / span, int(latest_N.sum()) * DAY / then
        words = f"{per_day[0]:,.0f} events a day, {per_day[1]:,.0f} in the last {then / DAY:,.1f} days of training"
        found["volume"] = abs(float(np.log2(per_day[0] / per_day[1]))), words
        active = [np.unique(one, return_counts=True)[1] for one in (owner[latest_N], rows.user)]
        found["activity"] = _psi(active[0], active[1], f"events per active user in {then / DAY:,.1f} days")
    measures = (Measure(name, float(found[name][0]), allowed[name], found[name][1]) for name in LIMITS)
    return Drift(events.name, len(rows), tuple(measures))


def _popularity(
    recommender: State, before_I: NDArray[np.int64], item_N: NDArray[Any], rng: np.random.Generator
) -> tuple[float, str]:
    """JS of the items of training and of events, without its mean over samples of the training rows, and a note."""
    total = len(item_N)
    if total < LEAST:
        return float("nan"), f"not measured: {total:,} events on items of the training rows, {LEAST} are needed"
    p_I = before_I / before_I.sum()

    def divergence(q_I: Floats) -> float:
        mixed_I = (p_I + q_I) / 2
        return float(_entropy(mixed_I) - (_entropy(p_I) + _entropy(q_I)) / 2)

    noise = np.mean([divergence(rng.multinomial(total, p_I) / total) for _ in range(SAMPLES)])
    now_I = np.bincount(item_N, minlength=len(p_I)) / total
    value, gained = divergence(now_I), int((now_I - p_I).argmax())
    words = (
        f"JS {value:.3f} bits, {noise:.3f} for samples of one distribution; most gained by "
        f"{recommender.items.external([gained])[0]} ({p_I[gained]:.1%} before, {now_I[gained]:.1%} now)"
    )
    return max(0.0, value - float(noise)), words


def _entropy(share: Floats) -> float:
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


def _psi(before: NDArray[Any], now: NDArray[Any], words: str) -> tuple[float, str]:
    """PSI of two samples without its mean for samples of one distribution, and a note."""
    if min(len(before), len(now)) < LEAST:
        return float("nan"), f"not measured: {words}: {min(len(before), len(now)):,} numbers, {LEAST} are needed"
    values = np.unique(before)
    if len(values) > FEW:
        values = np.unique(np.quantile(before, np.arange(1, BINS) / BINS))
    elif not np.ptp(np.concatenate([values, now])):
        return float("nan"), f"not measured: {words}: all are {values[0]:g}"
    # Bins end at the values; with few values, each is a bin, and new ones fall behind the next.
    counts = [np.bincount(np.searchsorted(values, one), minlength=len(values) + 1) for one in (before, now)]
    used = (counts[0] + counts[1]) > 0
    bins = int(used.sum())
    p, q = ((one[used] + 0.5) / (one.sum() + 0.5 * bins) for one in counts)  # no bin is empty
    noise = (bins - 1) * (1 / len(before) + 1 / len(now))
    means = f"mean {before.mean():.4g} before, {now.mean():.4g} now"
    return max(0.0, float(((q - p) * np.log(q / p)).sum()) - noise), f"{words}, {bins} bins; {means}"


def _scores(recommender: State, active: NDArray[np.int64], k: int, rng: np.random.Generator) -> tuple[float, str]:
    """PSI of the scores of the lists of all users of training, and of some of them, from their training rows."""
    trained = np.flatnonzero(recommender.seen.counts > 0)
    scores = []
    for users in (trained, active):
        some = users if len(users) <= SCORED else np.sort(rng.choice(users, SCORED, replace=False))
        answer = recommend(recommender, some, RecommendOptions(k))
        scores.append(answer.scores[np.isin(answer.sources, (MODEL, FOLD_IN))])
    words = f"scores of the lists of {len(trained):,} users of training and the {len(active):,} of them who came"
    return _psi(scores[0], scores[1], words)
