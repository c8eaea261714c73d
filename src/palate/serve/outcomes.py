"""Results of an experiment, from the impressions and from the feedback that names their ``recommendation_id``.

A user is one observation: the share of lists with a click, the mean NDCG of the lists, or the credit of an
interleaving, all within ``hours`` after the first list. Only complete users count, in the order of their first lists,
up to the planned number: figures of a finished experiment never change, and looking at them early changes nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from scipy import stats
from sqlalchemy import Connection, select

from palate.evaluation.online import (
    Tested,
    mean_interval,
    sequential_sign,
    sequential_two_sample,
    sign_test,
    two_sample,
    wilson,
)
from palate.evaluation.significance import LEVEL, p_text
from palate.serve import tables
from palate.serve.experiments import Experiment, Plan
from palate.serve.settings import EventType

UNBALANCED = 0.001  # p of the shares of users below which something is wrong with the experiment itself
NAMES = {"click_through": "click-through", "ndcg": "NDCG", "credit": "credit"}


@dataclass
class Served:
    """A list as it was seen: items in their order, and the arm of each of an interleaved list."""

    user: str
    time: float
    arm: str | None
    items: list[str] = field(default_factory=list)
    row_arms: list[str] = field(default_factory=list)
    clicked: set[str] = field(default_factory=set)


@dataclass
class User:
    """The observation of one user."""

    first: float
    arm: str | None
    lists: int = 0
    clicked_lists: int = 0
    clicks: int = 0
    ndcg: float = 0.0
    credits: tuple[int, int] = (0, 0)

    def value(self, metric: str) -> float:
        """Of a metric."""
        if metric == "credit":
            one, two = self.credits
            return (two - one) / (one + two) if one + two else 0.0
        return (self.ndcg if metric == "ndcg" else self.clicked_lists) / self.lists


def results(connection: Connection, experiment: Experiment, types: Mapping[str, EventType]) -> dict[str, Any]:
    """Figures of the arms, their difference, and whether the rule of the plan has decided."""
    plan = experiment.plan
    lists = read_lists(connection, experiment, success_types(plan, types))
    users, mixed = observations(plan, lists)
    until = experiment.stopped or time.time()
    complete = [one for one in users if one.first + 3600 * plan.hours <= until]
    return {
        **summarize(experiment, complete),
        "served_users": len(users) + mixed,
        "incomplete_users": len(users) - len(complete),
        "mixed_users": mixed,
    }


def success_types(plan: Plan, types: Mapping[str, EventType]) -> set[str]:
    """The event types that count as success."""
    return (
        {name for name, kind in types.items() if kind.positive and kind.weight > 0 and not kind.rated}
        if (plan.types is None)
        else set(plan.types)
    )


def read_lists(connection: Connection, experiment: Experiment, success: set[str]) -> list[Served]:
    """The lists of an experiment in the order of time, pages joined, with the items that were clicked."""
    shown, events = tables.impressions, tables.events
    mine = shown.c.experiment == experiment.plan.name
    names = ("recommendation_id", "user_id", "time", "arm", "items", "row_arms")
    query = (
        select(*(shown.c[name] for name in names))
        .where(mine, shown.c.user_id.is_not(None))
        .order_by(shown.c.time, shown.c.first_rank)
    )
    found: dict[str, Served] = {}
    for name, user, moment, arm, items, row_arms in connection.execute(query):
        one = found.setdefault(name, Served(user, moment, arm))
        one.items += orjson.loads(items)
        one.row_arms += orjson.loads(row_arms) if row_arms else []
    first: dict[str, float] = {}
    for one in found.values():
        first.setdefault(one.user, one.time)
    seconds, last = 3600 * experiment.plan.hours or math.inf, experiment.stopped or math.inf
    served = select(shown.c.recommendation_id).where(mine)
    clicks = select(events.c.recommendation_id, events.c.user_id, events.c.item_id, events.c.received).where(
        events.c.recommendation_id.in_(served), events.c.undone.is_(False), events.c.type.in_(success)
    )
    for name, user, item, received in connection.execute(clicks):
        listed = found.get(name)  # None: a list that was stored after the lists were read
        # The time of the server: that of the client may be anything.
        if listed is not None and user == listed.user and received <= min(first[user] + seconds, last):
            listed.clicked.add(item)
    return [one for one in found.values() if one.time <= min(first[one.user] + seconds, last)]


def observations(plan: Plan, lists: list[Served]) -> tuple[list[User], int]:
    """One per user, in the order of their first lists; and the number of users left out since they saw both arms."""
    users: dict[str, User] = {}
    mixed: set[str] = set()
    first = plan.arms[0].name
    for one in lists:
        user = users.setdefault(one.user, User(one.time, one.arm))
        if user.arm != one.arm:
            mixed.add(one.user)
        hits = [place for place, item in enumerate(one.items) if item in one.clicked]
        user.lists += 1
        user.clicked_lists += bool(hits)
        user.clicks += len(hits)
        if hits:
            gain = sum(1 / math.log2(place + 2) for place in hits)
            user.ndcg += gain / sum(1 / math.log2(place + 2) for place in range(len(hits)))
        if plan.kind == "interleaving":
            ours = sum(one.row_arms[place] == first for place in hits)
            user.credits = user.credits[0] + ours, user.credits[1] + len(hits) - ours
    return [user for name, user in users.items() if name not in mixed], len(mixed)


def summarize(experiment: Experiment, users: list[User]) -> dict[str, Any]:
    """Figures of complete users, in the order of their first lists."""
    plan = experiment.plan
    if plan.kind == "interleaving":
        users = users[: plan.users]
        credit = np.array([one.value("credit") for one in users])
        tested = sequential_sign(credit, plan.effect) if plan.rule == "sequential" else sign_test(credit)
        done = len(users)
        arms = [
            {
                "name": arm.name,
                "users": done,
                "clicks": sum(one.credits[place] for one in users),
                "preferred_by": int((credit > 0).sum() if place else (credit < 0).sum()),
            }
            for place, arm in enumerate(plan.arms)
        ]
        return {"arms": arms, **decision(experiment, tested, done, "credit", None), "share_p": None}
    names = [arm.name for arm in plan.arms]
    totals = [sum(one.arm == name for one in users) for name in names]
    counts = dict.fromkeys(names, 0)
    kept: list[User] = []
    for one in users:
        if one.arm in counts and counts[one.arm] < plan.users:
            counts[one.arm] += 1
            kept.append(one)
    groups = [[one for one in kept if one.arm == name] for name in names]
    a, b = (np.array([one.value(plan.metric) for one in group]) for group in groups)
    if plan.rule == "sequential":
        values = np.array([one.value(plan.metric) for one in kept])
        tested = sequential_two_sample(values, np.array([one.arm == names[1] for one in kept], bool), plan.effect)
    else:
        tested = two_sample(a, b)
    means = (float(a.mean()), float(b.mean())) if len(a) and len(b) else None
    shares = [arm.share for arm in plan.arms]
    balance = stats.binomtest(totals[0], sum(totals), shares[0] / sum(shares)).pvalue if any(totals) else 1.0
    return {
        "arms": [_arm(name, group) for name, group in zip(names, groups, strict=True)],
        **decision(experiment, tested, min(len(a), len(b)), plan.metric, means),
        "share_p": float(balance),
    }


def _arm(name: str, users: list[User]) -> dict[str, Any]:
    clicked = sum(one.clicks > 0 for one in users)
    low, high = wilson(clicked, len(users))
    share = clicked / len(users) if users else None
    return {
        "name": name,
        "users": len(users),
        "lists": sum(one.lists for one in users),
        "clicks": sum(one.clicks for one in users),
        "click_through": _mean(np.array([one.value("click_through") for one in users])),
        "ndcg": _mean(np.array([one.value("ndcg") for one in users])),
        "users_who_clicked": {"value": share, "low": _number(low), "high": _number(high)},
    }


def _mean(values: NDArray[np.float64]) -> dict[str, float | None]:
    if not len(values):
        return {"value": None, "low": None, "high": None}
    low, high = mean_interval(values)
    return {"value": float(values.mean()), "low": _number(low), "high": _number(high)}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def decision(
    experiment: Experiment, tested: Tested, done: int, metric: str, means: tuple[float, float] | None
) -> dict[str, Any]:
    """Whether the rule has decided, for whom, and a sentence; a test of fixed size is shown only at its size."""
    plan = experiment.plan
    full = done >= plan.users
    early = plan.rule == "sequential" and tested.decided_at is not None
    decided = full or early
    document: dict[str, Any] = {"needed": plan.users, "complete": done, "decided": decided, "winner": None}
    shown = tested.to_dict()
    del shown["decided_at"], shown["second_better"]
    if not decided and plan.rule == "fixed":
        shown |= {"p": None, "test": f"none before {plan.users:,} users"}
    document["difference"] = {"metric": metric, "of": [plan.arms[1].name, plan.arms[0].name], **shown}
    of = "users of each arm" if plan.kind == "ab" else "users"
    if not decided:
        stopped = experiment.state == "stopped"
        head = "Stopped before its rule had decided, so nothing can be said" if stopped else "Not decided"
        return {**document, "sentence": f"{head}: {done:,} of {plan.users:,} {of} are complete."}
    better = early or tested.p < LEVEL
    second = bool(tested.second_better) if early else tested.difference > 0
    about = (
        f"difference {tested.difference:+.4f}, 95 % interval {tested.low:+.4f} to {tested.high:+.4f}, "
        f"p {p_text(tested.p)}, {tested.test}, {done:,} {of}"
    )
    if not better:
        return {**document, "sentence": f"No difference in {NAMES[metric]} is shown: {about}."}
    names = [arm.name for arm in plan.arms]
    winner, loser = names[::-1] if second else names
    values = "" if means is None else f" ({means[second]:.4f} instead of {means[not second]:.4f})"
    sentence = f"{winner} is better than {loser} in {NAMES[metric]}{values}: {about}."
    return {**document, "winner": winner, "sentence": sentence}
