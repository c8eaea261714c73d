"""Why an item is not in a user's list: the rule, stage or score that kept it out, and the rank it had.

Shape legend: K rows of a list, I items.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from palate.base import Query
from palate.data.dataset import History
from palate.recommend import request as ask
from palate.rules import CompiledRules, Rules
from palate.rules.rules import Exclude

if TYPE_CHECKING:
    from palate.recommend.recommender import Recommender

__all__ = ["Stage", "WhyNot", "why_not"]

Stage = Literal["listed", "seen", "rule", "retrieval", "cap", "diversity", "pins", "score"]


@dataclass(frozen=True)
class WhyNot:
    """What became of one item on the way to one list.

    Args:
        user, item: the ids.
        title: of the item, or None.
        stage: where it ended: "listed", "seen" (the user has had it), "rule", "retrieval" (no retriever of a two-stage
            model found it), "cap", "diversity", "pins" or "score".
        reason: the same in words.
        k: length of the list asked for.
        place: in the list, from 1, or None.
        score, rank: what the model gives it, and its place among all ``items`` by that.
        items: how many items have a score.
        rank_left, items_left: the same among those that history and rules leave; None where it is not one of them.
        score_at_k: the score at place k among those, or of the last where there are fewer.
    """

    user: ask.Id
    item: ask.Id
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


def why_not(
    recommender: Recommender,
    user: ask.Id,
    item: ask.Id,
    rules: Rules | CompiledRules | None = None,
    k: int = 10,
    *,
    exclude_seen: bool = True,
    histories: ask.Histories | None = None,
) -> WhyNot:
    """Why an item is not among the k recommended to a user, or that it is.

    Args:
        recommender: whose ``recommend`` is asked.
        user: an id, known or not.
        item: an item id, or a title that belongs to exactly one item.
        rules, k, exclude_seen, histories: as for ``recommend``.

    Raises:
        DataError: the item is unknown; the message names what was perhaps meant.
        RuleError: the rules do not fit the catalog.
    """
    row = recommender.similar_items.row(item)
    bound = recommender.bind(Rules() if rules is None else rules)
    assert bound is not None
    unshaped = recommender.bind(replace(bound.rules, pins=(), caps={}, diversity=None))

    def ranked(k: int, exclude_seen: bool, rules: CompiledRules | None) -> _Ranked:
        frame = recommender.recommend(user, k, exclude_seen=exclude_seen, histories=histories, rules=rules)
        trace = frame["rule"] if rules is not None else pl.Series([""], dtype=pl.String)
        return _Ranked(recommender.items.rows(frame["item_id"]), frame["score"].to_numpy(), trace)

    everything = len(recommender.items)
    way = _Way(
        recommender=recommender,
        user=user,
        row=row,
        rules=bound,
        k=k,
        hides=bound.rules.exclude or ("seen" if exclude_seen else "none"),
        histories=histories,
        whole=ranked(everything, False, None),
        left=ranked(everything, exclude_seen, unshaped),
        listed=ranked(k, exclude_seen, bound),
    )
    stage, reason = way.end()
    return WhyNot(
        user=user,
        item=recommender.items.external([row])[0],
        title=None if recommender.titles is None else recommender.titles[row],
        stage=stage,
        reason=reason,
        k=k,
        place=way.listed.rank(row),
        score=way.whole.score(row),
        rank=way.whole.rank(row),
        items=len(way.whole.rows),
        rank_left=way.left.rank(row),
        items_left=len(way.left.rows),
        score_at_k=float(way.left.scores[:k][-1]) if len(way.left.rows) else None,
    )


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Item rows and scores (K,), best first, and what the rules did to each."""

    rows: NDArray[np.integer[Any]]
    scores: NDArray[np.floating[Any]]
    traces: pl.Series

    def rank(self, row: int) -> int | None:
        """Place from 1, or None."""
        found = np.flatnonzero(self.rows == row)
        return int(found[0]) + 1 if len(found) else None

    def score(self, row: int) -> float | None:
        rank = self.rank(row)
        return None if rank is None else float(self.scores[rank - 1])


@dataclass(frozen=True, eq=False)
class _Way:
    """The way of one item: ``whole``, all items by score; ``left``, those that history and rules leave; ``listed``."""

    recommender: Recommender
    user: ask.Id
    row: int
    rules: CompiledRules
    k: int
    hides: Exclude
    histories: ask.Histories | None
    whole: _Ranked
    left: _Ranked
    listed: _Ranked

    def end(self) -> tuple[Stage, str]:
        """The first stage that kept the item out, and how."""
        place = self.listed.rank(self.row)
        if place is not None:
            trace = self.listed.traces[place - 1]
            return "listed", f"it is in the list, at place {place}" + (f" ({trace})" if trace else "")
        had = self._had()
        blocks = [block.name + self._own(block.column) for block in self.rules.blocks if block.out_I[self.row]]
        if had:
            return "seen", "; ".join([had, *blocks])
        if blocks:
            return "rule", "; ".join(blocks)
        own = self.left.rank(self.row)
        if own is None:
            return "score", "the model gives it no score"
        if not self._retrieved():
            return "retrieval", "no retriever of the first stage has it among its candidates"
        stage, reason = self._overtaken(own) or ("score", self._score(own))
        return stage, reason + self._pin()

    def _had(self) -> str:
        """When the user had or bought the item, where that keeps it out."""
        history = self.rules.excluded(self._known[1])
        events = np.flatnonzero(history.items == self.row)
        if self.hides == "none" or not len(events):
            return ""
        last = events[-1]
        verb = "bought" if self.hides == "bought" else "had"
        often = "once" if len(events) == 1 else f"{len(events):,} times"
        when = "" if history.times is None else f", last on {datetime.fromtimestamp(history.times[last], UTC):%Y-%m-%d}"
        return f"{self.user} has {verb} it {often}{when} (weight {history.weights[last]:g})"

    def _own(self, column: str) -> str:
        """What the item has in a column that a rule looks at."""
        features = self.recommender.item_features
        if features is None or column not in features.columns:
            return ""
        value = features[column][self.row]
        shown = ", ".join(map(str, value)) if isinstance(value, pl.Series) else value
        return f" (it has {'nothing' if shown is None else shown})"

    def _retrieved(self) -> bool:
        """Whether the first stage of a two-stage model found the item; True where there is no such stage."""
        candidates = getattr(self.recommender.model, "candidates", None)
        if candidates is None:
            return True
        rows_B, history = self._known
        with torch.inference_mode():
            found_P = candidates(Query.of(rows_B, history).to(self.recommender.device))[0]
        return self.row in found_P.tolist() or not bool((found_P >= 0).any())

    def _overtaken(self, own: int) -> tuple[Stage, str] | None:
        """What put items of lower score before this one: a full cap, diversity or pins; None if the scores did it."""
        pinned = {row for _, row in self.rules.pins}
        lower = [row for row in self.listed.rows.tolist() if row not in pinned and (self.left.rank(row) or 0) > own]
        if own > self.k and not lower and len(self.listed.rows) == self.k:
            return None
        full = self.rules.full_caps(self.row, self.listed.rows)
        rank = f"rank {own:,} of {len(self.left.rows):,} left by score, but "
        if full:
            caps = "; ".join(f"{name}, at most {most}: {self._names(rows)}" for name, most, rows in full)
            return "cap", f"{rank}the cap is full ({caps})"
        if lower:
            return "diversity", f"{rank}diversity put before it what is less like the items above: {self._names(lower)}"
        pins = [row for row in self.listed.rows.tolist() if row in pinned]
        return "pins", f"{rank}pins take places before it: {self._names(pins)}"

    def _score(self, own: int) -> str:
        score, at_k = self.left.score(self.row), self.left.scores[: self.k][-1]
        return (
            f"rank {own:,} of {len(self.left.rows):,} left by score: {score:,.4f}, where place "
            f"{min(self.k, len(self.left.rows))} has {at_k:,.4f}"
        )

    def _pin(self) -> str:
        """That the item is pinned beyond the end of the list."""
        places = [place + 1 for place, row in self.rules.pins if row == self.row and place >= self.k]
        return f"; it is pinned at {places[0]}, beyond the list of {self.k}" if places else ""

    def _names(self, rows: Iterable[int]) -> str:
        """Titles, or else ids."""
        titles, ids = self.recommender.titles, self.recommender.items.ids
        return ", ".join(str(ids[row] if titles is None else titles[row] or ids[row]) for row in map(int, rows))

    @cached_property
    def _known(self) -> tuple[NDArray[np.int64], History]:
        return self.recommender.histories_of(ask.as_ids("user_id", self.user), self.histories, None)
