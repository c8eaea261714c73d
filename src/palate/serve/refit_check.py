"""Whether a refitted bundle should take the place of the old one: both answer the users of the newest events.

Both know the same: the lists are those that a server would have made just before the newest events, with the earlier
ones in the training of the new bundle and in the live state of the old one, from the items that both can list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.bundle import Bundle
from palate.data.dataset import Interactions
from palate.data.splits.split import Split
from palate.evaluation.evaluate import evaluate_lists
from palate.evaluation.rankings import Lists
from palate.evaluation.report import Report
from palate.evaluation.significance import LEVEL, Paired, p_text, paired
from palate.evaluation.tables import Plain
from palate.recommend.top_n import RecommendOptions
from palate.serve import batcher
from palate.serve.answers import left_out
from palate.serve.batcher import EMPTY, Ask
from palate.serve.deployment import Deployment, LiveEvent
from palate.serve.live import Live
from palate.serve.refit import Refit, merge

USERS = 2_000  # asked at a time
FEWEST = 10  # users to compare on
EVERYTHING = 1 << 62


@dataclass(frozen=True, eq=False)
class Comparison(Plain):
    """Old and new on the newest events.

    Args:
        recommended: whether the new one is better beyond luck; None where too little can be compared.
        sentence: the same in words.
        k: list length.
        old, new: mean NDCG.
        test: their difference per user, paired.
        events, users: newest positive events that count, and their users.
        unlisted: newest events on items that the old bundle cannot list; they do not count.
        cut: time of the first newest event, seconds since 1970.
    """

    recommended: bool | None
    sentence: str
    k: int
    old: float | None = None
    new: float | None = None
    test: Paired | None = None
    events: int = 0
    users: int = 0
    unlisted: int = 0
    cut: float | None = None


def compare(refit: Refit, test_size: float = 0.2, k: int = 10) -> tuple[Comparison, Report | None]:
    """Train without the newest share of the stored events, and compare on them; the report is that of the new one."""
    log = refit.log
    times = log.events["time"].sort()
    if not len(times):
        return _unclear(k, "no event is stored that could be learned from"), None
    cut = float(times[int((1 - test_size) * len(times))])
    before, after = (log.events.filter(one) for one in (pl.col("time") < cut, pl.col("time") >= cut))
    if before.is_empty():
        return _unclear(k, f"all {len(after):,} stored events have the same time"), None
    merged = merge(refit.base, log, refit.rows(before))
    data = merged.data
    new = Deployment(merged.bundle(refit.old.recipe, refit.old, refit.training), refit.path, "new")
    # A deployment counts live events in tables of its own recommender.
    mine = replace(refit.old, recommender=replace(refit.old.recommender, index=None))
    old = Deployment(mine, refit.path, "old")
    new.trained_seq = EVERYTHING  # the events before the cut; the live state holds no others
    test, unlisted = _test_rows(refit, after, before, data, old)
    users = np.unique(test.user)
    if len(users) < FEWEST:
        few = f"only {len(users):,} users have newest events on items that both can list, at least {FEWEST} are needed"
        return replace(_unclear(k, few), unlisted=unlisted), None
    how = f"newest {test_size:.4g} of the stored events held out, positive ones on items new to the user"
    split = Split(data, data.with_rows(test), how)
    listed = {one.item_id for one in log.items if not one.listed(cut)}
    reports = []
    for deployment in (old, new):
        lists = served_lists(deployment, refit, before, data.users.ids[users].cast(pl.String).to_list(), old, listed, k)
        rows = np.append(data.items.rows(deployment.items.ids), -1)[lists]
        reports.append(evaluate_lists(Lists(users, rows), split, k=k, relevant="any", name=deployment.version))
    before_U, after_U = (report.per_user[f"NDCG@{k}"] for report in reports)
    found = paired(after_U, before_U)
    sure = found.p < LEVEL and found.difference != 0
    better = bool(sure and found.difference > 0)
    about = (
        f"NDCG@{k} {after_U.mean():.4f} instead of {before_U.mean():.4f} on the newest {len(test):,} events of "
        f"{len(users):,} users, difference {found.difference:+.4f}, 95 % interval {found.low:+.4f} to "
        f"{found.high:+.4f}, p {p_text(found.p)}"
    )
    words = "The switch is recommended" if better else "The switch is not recommended"
    doubt = "" if sure else ", since the difference may be luck"
    comparison = Comparison(
        better, f"{words}{doubt}: {about}.", k, float(before_U.mean()), float(after_U.mean()), found, len(test),
        len(users), unlisted, cut,
    )  # fmt: skip
    return comparison, replace(reports[1], model=refit.old.recipe.name)


def _unclear(k: int, why: str) -> Comparison:
    return Comparison(None, f"Whether to switch cannot be said: {why}.", k)


def _test_rows(
    refit: Refit, after: pl.DataFrame, before: pl.DataFrame, data: Any, old: Deployment
) -> tuple[Interactions, int]:
    """Newest positive events on items that the user has not had, and the number of those that the old cannot list."""
    rows = refit.rows(after)
    rows = rows.filter(pl.Series(np.asarray(data.feedback.positive(rows["weight"].to_numpy())), dtype=pl.Boolean))
    rows = rows.unique(["user", "item"], maintain_order=True)
    known = old.items.rows(rows["item"]) >= 0
    user, item = data.users.rows(rows["user"]), data.items.rows(rows["item"])
    # Of all stored types: an item that was hidden or only marked as seen cannot be listed either.
    had = before.select("user", "item").unique()
    pairs = np.concatenate(
        [
            data.interactions.user.astype(np.int64) * data.n_items + data.interactions.item,
            data.users.rows(had["user"]).astype(np.int64) * data.n_items + data.items.rows(had["item"]),
        ]
    )
    fresh = ~np.isin(user.astype(np.int64) * data.n_items + item, pairs)
    kept = known & fresh
    found = Interactions(
        user[kept],
        item[kept],
        rows["weight"].to_numpy().astype(np.float32)[kept],
        None if data.interactions.time is None else rows["time"].to_numpy()[kept],
    )
    return found, int((fresh & ~known).sum())


def served_lists(
    deployment: Deployment,
    refit: Refit,
    before: pl.DataFrame,
    users: list[str],
    old: Deployment,
    unlisted: set[str],
    k: int,
) -> NDArray[np.int64]:
    """(U, k) item rows of the deployment, -1 in empty places: the lists of a server with these events."""
    types = dict(refit.types)
    live = Live(types, deployment)
    live.deleted |= refit.log.deleted
    for seq, user, item, kind, value, moment in before.iter_rows():
        live.add(user, LiveEvent(seq, item, kind, value, moment))
    state = deployment.recommender
    allowed_I = old.items.rows(state.items.ids) >= 0
    hidden = state.items.rows(list(unlisted))
    allowed_I[hidden[hidden >= 0]] = False
    cold = replace(state.cold, explore=0.0)
    lists = np.full((len(users), k), -1, np.int64)
    for start in range(0, len(users), USERS):
        asks: dict[bool, list[tuple[int, Ask]]] = {}
        for place, user in enumerate(users[start : start + USERS], start):
            row, view = live.row(deployment, user), live.view(deployment, user)
            exclude_seen, hide = left_out(deployment, row, view, None, True, None, EMPTY)
            options = RecommendOptions(k, exclude_seen, None, None, cold, allowed_I, refold=True)
            ask = Ask(state, row, user, options, None, view.given, hide)
            asks.setdefault(exclude_seen, []).append((place, ask))
        for group in asks.values():
            answers = batcher.answer([ask for _, ask in group])
            for (place, _), one in zip(group, answers, strict=True):
                lists[place, : len(one.items)] = one.items
    return lists


def summary(comparison: Comparison, old: Bundle, new: Bundle) -> Mapping[str, Any]:
    """Sizes of both bundles beside the comparison, ready for JSON."""
    sizes = {
        name: {"users": len(one.recommender.users), "items": len(one.recommender.items), "rows": _rows(one)}
        for name, one in (("old", old), ("new", new))
    }
    return {**comparison.to_dict(), "sizes": sizes}


def _rows(bundle: Bundle) -> int:
    return len(bundle.recommender.seen.items) if bundle.trained_on is None else bundle.trained_on.rows
