"""Why one item is listed for one user, or would be: the whole of what `recommend(reasons=...)` puts in a few words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

from palate.base import Query
from palate.recommend import request as ask
from palate.recommend.attribution import Explanation

if TYPE_CHECKING:
    from palate.recommend.recommender import Recommender

__all__ = ["Why", "explain"]


@dataclass(frozen=True, eq=False)
class Why:
    """What a user's history does for an item.

    Args:
        user: as asked.
        item: its id.
        title: its title, or None.
        source: "model", "fold-in" or "popular", as in a list of recommendations.
        score: what the model gives the item in such a list.
        text: the main reasons in words.
        explanation: all that supports the item and all that speaks against it; None where nothing personal is known.
    """

    user: ask.Id
    item: ask.Id
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
        told = self.explanation
        return {
            "user_id": self.user,
            "item_id": self.item,
            "title": self.title,
            "source": self.source,
            "score": self.score,
            "why": self.text,
            "method": None if told is None else told.method,
            "explained_score": None if told is None else told.score,
            "rest": None if told is None else told.rest,
            "untested": 0 if told is None else told.untested,
            "support": self.side(True, top).to_dicts(),
            "against": self.side(False, top).drop("share", strict=False).to_dicts(),
        }


def explain(
    recommender: Recommender,
    user: ask.Id,
    item: ask.Id,
    *,
    histories: ask.Histories | None = None,
    at: float | datetime | None = None,
) -> Why:
    """Why an item is, or is not, recommended to a user, seen or not.

    Args:
        recommender: the model with ids, histories and titles.
        user: an id, known or not.
        item: an item id, or a title that belongs to exactly one item.
        histories: as for ``recommend``.
        at: as for ``recommend``.

    Raises:
        DataError: the item is unknown, or ``histories`` names somebody else.
    """
    row = recommender.similar_items.row(item)
    rows_B, history = recommender.histories_of(ask.as_ids("user_id", user), histories, ask.as_seconds(at))
    when = None if at is None else torch.tensor([ask.as_seconds(at)], dtype=torch.float64)
    query = Query.of(rows_B, history, when).to(recommender.device)
    listed = torch.tensor([[row]], device=recommender.device)
    with torch.inference_mode():
        personal = bool(recommender.model.can_personalize(query).item())
        score = float(recommender.model.score(query, listed))
    if not personal and recommender.is_personal:
        score = float(recommender.popularity[row])
    explainer = recommender.explainer
    reasons = explainer.because(query, np.zeros(1, np.int64), np.array([row]), np.array([personal]))
    return Why(
        user=user,
        item=recommender.items.external(np.array([row]))[0],
        title=None if recommender.titles is None else recommender.titles[row],
        source=("model" if rows_B[0] >= 0 else "fold-in") if personal else "popular",
        score=score,
        text=reasons["why"][0],
        explanation=explainer.explain(query, row) if personal else None,
    )
