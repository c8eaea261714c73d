"""The answer to one chunk of users: scores, what must not be listed, the list under the rules, external ids.

    scores (or an index over item vectors) -> hidden items out -> pool of the best -> rules pick k -> rows

Shape legend: B users of a chunk, I items, P places of a pool, K list length, H history events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.base import Query, Vectors
from palate.data.dataset import History
from palate.errors import ModelError
from palate.models.dot_product import positive_events
from palate.recommend.cold_start import PLAIN, ColdStart
from palate.recommend.exploration import Best, Explored
from palate.rules import CompiledRules, Reranked, rerank
from palate.top_k import top_k

if TYPE_CHECKING:
    from palate.recommend.recommender import Recommender
    from palate.retrieval import Index

__all__ = ["RecommendOptions", "answer", "chunks", "empty"]

SOURCES = pl.Series(["popular", "recent", "segment", "features", "fold-in", "model", "new-item", "explore"])
POPULAR, RECENT, SEGMENT, FEATURES, FOLD_IN, MODEL, NEW_ITEM, EXPLORE = range(8)
# What one chunk of users may take while it is scored: a score, its copy, and the sort keys of top_k per cell.
CHUNK_BYTES = 256 << 20
CELL_BYTES = 48
INDEXED_USERS = 1024  # users of a chunk where an index searches and nobody scores the catalog


@dataclass(frozen=True, eq=False)
class RecommendOptions:
    """What a request wants, apart from who asks.

    Args:
        k: list length.
        exclude_seen: leave out what the user has had.
        rules: compiled for the catalog, or None.
        at: time of the request in seconds since 1970, or None.
        cold: what answers where the model knows nothing.
        reasons: supporting items of the history named with each row; 0 for none.
    """

    k: int
    exclude_seen: bool = True
    rules: CompiledRules | None = None
    at: float | None = None
    cold: ColdStart = PLAIN
    reasons: int = 0


class Lists(NamedTuple):
    """values (B, K), -inf in empty places; items (B, K); what the rules did, or None without rules."""

    values: Tensor
    items: Tensor
    picked: Reranked | None


def chunks(users: int, recommender: Recommender) -> list[slice]:
    """Slices of users whose scores fit into bounded memory."""
    step = max(1, CHUNK_BYTES // (CELL_BYTES * max(1, len(recommender.items))))
    if recommender.index is not None:
        step = max(step, INDEXED_USERS)
    return [slice(start, min(start + step, users)) for start in range(0, users, step)]


def answer(
    recommender: Recommender,
    asked: pl.Series,
    rows: NDArray[np.integer[Any]],
    history: History,
    wish: RecommendOptions,
    features: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The rows of a chunk of users: row numbers (B,), -1 for strangers, all their events and, if any, features."""
    at = None if wish.at is None else torch.full((len(rows),), wish.at, dtype=torch.float64)
    query = replace(Query.of(rows, history, at), features=None if (rows >= 0).all() else features)
    query = query.to(recommender.device)
    hidden = _hidden(history, wish)
    explored = _explored(recommender, asked, hidden, wish)
    with torch.inference_mode():
        personal_B = recommender.model.can_personalize(query) & ~_withheld(query, wish.cold)
        found = _found(recommender, query, personal_B, hidden, wish, explored)
    who, place = (found.values > -torch.inf).nonzero(as_tuple=True)
    item, score, who_n, place_n = (
        t.cpu().numpy() for t in (found.items[who, place], found.values[who, place], who, place)
    )
    source = _sources(recommender, query, personal_B.cpu().numpy(), wish)[who_n]
    if hasattr(recommender.model, "with_items"):
        source = np.where((source >= FEATURES) & (recommender.popularity[item] == 0), NEW_ITEM, source)
    if explored is not None:
        source = np.where(explored.has(found.items.cpu().numpy())[who_n, place_n], EXPLORE, source)
    columns = {
        "user_id": asked.gather(who_n),
        "item_id": recommender.items.external(item),
        "rank": pl.Series(place_n + 1, dtype=pl.Int32),
        "score": pl.Series(score, dtype=pl.Float32),
        "source": SOURCES.gather(source),
    }
    if recommender.titles is not None:
        columns["title"] = recommender.titles.gather(item)
    if found.picked is not None:
        columns["rule"] = found.picked.trace(who_n, place_n)
    frame = pl.DataFrame(columns)
    if wish.reasons:
        personal = personal_B.cpu().numpy()
        frame = frame.hstack(recommender.explainer.because(query, who_n, item, personal, wish.reasons))
    return frame


def empty(recommender: Recommender, user_type: pl.DataType, wish: RecommendOptions) -> pl.DataFrame:
    """The columns of an answer without a row."""
    item_type = recommender.items.ids.dtype
    named = {"item_id": item_type, "title": pl.String(), "weight": pl.Float32(), "share": pl.Float64()}
    return pl.DataFrame(
        schema={
            "user_id": user_type,
            "item_id": item_type,
            "rank": pl.Int32(),
            "score": pl.Float32(),
            "source": pl.String(),
            **({} if recommender.titles is None else {"title": pl.String()}),
            **({} if wish.rules is None else {"rule": pl.String()}),
            **({} if not wish.reasons else {"because": pl.List(pl.Struct(named)), "why": pl.String()}),
        }
    )


def scores(recommender: Recommender, query: Query, personal_B: Tensor, cold: ColdStart = PLAIN) -> Tensor:
    """Scores (B, I) that the caller may write to; the fallback's for those about whom nothing personal can be said.

    Raises:
        ModelError: the model is of another catalog, or its scores are not numbers.
        DataError: the policy does not fit what is known about users.
    """
    falls_back = _falls_back(recommender, cold)
    if falls_back and not personal_B.any():
        return _fallback(recommender, query, cold)
    # The copy: a model may answer with a view of its own table, or one row expanded over all users.
    score_BI = recommender.model.score(query).to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if score_BI.shape != (len(query), len(recommender.items)):
        raise ModelError(
            f"the model scored {score_BI.shape[1]:,} items but the catalog has {len(recommender.items):,}: "
            "use the data set it was trained on"
        )
    if score_BI.isnan().any():
        raise ModelError("the model's scores are not numbers (NaN): train it again with a lower learning rate")
    if falls_back and not personal_B.all():
        score_BI[~personal_B] = _fallback(recommender, _strangers(query, ~personal_B), cold)
    return score_BI


def _withheld(query: Query, cold: ColdStart) -> Tensor:
    """(B,) bool: strangers whom the policy keeps from the model, for a short history or for features alone."""
    likes_B = positive_events(query)
    short_B = (likes_B > 0) & (likes_B < cold.min_history)
    return (query.user < 0) & (short_B if cold.features else short_B | (likes_B == 0))


def _falls_back(recommender: Recommender, cold: ColdStart) -> bool:
    """Whether the policy answers those whom the model does not know; a model that knows nobody is asked itself."""
    return recommender.is_personal or not cold.is_plain


def _fallback(recommender: Recommender, query: Query, cold: ColdStart) -> Tensor:
    score_BI = recommender.fallback(cold).scores(len(query), query.features)
    return torch.from_numpy(score_BI).to(recommender.device)


def _strangers(query: Query, chosen_B: Tensor) -> Query:
    """Some rows of a query, without history."""
    row = chosen_B.nonzero().squeeze(1)
    features = None if query.features is None else query.features[row.cpu().numpy()]
    return Query(query.user[row], features=features)


def _sources(
    recommender: Recommender, query: Query, personal_B: NDArray[np.bool_], wish: RecommendOptions
) -> NDArray[np.int64]:
    """Who answers each user, (B,), as a place in ``SOURCES``."""
    row_B, likes_B = query.user.cpu().numpy(), positive_events(query).cpu().numpy()
    stranger_B = np.where(likes_B > 0, FOLD_IN, FEATURES)
    source_B = np.where(personal_B, np.where(row_B >= 0, MODEL, stranger_B), POPULAR)
    if personal_B.all() or not _falls_back(recommender, wish.cold):
        return source_B
    fallback = recommender.fallback(wish.cold)
    overall = RECENT if fallback.source == "recent" else POPULAR
    source_B[~personal_B] = np.where(fallback.places(len(query), query.features) >= 0, SEGMENT, overall)[~personal_B]
    return source_B


def _explored(
    recommender: Recommender, asked: pl.Series, hidden: History | None, wish: RecommendOptions
) -> Explored | None:
    """The explored items of a chunk, or None where nobody asked for exploration."""
    if not wish.cold.explore:
        return None
    items = len(recommender.items)
    allowed_I = np.ones(items, dtype=bool) if wish.rules is None else wish.rules.allowed_I.cpu().numpy()
    return Explored.of(wish.cold, recommender.less_known, asked, min(wish.k, items), hidden, allowed_I)


def _found(
    recommender: Recommender,
    query: Query,
    personal_B: Tensor,
    hidden: History | None,
    wish: RecommendOptions,
    explored: Explored | None,
) -> Lists:
    """The lists of all users of a chunk; an index answers for those whom the model knows."""
    index, model = recommender.index, recommender.model
    if index is None or not isinstance(model, Vectors) or not bool(personal_B.any()):
        return _lists(recommender, query, personal_B, hidden, wish, explored)
    vector_BD = model.query_vectors(query).to(torch.float32)
    allowed_I = None if wish.rules is None else wish.rules.allowed_I
    parts = []
    for indexed_B in (personal_B, ~personal_B):
        row = indexed_B.nonzero().squeeze(1)
        row_n = row.cpu().numpy()
        hide = None if hidden is None else hidden.select(row_n)
        some = None if explored is None else explored.take(row_n)
        if indexed_B is personal_B:
            search = _searching(index, vector_BD[row], hide, allowed_I)
            parts.append((row, _picked(search, len(row), hide, wish, None, some)))
        elif len(row):
            asked = _strangers(query, indexed_B)
            parts.append((row, _lists(recommender, asked, personal_B[row], hide, wish, some)))
    return parts[0][1] if len(parts) == 1 else _interleaved(*parts)


def _searching(index: Index, vector_BD: Tensor, hidden: History | None, allowed_I: Tensor | None) -> Best:
    def best(row: NDArray[np.int64], size: int) -> tuple[Tensor, Tensor]:
        hide = None if hidden is None else hidden.select(row)
        found = index.search(vector_BD[torch.from_numpy(row)], size, exclude=hide, allowed_I=allowed_I)
        return found.values, found.items

    return best


def _lists(
    recommender: Recommender,
    query: Query,
    personal_B: Tensor,
    hidden: History | None,
    wish: RecommendOptions,
    explored: Explored | None,
) -> Lists:
    """The lists of users for whom the whole catalog is scored."""
    score_BI = scores(recommender, query, personal_B, wish.cold)
    pin_values_BN = None if wish.rules is None else score_BI[:, wish.rules.pin_items]
    if hidden is not None:
        owner_H = np.repeat(np.arange(len(hidden)), hidden.counts)
        score_BI[torch.from_numpy(owner_H), torch.from_numpy(hidden.items.astype(np.int64))] = -torch.inf
    if wish.rules is not None:
        score_BI[:, ~wish.rules.allowed_I] = -torch.inf

    def best(row: NDArray[np.int64], size: int) -> tuple[Tensor, Tensor]:
        return top_k(score_BI if len(row) == len(score_BI) else score_BI[torch.from_numpy(row)], size)

    return _picked(best, len(query), hidden, wish, pin_values_BN, explored)


def _picked(
    best: Best,
    users: int,
    hidden: History | None,
    wish: RecommendOptions,
    pin_values_BN: Tensor | None,
    explored: Explored | None,
) -> Lists:
    """The best k, with explored items among them if asked for, or what the rules pick."""
    best = best if explored is None else explored.into(best)
    if wish.rules is None:
        return Lists(*best(np.arange(users), wish.k), None)
    picked = rerank(wish.rules, best, users, wish.k, excluded=hidden, pin_values_BN=pin_values_BN)
    # A pin whose score is not known stands in its place all the same.
    values_BK = picked.values_BK.where(picked.items_BK >= 0, -torch.inf).nan_to_num(nan=0.0, neginf=-torch.inf)
    return Lists(values_BK, picked.items_BK, picked)


def _hidden(history: History, wish: RecommendOptions) -> History | None:
    """The events whose items must not come back, or None."""
    exclude = None if wish.rules is None else wish.rules.rules.exclude
    if exclude == "none" or (exclude is None and not wish.exclude_seen) or not len(history.items):
        return None
    return history if wish.rules is None else wish.rules.excluded(history)


def _interleaved(one: tuple[Tensor, Lists], two: tuple[Tensor, Lists]) -> Lists:
    """Two parts of a chunk as one."""
    order = torch.cat([one[0], two[0]]).argsort()
    values, items = (torch.cat(pair)[order] for pair in zip(one[1][:2], two[1][:2], strict=True))
    picked = None
    if one[1].picked is not None and two[1].picked is not None:
        tables = (torch.cat(pair)[order] for pair in zip(one[1].picked, two[1].picked, strict=True))
        picked = type(one[1].picked)(*tables)
    return Lists(values, items, picked)
