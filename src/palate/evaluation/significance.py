"""Intervals over users, paired tests between two models, and the correction for making many of them.

    intervals({"NDCG@10": ndcg_U, "HR@10": hits_U})     # 95 % bootstrap intervals, all from the same resamples
    paired(model_U, baseline_U).p                       # could the difference be luck?
    holm([0.01, 0.04, 0.03])                            # for several such questions at once

Users are the unit of every interval and test (for ratings, test rows): the values of one user depend on each other, and
resampling them one by one would make intervals too narrow.

Shape legend: U users, M metrics, R resamples of a chunk, P parts of a resample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from palate.errors import EvaluationError
from palate.evaluation.intervals import Floats, interval
from palate.evaluation.tables import Plain, plain

LEVEL = 0.05  # of a test that names a winner, after correction
METRIC = "NDCG"  # the metric that decides

# Sign flips held at once by the permutation test: 8 bytes each, a few copies.
FLIP_CELLS = 2_000_000
# Above so many users who differ, the sign-flip distribution is normal for every purpose, and is taken as such.
NORMAL_USERS = 10_000


@dataclass(frozen=True)
class Paired(Plain):
    """The difference of two models over the same users, and how surprising it would be between equals.

    Args:
        difference: mean of a - b.
        low, high: 95 % bootstrap interval of the difference over users (NaN with fewer than two users).
        p: two-sided p-value; NaN with fewer than two users, 1 where at most one differs.
        test: which test, in words.
    """

    difference: float
    low: float
    high: float
    p: float
    test: str


def paired(a_U: Floats, b_U: Floats, *, resamples: int = 10_000, seed: int = 0) -> Paired:
    """Sign-flip permutation test of the mean difference between two models on the same users (Fisher 1935).

    If the models were equally good, a user's two values could as well be swapped, which flips the sign of the
    difference. It tests the mean, the number that tables show. Wilcoxon's test asks about ranks of differences and
    drops ties, and most users tie; Smucker et al. 2007 ("A Comparison of Statistical Significance Tests for Information
    Retrieval Evaluation", CIKM) advise against it and for this one.

    Users without a difference are left out of the flips, which changes the time only.
    All flips are counted where they are at most ``resamples`` (exact p). Otherwise ``resamples`` random ones are, and p
    is (1 + as extreme) / (1 + resamples) on each side, so it is never below 2 / (1 + resamples). With more than 10,000
    users who differ their sum under random signs is taken as normal with variance sum(d^2).

    Raises:
        EvaluationError: the users are not the same.
    """
    if np.shape(a_U) != np.shape(b_U) or np.ndim(a_U) != 1:
        raise EvaluationError(
            f"values of shapes {np.shape(a_U)} and {np.shape(b_U)} cannot be paired: give both for the same users"
        )
    difference_U = np.asarray(a_U, dtype=np.float64) - np.asarray(b_U, dtype=np.float64)
    mean = float(difference_U.mean()) if len(difference_U) else float("nan")
    low, high = interval(difference_U, resamples=resamples, seed=seed)
    if not difference_U.any():
        low = -high  # no user differs: either model could still be the better one
    # Flipping a 0 changes no sum: most users tie, and leaving them out spares most of the time.
    p, test = _sign_flip(difference_U[difference_U != 0], resamples, seed)
    if len(difference_U) < 2:
        return Paired(mean, low, high, float("nan"), "none: fewer than two users")
    return Paired(mean, low, high, p, test)


def holm(p: Sequence[float] | Floats) -> NDArray[np.float64]:
    """Adjusted p-values that keep the chance of any false alarm among all tests at the level (Holm 1979, step-down).

    The smallest of m values counts m-fold, the next (m - 1)-fold and so on, none less than the one before it and none
    above 1. Values that are NaN are no tests and stay NaN.

    Raises:
        EvaluationError: a value outside 0 to 1.
    """
    given = np.asarray(p, dtype=np.float64)
    adjusted = np.full(given.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(given))
    if ((given[tested] < 0) | (given[tested] > 1)).any():
        raise EvaluationError(f"p-values {given.tolist()} are not all between 0 and 1: give p-values")
    order = tested[np.argsort(given[tested], kind="stable")]
    stepped = given[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)  # a larger p is never corrected to less
    return adjusted


def _sign_flip(difference_U: Floats, resamples: int, seed: int) -> tuple[float, str]:
    """Two-sided p-value of differences that are not 0, and the name of the test."""
    users = len(difference_U)
    if users < 2:  # a single difference is as far from 0 whatever its sign
        return 1.0, f"sign-flip permutation, {'one user differs' if users else 'no user differs'}"
    if users > NORMAL_USERS:
        # Under random signs the sum has mean 0 and variance sum(d^2).
        z = difference_U.sum() / np.sqrt(np.square(difference_U).sum())
        return float(2 * stats.norm.sf(abs(z))), f"sign-flip permutation, normal limit, {users:,} users differ"
    exact = users < 63 and 2**users <= resamples  # the first test spares huge powers
    result = stats.permutation_test(
        (difference_U,),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        n_resamples=resamples,
        batch=max(1, FLIP_CELLS // users),
        rng=np.random.default_rng(seed),
    )
    how = "all flips" if exact else f"{resamples:,} random flips"
    return float(result.pvalue), f"sign-flip permutation, {how}, {users:,} users differ"


@dataclass(frozen=True, eq=False)
class Standing:
    """Values per user of one model in the deciding metric, NDCG.

    Args:
        name: of the model.
        role: "model", "baseline" or "external".
        values: (U,) by ranking, "full" and, where it was measured, "sampled"; the same users for all models.
    """

    name: str
    role: str
    values: Mapping[str, NDArray[np.float64]]


def against_baseline(standings: Sequence[Standing], k: int, resamples: int) -> list[dict[str, Any]]:
    """Each model against the baseline with the highest mean, per ranking, corrected by Holm within each.

    The baseline is chosen on the test rows, which favors the baseline and not the models.
    """
    rows = []
    for ranking in ("full", "sampled"):
        ranked = _ranked(standings, ranking)
        opponents = [one for one in ranked if one.role == "baseline"]
        models = [one for one in ranked if one.role != "baseline"]
        if opponents and models:
            rows += _against(opponents[0], models, ranking, k, resamples, first_is_model=False)
    return rows


def winner(standings: Sequence[Standing], k: int, resamples: int) -> dict[str, Any]:
    """The model with the highest mean in full ranking, if it is better than every other beyond luck, and why."""
    ranked = _ranked(standings, "full")
    if len(ranked) < 2:
        alone = f"only {ranked[0].name} was measured" if ranked else "no model could be measured"
        return {"name": None, "why": f"No winner can be named: {alone}.", "tests": []}
    first, *others = ranked
    rows = _against(first, others, "full", k, resamples, first_is_model=True)
    mean, users = first.values["full"].mean(), len(first.values["full"])
    lead = f"{first.name} has the highest {METRIC}@{k} in full ranking, {mean:.4f}"
    unclear = [row for row in rows if not row["better"]]
    if not unclear:
        # A winner is better than every other: the least certain of the tests decides.
        highest = max(row["p_holm"] for row in rows)
        rivals = f"each of the {len(others)} others" if len(others) > 1 else others[0].name
        why = (
            f"{lead}, and is better than {rivals} beyond luck (largest corrected p {p_text(highest)}, {users:,} users)."
        )
        return {"name": first.name, "why": why, "tests": rows}
    closest = unclear[0]  # rivals come best first
    if closest["p_holm"] is None:
        doubt = f"with so few users its difference to {closest['baseline']} cannot be tested"
    else:
        more = f" (and the same holds for {len(unclear) - 1} more)" if len(unclear) > 1 else ""
        doubt = (
            f"the difference to {closest['baseline']} of {closest['difference']:.4f} (95 % interval "
            f"{closest['low']:.4f} to {closest['high']:.4f}) may be luck: corrected p {p_text(closest['p_holm'])}{more}"
        )
    return {"name": None, "why": f"No winner can be named: {lead}, but {doubt}.", "tests": rows}


def order_remark(standings: Sequence[Standing], k: int) -> str | None:
    """A sentence where sampled candidates put models into another order than full ranking."""
    full, sampled = ([one.name for one in _ranked(standings, ranking)] for ranking in ("full", "sampled"))
    full = [name for name in full if name in sampled]  # finished lists have no sampled ranking
    if full == sampled:
        return None
    return (
        f"The order of the models by {METRIC}@{k} depends on the candidates. Full ranking: {', '.join(full)}. "
        f"Sampled: {', '.join(sampled)}. Lists are made from the whole catalog: full ranking is the one that counts."
    )


def _ranked(standings: Sequence[Standing], ranking: str) -> list[Standing]:
    measured = [one for one in standings if ranking in one.values]
    return sorted(measured, key=lambda one: -one.values[ranking].mean())


def _against(
    one: Standing, others: Sequence[Standing], ranking: str, k: int, resamples: int, *, first_is_model: bool
) -> list[dict[str, Any]]:
    """``one`` against each of the others: as the model, or as the baseline of all of them."""
    # The difference is model minus baseline, whichever of the two is fixed.
    pairs = [(one, other) if first_is_model else (other, one) for other in others]
    results = [paired(a.values[ranking], b.values[ranking], resamples=resamples) for a, b in pairs]
    corrected = holm([result.p for result in results])
    return [
        {"model": a.name, "baseline": b.name, "metric": METRIC, "k": k, "ranking": ranking}
        | result.to_dict()
        # NaN, no test, is not below the level either.
        | {"p_holm": plain(float(p)), "better": result.difference > 0 if p < LEVEL else None}
        for (a, b), result, p in zip(pairs, results, corrected, strict=True)
    ]


def p_text(value: float) -> str:
    """A p-value with three digits behind the point, as a person reads it."""
    return "below 0.001" if value < 0.001 else f"{value:.3f}"
