"""Why one item is listed for one user, and why another is not: both ask ``top_n``, which answers the list itself.

Shape legend: N rows of a list, I items.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from palate.base import GeneratesCandidates
from palate.data.ids import stable_hashes
from palate.recommend import request, top_n
from palate.recommend.attribution import Explainer, Explanation
from palate.recommend.request import Histories, Id, UserFeatures
from palate.recommend.state import State
from palate.recommend.top_n import EXPLORE, SOURCES, Answer, Asked, RecommendOptions
from palate.rules.rerank import traces

Stage = Literal["listed", "items", "seen", "rule", "retrieval", "cap", "diversity", "pins", "explore", "score"]


@dataclass(frozen=True, eq=False)
class Why:
    """The effect of a user's history on an item.

    Args:
        user: the id as given.
        item: its id.
        title: its title, or None.
        source: as in the list of recommendations, or as it would be there.
        score: likewise.
        text: the main reasons in words.
        explanation: everything that supports the item or speaks against it; None where nothing personal is known.
    """

    user: Id
    item: Id
    title: str | None
    source: str
    score: float
    text: str
    explanation: Explanation | None

    def side(self, support: bool, top: int | None = None) -> pl.DataFrame:
        """The items that support, or those that speak against, the strongest first; at most ``top``."""
        if self.explanation is None:
            return pl.DataFrame()
        effect = pl.col("effect") if support else -pl.col("effect")
        frame = self.explanation.effects.filter(effect > 0).sort(effect, descending=True, maintain_order=True)
        return frame if top is None else frame.head(top)

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """Plain data; at most ``top`` items of each side."""
        known = self.explanation
        return {
            "user_id": self.user,
            "item_id": self.item,
            "title": self.title,
            "source": self.source,
            "score": self.score,
            "why": self.text,
            "method": None if known is None else known.method,
            "explained_score": None if known is None else known.score,
            "rest": None if known is None else known.rest,
            "untested": 0 if known is None else known.untested,
            "support": self.side(True, top).to_dicts(),
            "against": self.side(False, top).drop("share", strict=False).to_dicts(),
        }


@dataclass(frozen=True)
class WhyNot:
    """The stage at which one item left one list.

    Args:
        user, item: the ids.
        title: of the item, or None.
        stage: where it ended: "listed", "items" (not among the items to rank), "seen" (in the user's history), "rule",
            "retrieval" (the first stage of a two-stage model, or an approximate index, did not find it), "cap",
            "diversity", "pins", "explore" or "score".
        reason: the same in words.
        k: length of the list.
        place: in the list, from 1, or None.
        score, rank: by the model, and its rank among all ``items`` by that score.
        items: number of items with a score.
        rank_left, items_left: the same among those left by history, rules and the items to rank; None if it is not.
        score_at_k: the score at place k among those, or of the last where there are fewer.
    """

    user: Id
    item: Id
    title: str | None
    stage: Stage
    reason: str
    k: int
    place: int | None
    score: float | None
    rank: int | None
    items: int
    rank_left: int | None
    items_left: int
    score_at_k: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


class _User:
    """One user of one request, as ``top_n`` sees them."""

    def __init__(
        self,
        state: State,
        user: Id,
        options: RecommendOptions,
        histories: Histories | None,
        features: UserFeatures | None,
    ) -> None:
        asked = request.as_users(user)
        self.state, self.options, self.rows = state, options, state.users.rows(asked)
        self.given = None if histories is None else request.given_events(asked, histories, state.items)
        self.features = request.features_of(state.user_features, asked, self.rows, features) if features else None
        self.keys = stable_hashes(asked)

    def list(self, options: RecommendOptions) -> Answer:
        """The answer to this user under other options."""
        return top_n.recommend(self.state, self.rows, options, given=self.given, features=self.features, keys=self.keys)

    def everything(self) -> Answer:
        """All items by score: nothing is excluded, reordered or explored."""
        cold = replace(self.options.cold, explore=0.0)
        whole = RecommendOptions(len(self.state.items), False, None, self.options.at, cold)
        return self.list(whole)

    def asked(self) -> Asked:
        """The query of this user."""
        return top_n.ask(self.state, self.rows, self.options, self.given, self.features)


def explain(
    state: State,
    explainer: Explainer,
    user: Id,
    item: Id,
    options: RecommendOptions,
    histories: Histories | None = None,
    features: UserFeatures | None = None,
) -> Why:
    """Why an item is listed for a user, or would be, seen or not: see ``Recommender.explain``."""
    row = state.similar_items.row(item)
    one = _User(state, user, options, histories, features)
    found = one.list(options)
    place = _rank(found, row)
    if place is None:
        # Not in the list: its score in a list of everything.
        found = one.everything()
        place = _rank(found, row)
    score = float("-inf") if place is None else float(found.scores[place - 1])
    source = SOURCES[found.sources[0 if place is None else place - 1]]
    query, personal = one.asked().query, found.personal
    reasons = explainer.because(query, np.zeros(1, np.int64), np.array([row]), personal)
    return Why(
        user=user,
        item=state.items.ids[row],
        title=None if state.titles is None else state.titles[row],
        source=source,
        score=score,
        text=reasons["why"][0],
        explanation=explainer.explain(query, row) if personal[0] else None,
    )


def why_not(
    state: State,
    user: Id,
    item: Id,
    options: RecommendOptions,
    histories: Histories | None = None,
    features: UserFeatures | None = None,
) -> WhyNot:
    """Why an item is not among the k recommended to a user: see ``Recommender.why_not``."""
    row, one = state.similar_items.row(item), _User(state, user, options, histories, features)
    listed, whole = one.list(options), one.everything()
    rules, plain = options.rules, replace(options.cold, explore=0.0)
    if rules is not None:  # the same items kept out, but nothing reordered
        codes_IS, limit_G, names = rules.caps
        rules = replace(
            rules,
            rules=replace(rules.rules, pins=(), caps={}, diversity=None),
            pins=(),
            caps=rules.caps._replace(codes_IS=codes_IS[:, :0], limit_G=limit_G[:1], names=names[:1]),
            diversity=0.0,
            similarity_ID=None,
        )
    left = one.list(replace(options, k=len(state.items), rules=rules, cold=plain))
    stage, reason = _Way(state, user, row, options, one.asked(), whole, left, listed).end()
    rank = _rank(whole, row)
    return WhyNot(
        user=user,
        item=state.items.ids[row],
        title=None if state.titles is None else state.titles[row],
        stage=stage,
        reason=reason,
        k=options.k,
        place=_rank(listed, row),
        score=None if rank is None else float(whole.scores[rank - 1]),
        rank=rank,
        items=len(whole.items),
        rank_left=_rank(left, row),
        items_left=len(left.items),
        score_at_k=float(left.scores[: options.k][-1]) if len(left.items) else None,
    )


def _rank(answer: Answer, row: int) -> int | None:
    """Place of an item in the list of one user, from 1, or None."""
    found = np.flatnonzero(answer.items == row)
    return int(found[0]) + 1 if len(found) else None


@dataclass(frozen=True, eq=False)
class _Way:
    """The way of one item: ``whole``, all items by score; ``left`` by history, items and rules; ``listed``."""

    state: State
    user: Id
    row: int
    options: RecommendOptions
    asked: Asked
    whole: Answer
    left: Answer
    listed: Answer

    def end(self) -> tuple[Stage, str]:
        """The first stage that kept the item out, with the reason."""
        place, rules = _rank(self.listed, self.row), self.options.rules
        if place is not None:
            trace = ""
            if self.listed.moved is not None and self.listed.by_score is not None:
                trace = traces(self.listed.by_score, self.listed.moved, self.listed.ranks)[place - 1]
            if self.listed.sources[place - 1] == EXPLORE:
                trace = "drawn by exploration"
            return "listed", f"it is in the list, at place {place}" + (f" ({trace})" if trace else "")
        blocks = [] if rules is None else [x.name + self._own(x.column) for x in rules.blocks if x.out_I[self.row]]
        had = self._had()
        if had:
            return "seen", "; ".join([had, *blocks])
        if blocks:
            return "rule", "; ".join(blocks)
        if not self.options.may_list(self.row):
            return "items", "it is not among the items to rank"
        own = _rank(self.left, self.row)
        if own is None:
            return "score", "the model gives it no score"
        if not self._retrieved():
            return "retrieval", "no retriever of the first stage has it among its candidates"
        overtaken = self._overtaken(own)
        if overtaken is None:
            k = min(self.options.k, len(self.left.items))
            score, at_k = self.left.scores[own - 1], self.left.scores[k - 1]
            left = f"rank {own:,} of {len(self.left.items):,} left by score"
            return "score", f"{left}: {score:,.4f}, where place {k} has {at_k:,.4f}{self._pin()}"
        stage, reason = overtaken
        return stage, reason + self._pin()

    def _had(self) -> str:
        """When the user had or bought the item, where that keeps it out."""
        rules, history = self.options.rules, self.asked.history
        exclude = None if rules is None else rules.rules.exclude
        hides = exclude or ("seen" if self.options.exclude_seen else "none")
        history = history if rules is None else rules.excluded(history)
        events = np.flatnonzero(history.items == self.row)
        if hides == "none" or not len(events):
            return ""
        last = events[-1]
        verb = "bought" if hides == "bought" else "had"
        often = "once" if len(events) == 1 else f"{len(events):,} times"
        when = "" if history.times is None else f", last on {datetime.fromtimestamp(history.times[last], UTC):%Y-%m-%d}"
        return f"{self.user} has {verb} it {often}{when} (weight {history.weights[last]:g})"

    def _own(self, column: str) -> str:
        """The item's value in a column that a rule looks at."""
        features = self.state.item_features
        if features is None or column not in features.columns:
            return ""
        value = features[column][self.row]
        shown = ", ".join(map(str, value)) if isinstance(value, pl.Series) else value
        return f" (it has {'nothing' if shown is None else shown})"

    def _retrieved(self) -> bool:
        """Whether the first stage of a two-stage model found the item; True where there is no such stage."""
        if not isinstance(self.state.model, GeneratesCandidates):
            return True
        with torch.inference_mode():
            found_P = self.state.model.candidates(self.asked.query)[0]
        return self.row in found_P.tolist() or not bool((found_P >= 0).any())

    def _overtaken(self, own: int) -> tuple[Stage, str] | None:
        """The stage that put items of lower score before this one; None if the scores did it."""
        rules, rows = self.options.rules, self.listed.items
        pinned = set() if rules is None else {row for _, row in rules.pins}
        drawn = rows[self.listed.sources == EXPLORE]
        rank = f"rank {own:,} of {len(self.left.items):,} left by score, but "
        lower = [
            row
            for row in np.setdiff1d(rows, drawn).tolist()
            if row not in pinned and (_rank(self.left, row) or 0) > own
        ]
        if own > self.options.k and not lower and len(rows) == self.options.k:
            return None
        full = [] if rules is None else rules.full_caps(self.row, rows)
        if full:
            caps = "; ".join(f"{name}, at most {most}: {self._names(cap)}" for name, most, cap in full)
            return "cap", f"{rank}the cap is full ({caps})"
        if lower and rules is not None and rules.diversity:
            lower = [row for row in rows.tolist() if row in lower]  # in the order of the list
            return "diversity", f"{rank}diversity put before it items less like those above: {self._names(lower)}"
        pins = [row for row in rows.tolist() if row in pinned]
        if pins:
            return "pins", f"{rank}pins take places before it: {self._names(pins)}"
        if len(drawn):
            return "explore", f"{rank}exploration gives places before it to less known items: {self._names(drawn)}"
        return "retrieval", f"{rank}the approximate index did not find it"

    def _pin(self) -> str:
        """That the item is pinned beyond the end of the list."""
        pins = () if self.options.rules is None else self.options.rules.pins
        places = [place + 1 for place, row in pins if row == self.row and place >= self.options.k]
        return f"; it is pinned at {places[0]}, beyond the list of {self.options.k}" if places else ""

    def _names(self, rows: Iterable[int] | NDArray[np.integer[Any]]) -> str:
        """Titles, or else ids."""
        titles, ids = self.state.titles, self.state.items.ids
        return ", ".join(str(ids[row] if titles is None else titles[row] or ids[row]) for row in map(int, rows))
