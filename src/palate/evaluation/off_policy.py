"""Off-policy evaluation: the value of a policy that was not in use, from the log of one that drew at random.

    log = impression_log("impressions.ndjson", "events.ndjson")          # exports of the server
    found = off_policy(log, list_target(lists))                          # clicks of the items of other lists
    log = exploration_log("impressions.ndjson", "events.ndjson")
    found = off_policy(log, explore_target(log, 0.0))                    # clicks a place without exploration

    log = pl.read_csv("log.csv")                                         # user_id, item_id, propensity, reward

The log has one row per decision: in a context x the policy in use chose the action a with probability p(a | x), its
propensity, and earned the reward r. With the target's probability of the same action, t(a | x), and w = t / p,

    IPS     sum w r / N                            (Horvitz & Thompson 1952, JASA 47)
    SNIPS   sum w r / sum w                        (Swaminathan & Joachims 2015, NIPS, "The self-normalized estimator")
    DR      sum (Q(x) + w (r - q(x, a))) / N       (Dudik, Langford & Li 2011, ICML, "Doubly robust policy evaluation")

with q(x, a) a prediction of the reward, and Q(x) = sum_a t(a | x) q(x, a). Here q is the mean reward of the action,
shrunk to the mean of all, among the users of the other folds, so that a prediction never contains its own reward. IPS
and DR are unbiased where every action of the target had a propensity above 0. Then w averages 1, and a log whose
weights do not is refused. All three take the reward of a decision to depend on its own action only.

Users are the unit: the intervals are those of a ratio of sums over users, by linearization, with Student's t
(Cochran 1977, "Sampling Techniques", chapter 6).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from palate.errors import EvaluationError
from palate.evaluation.significance import LEVEL
from palate.evaluation.tables import Plain, Tabular

Floats = NDArray[np.float64]
FOLDS = 5  # of the users, for the predictions of DR
PRIOR = 20.0  # decisions with the mean reward that are added to those of an action
FEW_USERS = 30  # with a weight above 0: below, the normal limit of the intervals is far away
FAR = 4.0  # standard errors between the mean weight and 1 that no sound log has


@dataclass(frozen=True)
class Estimate:
    """An estimate of the mean reward of a decision, with its 95 % interval over users."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class OffPolicy(Tabular, Plain):
    """The value of a target policy.

    Args:
        decisions, users: of the log.
        estimates: "logged", the mean reward of the policy in use, then "IPS", "SNIPS" and "DR" of the target.
        matched: share of the decisions whose action the target may choose.
        mean_weight: 1 but for chance.
        largest_weight: of one decision; a single reward counts so many times.
        effective: decisions that a log of the target itself would need for the same certainty, (sum w)^2 / sum w^2.
    """

    decisions: int
    users: int
    estimates: tuple[Estimate, ...]
    matched: float
    mean_weight: float
    largest_weight: float
    effective: float

    def rows(self) -> list[dict[str, Any]]:
        """One row per estimate: estimator, value, low, high."""
        return [{"estimator": one.name, "value": one.value, "low": one.low, "high": one.high} for one in self.estimates]


def off_policy(log: pl.DataFrame, target: pl.DataFrame) -> OffPolicy:
    """The value of a target policy from the log of another.

    Args:
        log: one row per decision: user_id, reward, propensity, action (or item_id), and context. Without a context,
            the user is the context.
        target: context (or user_id), action (or item_id) and probability: the policy to evaluate. Probabilities of
            one context add up to 1; actions that are missing have 0.

    Raises:
        EvaluationError: a column is missing; a propensity is missing or not above 0 and at most 1; probabilities do not
            add up to 1; a context has no target; the log does not support the target.
    """
    log, target = (
        one.rename({old: new for new, old in given if new not in one.columns and old in one.columns})
        for one, given in ((log, (("action", "item_id"),)), (target, (("action", "item_id"), ("context", "user_id"))))
    )
    log = log if "context" in log.columns else log.with_columns(context=pl.col("user_id"))
    for name, frame, wanted in (
        ("log", log, ("user_id", "reward", "propensity", "action")),
        ("target", target, ("context", "action", "probability")),
    ):
        missing = [column for column in wanted if column not in frame.columns]
        if missing:
            have = ", ".join(frame.columns)
            raise EvaluationError(f"the {name} has no column {missing[0]!r} (it has {have}): add it, or rename one")
    propensity = log["propensity"].cast(pl.Float64, strict=False)
    bad = int((propensity.is_null() | ~((propensity > 0) & (propensity <= 1))).fill_null(True).sum())
    if bad or not len(log):
        raise EvaluationError(
            f"{bad:,} of {len(log):,} decisions have no propensity above 0 and at most 1: only a log of choices that "
            "were drawn at random with known probabilities can be evaluated; serve with exploration (explore)"
        )
    sums = target.group_by("context").agg(pl.col("probability").sum())
    if len(off := sums.filter((pl.col("probability") - 1).abs() > 1e-6)):
        raise EvaluationError(f"the probabilities of context {off['context'][0]!r} add up to {off['probability'][0]:g}")
    users = log["user_id"].cast(pl.String).rank("dense").cast(pl.Int64).to_numpy() - 1
    # Folds of users by their hash, so that they do not depend on the order of the ids.
    log = log.with_columns(reward=pl.col("reward").cast(pl.Float64), fold=pl.col("user_id").hash(seed=0) % FOLDS)
    predicted = _predictions(log, target["action"])
    row = log.lazy().with_row_index("row")
    found = (
        row.join(target.lazy(), on=["context", "action"], how="left", maintain_order="left")
        .join(predicted.lazy(), on=["action", "fold"], how="left", maintain_order="left")
        .select("row", "context", "fold", "reward", "predicted", pl.col("probability").fill_null(0.0))
        .collect()
    )
    expected = (
        target.join(predicted, on="action", how="left")
        .group_by("context", "fold")
        .agg(expected=(pl.col("probability") * pl.col("predicted")).sum())
    )
    found = found.join(expected, on=["context", "fold"], how="left", maintain_order="left")
    if found["expected"].null_count():
        lost = found.filter(pl.col("expected").is_null())
        raise EvaluationError(f"{len(lost):,} decisions have no target, such as context {lost['context'][0]!r}: add it")
    weight_N = found["probability"].to_numpy() / propensity.to_numpy()
    reward_N, q_N, expected_N = (found[name].to_numpy() for name in ("reward", "predicted", "expected"))
    one_N = np.ones(len(log))
    mean_weight, error = _ratio(weight_N, one_N, users)
    weighted = len(np.unique(users[weight_N > 0]))
    if weighted < FEW_USERS:
        raise EvaluationError(
            f"the log does not support the target: {weighted:,} users were shown an action that it may choose, "
            f"{FEW_USERS} are needed: log more, or evaluate a policy nearer to the one in use"
        )
    if abs(mean_weight - 1) > FAR * error + 1e-9:
        raise EvaluationError(
            f"the log does not support the target: its weights average {mean_weight:.3f} instead of 1 (standard error "
            f"{error:.3f}), so it chooses actions that were never shown, or the propensities are wrong"
        )
    quantile = float(stats.t.isf(LEVEL / 2, len(np.unique(users)) - 1))
    estimates = []
    for name, top_N, bottom_N in (
        ("logged", reward_N, one_N),
        ("IPS", weight_N * reward_N, one_N),
        ("SNIPS", weight_N * reward_N, weight_N),
        ("DR", expected_N + weight_N * (reward_N - q_N), one_N),
    ):
        value, error = _ratio(top_N, bottom_N, users)
        estimates.append(Estimate(name, value, value - quantile * error, value + quantile * error))
    return OffPolicy(
        len(log), len(np.unique(users)), tuple(estimates), float((weight_N > 0).mean()), mean_weight,
        float(weight_N.max()), float(weight_N.sum() ** 2 / (weight_N**2).sum()),
    )  # fmt: skip


def _predictions(log: pl.DataFrame, actions: pl.Series) -> pl.DataFrame:
    """The mean reward of each action for each fold, from the users of the other folds: action, fold, predicted."""
    folds = pl.DataFrame({"fold": pl.Series(range(FOLDS), dtype=log.schema["fold"])})
    every = pl.concat([log["action"], actions]).unique().to_frame("action").join(folds, how="cross")
    inside = log.group_by("action", "fold").agg(count=pl.len(), total=pl.col("reward").sum())
    found = every.join(inside, on=["action", "fold"], how="left").fill_null(0)
    elsewhere = {name: pl.col(name).sum().over("action") - pl.col(name) for name in ("count", "total")}
    of_all = {name: pl.col(name).sum() - pl.col(name).sum().over("fold") for name in ("count", "total")}
    mean = of_all["total"] / of_all["count"].clip(lower_bound=1)
    return found.select("action", "fold", predicted=(elsewhere["total"] + PRIOR * mean) / (elsewhere["count"] + PRIOR))


def _ratio(top_N: Floats, bottom_N: Floats, users: NDArray[np.int64]) -> tuple[float, float]:
    """Ratio of two sums, and its standard error over users."""
    top_U, bottom_U = (np.bincount(users, one) for one in (top_N, bottom_N))
    ratio, n = float(top_U.sum() / bottom_U.sum()), len(top_U)
    rest_U = (top_U - ratio * bottom_U) / bottom_U.mean()
    return ratio, float(np.sqrt((rest_U**2).sum() / max(1, n - 1) / n))


def list_target(lists: pl.DataFrame) -> pl.DataFrame:
    """The policy that shows a user each item of the user's list with the same probability.

    Its value is the mean reward of a place of the lists, where the reward of an item does not depend on its place.

    Args:
        lists: user_id and item_id, as ``Recommender.recommend`` returns them.
    """
    return lists.select("user_id", "item_id", probability=1.0 / pl.len().over("user_id"))


def explore_target(log: pl.DataFrame, share: float) -> pl.DataFrame:
    """The policy that explores another share of the places, for a log of ``exploration_log``.

    Raises:
        EvaluationError: ``share`` is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise EvaluationError(f"explore={share:g}: give the share of the places that is explored, from 0 to 1")
    places = log.select("context").unique()
    parts = (
        places.with_columns(action=pl.format("{} at {}", pl.lit(name), "context"), probability=pl.lit(chance))
        for name, chance in (("explore", share), ("best", 1.0 - share))
    )
    return pl.concat(parts)


def impression_log(impressions: str | Path, events: str | Path, types: list[str] | None = None) -> pl.DataFrame:
    """The items that a server has shown in lists with exploration, as decisions about items: a log for ``list_target``.

    One row per item: recommendation_id, user_id, item_id, place (from 1), source, reward (1 if an event names the list
    and the item), explored (the probability of a place to be explored), fresh (whether it is the first page of a list
    that was made before the first event of the user in the log: later ones leave out items for what happened since the
    training of a bundle, and support no list that holds them) and propensity. A list of k items that holds an
    item with probability q, at any place, shows it in one of its places, taken at random, with probability q / k. That
    is the propensity: an item at the top of all lists of a user supports a target that lists it at another place.

    Args:
        impressions, events: files of ``GET /v1/export/impressions`` and ``GET /v1/export/events``.
        types: event types that count as a reward. Default: all.

    Raises:
        EvaluationError: no list has propensities, or a file is no export.
    """
    try:
        lists, clicks = (pl.read_ndjson(path, infer_schema_length=None) for path in (impressions, events))
        columns = ("recommendation_id", "first_rank", "user_id", "time", "items", "sources", "propensity", "explored")
        needed = lists.select(columns)
        visitor = [pl.col("user_id").cast(pl.String)]
        if "session_id" in clicks.columns:
            visitor.append(pl.format("$session:{}", "session_id"))
        first = clicks.group_by(user=pl.coalesce(visitor)).agg(first=pl.col("time").min())
        clicks = clicks.select("recommendation_id", "item_id", "type").filter(pl.col("recommendation_id").is_not_null())
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise EvaluationError(
            f"{impressions} and {events} are not exports of the server ({reason}): save /v1/export/impressions and "
            "/v1/export/events"
        ) from None
    drawn = needed.filter(pl.col("propensity").is_not_null())
    if drawn.is_empty():
        raise EvaluationError(
            f"none of the {len(needed):,} lists of {impressions} has propensities: nothing was drawn at random; serve "
            "with a share of exploration (explore), without rules that reorder, then export again"
        )
    if types is not None:
        clicks = clicks.filter(pl.col("type").is_in(types))
    clicked = clicks.select("recommendation_id", pl.col("item_id").cast(pl.String), reward=1.0).unique()
    size = pl.col("items").list.len()
    user = pl.col("user_id").cast(pl.String)
    drawn = drawn.join(first, left_on=user, right_on="user", how="left", maintain_order="left")
    before = pl.col("first").is_null() | (pl.col("time") <= pl.col("first"))
    fresh = (pl.col("first_rank") == 1) & before
    places = drawn.with_columns(places=pl.int_ranges(0, size), size=size, fresh=fresh)
    places = places.explode("items", "sources", "propensity", "places").drop_nulls("items")
    return (
        places.select(
            "recommendation_id",
            # A visitor without a name is one list.
            user_id=pl.coalesce(pl.col("user_id").cast(pl.String), "recommendation_id"),
            item_id=pl.col("items").cast(pl.String),
            place=pl.col("first_rank") + pl.col("places"),
            source="sources",
            explored="explored",
            fresh="fresh",
            propensity=pl.col("propensity") / pl.col("size"),
        )
        .join(clicked, on=["recommendation_id", "item_id"], how="left", maintain_order="left")
        .with_columns(pl.col("reward").fill_null(0.0))
    )


def exploration_log(impressions: str | Path, events: str | Path, types: list[str] | None = None) -> pl.DataFrame:
    """The places that a server has filled, as decisions whether to explore: a log for ``explore_target``.

    The context of a decision is its place in the list, its action "explore" or "best". Arguments and errors are those
    of ``impression_log``.
    """
    explored = pl.col("source") == "explore"
    choice = pl.when(explored).then(pl.lit("explore")).otherwise(pl.lit("best"))
    return impression_log(impressions, events, types).select(
        "recommendation_id",
        "user_id",
        "item_id",
        "reward",
        context="place",
        action=pl.format("{} at {}", choice, "place"),
        propensity=pl.when(explored).then("explored").otherwise(1 - pl.col("explored")),
    )
