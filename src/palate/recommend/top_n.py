"""The one function that answers: rows and histories in, item rows, scores and sources out.

    scores (or a search of the index) -> excluded items removed -> pool of the best -> rules choose k -> lists

It works on integers and arrays: no external id, no dataframe of answers. ``Recommender``, batches, ``explain`` and
``why_not`` all call it, so they cannot disagree. Apart from the scores of the catalog, the work of a request does not
grow with the number of users or training events.

Shape legend: B users of a chunk, I items, N listed rows of all users, P places of a pool, K list length, H events.
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
from palate.recommend.cold_start import PLAIN, ColdStart
from palate.recommend.exploration import Explorable, Exploration, Explored
from palate.recommend.state import State
from palate.rules import Candidates, CompiledRules, Reranked, rerank
from palate.top_k import top_k

if TYPE_CHECKING:
    from palate.retrieval import Index

SOURCES = ("popular", "recent", "segment", "features", "fold-in", "model", "new-item", "explore")
POPULAR, RECENT, SEGMENT, FEATURES, FOLD_IN, MODEL, NEW_ITEM, EXPLORE = range(len(SOURCES))
# Memory of one chunk of users while it is scored: per cell a score, its copy, and the sort keys of top_k.
CHUNK_BYTES = 256 << 20
CELL_BYTES = 48
INDEXED_USERS = 1024  # users of a chunk at least where an index searches and the catalog is not scored


@dataclass(frozen=True, eq=False)
class RecommendOptions:
    """The options of a request, apart from its users.

    Args:
        k: list length.
        exclude_seen: leave out the items of each user's history.
        rules: compiled for the catalog, or None.
        at: time of the request in seconds since 1970, or None.
        cold: the policy for users without a personal answer.
        items: the items that may be listed, as rows or as a mask (I,) bool; None is the whole catalog.
        refold: fold in users with events of the request from all their events, training rows included, instead of
            by the vector learned in training.
    """

    k: int = 10
    exclude_seen: bool = True
    rules: CompiledRules | None = None
    at: float | None = None
    cold: ColdStart = PLAIN
    items: NDArray[Any] | None = None
    refold: bool = False

    def may_list(self, row: int) -> bool:
        """Whether ``items`` holds an item row."""
        if self.items is None:
            return True
        return bool(self.items[row]) if self.items.dtype == np.bool_ else row in self.items


class Answer(NamedTuple):
    """The lists of B users behind each other, best first.

    Args:
        offsets: (B + 1,) int64; user b has the places offsets[b] to offsets[b + 1] of the arrays below.
        items: (N,) int64 item rows.
        scores: (N,) float32.
        sources: (N,) int8, places in ``SOURCES``.
        personal: (B,) bool, whether the model itself answered.
        by_score: (N,) int64 rank of each row by score among the allowed items, 0 if unknown; None without rules.
        moved: (N,) uint8, why the rules moved the row (``palate.rules.rerank.traces``); None without rules.
        propensities: (N,) float64 probability of each row to be in the list, at any place; None where nothing is
            explored, or where rules reorder, since then it is not known.
        explored: (B,) float64 probability of a place to be explored; None likewise.
    """

    offsets: NDArray[np.int64]
    items: NDArray[np.int64]
    scores: NDArray[np.float32]
    sources: NDArray[np.int8]
    personal: NDArray[np.bool_]
    by_score: NDArray[np.int64] | None = None
    moved: NDArray[np.uint8] | None = None
    propensities: NDArray[np.float64] | None = None
    explored: NDArray[np.float64] | None = None

    @property
    def owners(self) -> NDArray[np.int64]:
        """(N,) place of each row's user among the B users."""
        return np.repeat(np.arange(len(self.personal)), self.offsets[1:] - self.offsets[:-1])

    @property
    def ranks(self) -> NDArray[np.int64]:
        """(N,) place of each row in its list, from 1."""
        return np.arange(1, len(self.items) + 1) - np.repeat(self.offsets[:-1], self.offsets[1:] - self.offsets[:-1])


class Asked(NamedTuple):
    """A chunk of users as the model is asked.

    Args:
        query: the query of the model.
        history: all events of each user.
        rows: (B,) rows of the users with training rows, -1 for new users.
        positive: (B,) positive events of new users; None where there are no new users.
    """

    query: Query
    history: History
    rows: NDArray[np.int64]
    positive: NDArray[np.int64] | None


class _Lists(NamedTuple):
    """values (B, K), -inf in empty places; items (B, K); how rules moved the rows, and what was explored, or None."""

    values: Tensor
    items: Tensor
    picked: Reranked | None
    explored: Explored | None


def recommend(
    state: State,
    users: NDArray[np.integer[Any]],
    options: RecommendOptions,
    *,
    given: History | None = None,
    features: pl.DataFrame | None = None,
    keys: NDArray[np.uint64] | None = None,
    hide: History | None = None,
) -> Answer:
    """The k best items of each user.

    Args:
        state: the model and everything around it.
        users: (B,) user rows; -1 is a user that the id map does not hold.
        options: see ``RecommendOptions``.
        given: one history per user with the events of the request, after those of training; times may be NaN.
        features: one row of user features per user. Default: those of the training data.
        keys: (B,) ``stable_hashes`` of the user ids, from which exploration draws; needed where the policy explores.
        hide: items that each user must not get, one history per user; they are no events and change no score.

    Raises:
        ModelError: the model is of another catalog, or its scores are not numbers.
        DataError: the cold-start policy does not fit the user features or the times of events.
    """
    rules, items = options.rules, len(state.items)
    if rules is not None and options.items is not None:
        rules = replace(rules, allowed_I=rules.allowed_I & _mask(options.items, items))
    # A pin beyond the end of the catalog moves up to the end of the list, so its place must exist.
    k = min(
        options.k, max(items, *(place + 1 for place, _ in rules.pins)) if rules is not None and rules.pins else items
    )
    if k != options.k or rules is not options.rules:
        options = replace(options, k=k, rules=rules)
    slices = chunks(len(users), state)
    if len(slices) == 1:  # one request of the server: no copies of its arrays
        return _answer(state, users, options, given, features, keys, hide)
    # The empty answer first: it gives the arrays their types where no user is asked for.
    parts = [_answer(state, users[:0], options, None, None, keys if keys is None else keys[:0], None)]
    for part in slices:
        some, out = (None if x is None else x.select(np.arange(part.start, part.stop)) for x in (given, hide))
        table, hashes = (None if x is None else x[part] for x in (features, keys))
        parts.append(_answer(state, users[part], options, some, table, hashes, out))  # type: ignore[arg-type]
    ends = np.concatenate([np.diff(part.offsets) for part in parts]).cumsum()
    columns = zip(*(part[1:] for part in parts), strict=True)
    arrays = [None if column[0] is None else np.concatenate(column) for column in columns]
    return Answer(np.concatenate([[0], ends]), *arrays)  # type: ignore[arg-type]


def chunks(users: int, state: State) -> list[slice]:
    """Slices of users whose scores fit into bounded memory."""
    step = max(1, CHUNK_BYTES // (CELL_BYTES * max(1, len(state.items))))
    if state.index is not None:
        step = max(step, INDEXED_USERS)
    return [slice(start, min(start + step, users)) for start in range(0, users, step)]


def ask(
    state: State,
    users: NDArray[np.integer[Any]],
    options: RecommendOptions,
    given: History | None = None,
    features: pl.DataFrame | None = None,
) -> Asked:
    """The query of some users, with all their events; arguments as for ``recommend``."""
    history = state.seen.select(users)
    # A user without training rows has no learned parameters, in the map or not: new to the model.
    # Nor has one whose rows are all seen but not positive.
    learned_B = (history if state.reads_ratings else history.positives()).counts > 0
    if options.refold and given is not None:
        learned_B &= given.counts == 0
    row_B = np.where(learned_B, users, -1).astype(np.int64)
    if given is not None:
        # Events that come without a time happened after the training rows.
        now = options.at if options.at is not None and state.latest is not None else state.latest
        history = _joined(history, given, now)
    at = None if options.at is None else torch.full((len(row_B),), options.at, dtype=torch.float64)
    query = Query.of(row_B, history, at, every_event=state.reads_ratings)
    has_new_users = bool((row_B < 0).any())
    if has_new_users or options.cold.segment is not None:
        if features is None and state.user_features is not None:
            features = rows_of(state.user_features, users)
        if features is not None:
            query = replace(query, features=features)
    if state.device.type != "cpu":
        query = query.to(state.device)
    positive_B = None
    if has_new_users:
        # Differences of a running sum at the offsets: a sum per history without a loop.
        before = np.concatenate([[0], np.cumsum(history.positive)])[history.offsets]
        positive_B = before[1:] - before[:-1]
    return Asked(query, history, row_B, positive_B)


def rows_of(table: pl.DataFrame, rows: NDArray[np.integer[Any]]) -> pl.DataFrame:
    """Rows of a table, nulls for -1."""
    index = pl.Series(rows).cast(pl.get_index_type(), strict=False)  # unsigned: -1 becomes null
    # Column by column: a gather inside ``select`` waits for polars' threads, which a forked process does not have.
    return pl.DataFrame([column[index] for column in table])


def _joined(first: History, second: History, now: float | None) -> History:
    """Per user, the events of ``first`` and behind them those of ``second``, at time ``now`` where it is NaN."""
    if not len(second.items):
        return first
    # Places are computed, not sorted: user u's new events stand behind all events of the users up to u.
    place_one = np.arange(len(first.items)) + np.repeat(second.offsets[:-1], first.counts)
    place_two = np.arange(len(second.items)) + np.repeat(first.offsets[1:], second.counts)

    def merged(one: NDArray[Any], two: NDArray[Any]) -> NDArray[Any]:
        both = np.empty(len(one) + len(two), one.dtype)
        both[place_one], both[place_two] = one, two
        return both

    times = None
    if first.times is not None and second.times is not None and now is not None:
        times = merged(first.times, np.where(np.isnan(second.times), now, second.times))
    items, weights = merged(first.items, second.items), merged(first.weights, second.weights)
    return History(first.offsets + second.offsets, items, weights, times, first.feedback)


def _mask(rows: NDArray[Any], items: int) -> Tensor:
    if rows.dtype == np.bool_:
        return torch.from_numpy(rows)
    mask = torch.zeros(items, dtype=torch.bool)
    mask[torch.from_numpy(rows.astype(np.int64))] = True
    return mask


def _answer(
    state: State,
    users: NDArray[np.integer[Any]],
    options: RecommendOptions,
    given: History | None,
    features: pl.DataFrame | None,
    keys: NDArray[np.uint64] | None,
    hide: History | None,
) -> Answer:
    """The answer to one chunk of users."""
    if not len(users):
        none = np.zeros(0, np.int64)
        answer = Answer(np.zeros(1, np.int64), none, none.astype(np.float32), none.astype(np.int8), none > 0)
        if options.cold.explore and not (options.rules is not None and options.rules.reorders):
            answer = answer._replace(propensities=none.astype(np.float64), explored=none.astype(np.float64))
        return answer if options.rules is None else answer._replace(by_score=none, moved=none.astype(np.uint8))
    asked = ask(state, users, options, given, features)
    query, history = asked.query, asked.history
    exclude = None if options.rules is None else options.rules.rules.exclude
    hidden: History | None = history
    if exclude == "none" or (exclude is None and not options.exclude_seen) or not len(history.items):
        hidden = None
    elif options.rules is not None:
        hidden = options.rules.excluded(history)
    if hide is not None and len(hide.items):
        hidden = hide if hidden is None else _joined(hidden, hide, None)
    allowed_I = None if options.rules is None else options.rules.allowed_I
    if allowed_I is None and options.items is not None:
        allowed_I = _mask(options.items, len(state.items))
    with torch.inference_mode():
        personal_B = state.model.can_personalize(query).numpy(force=True)
        if asked.positive is not None:
            # The policy keeps new users from the model for a short history, or for features alone.
            short_B = (asked.positive > 0) & (asked.positive < options.cold.min_history)
            if not options.cold.features:
                short_B |= asked.positive == 0
            personal_B = personal_B & ~(short_B & (asked.rows < 0))
        lists = _found(
            state, query, personal_B, hidden, allowed_I, options, _exploration(state, options, keys, allowed_I)
        )
    # ``numpy`` of each array once: every call of torch costs as much as all arithmetic on a list of ten.
    value_BK, item_BK = lists.values.numpy(force=True), lists.items.numpy(force=True)
    kept_BK = value_BK > -np.inf  # empty places are at the end of a list
    count_B = kept_BK.sum(1)
    item = item_BK[kept_BK]
    source = np.repeat(_sources(state, asked, personal_B, options.cold), count_B)
    if state.new_items is not None:
        source = np.where((source >= FEATURES) & state.new_items[item], NEW_ITEM, source)
    explored = lists.explored
    if explored is not None:
        source = np.where(explored.has(item_BK)[kept_BK], EXPLORE, source)
    offsets = np.zeros(len(users) + 1, np.int64)
    count_B.cumsum(out=offsets[1:])
    answer = Answer(offsets, item, value_BK[kept_BK], source.astype(np.int8), personal_B)
    if explored is not None and not (options.rules is not None and options.rules.reorders):
        chance_N = explored.propensities(item_BK)[kept_BK]
        answer = answer._replace(propensities=chance_N, explored=explored.explored_B)
    if lists.picked is None:
        return answer
    by_score, moved = (x.cpu().numpy()[kept_BK] for x in (lists.picked.rank_BK, lists.picked.moved_BK))
    return answer._replace(by_score=by_score, moved=moved)


def _exploration(
    state: State, options: RecommendOptions, keys: NDArray[np.uint64] | None, allowed_I: Tensor | None
) -> Exploration | None:
    """What is drawn from; None where the policy does not explore."""
    cold, items = options.cold, len(state.items)
    if not cold.explore:
        return None
    assert keys is not None, "exploration draws from the hashes of user ids"
    allowed = np.ones(items, bool) if allowed_I is None else allowed_I.numpy()
    some = state.less_known if cold.explore_among == "less-known" else Explorable.all(items)
    return Exploration(cold, some, keys, min(options.k, items), allowed)


def _falls_back(state: State, cold: ColdStart) -> bool:
    """Whether the policy scores users without a personal answer; a model that knows no user is asked itself."""
    return state.is_personal or not cold.is_plain


def _scores(state: State, query: Query, personal_B: NDArray[np.bool_], cold: ColdStart) -> Tensor:
    """Scores (B, I) that the caller may write to; those of the policy for users without a personal answer."""
    falls_back = _falls_back(state, cold)
    if falls_back and not personal_B.any():
        fallback_BI = state.fallback(cold).scores(len(query), query.features)
        return torch.from_numpy(fallback_BI).to(state.device)
    # The copy: a model may answer with a view of its own table, or one row expanded over all users.
    score_BI = state.model.score(query).to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if score_BI.shape != (len(query), len(state.items)):
        raise ModelError(
            f"the model scored {score_BI.shape[1]:,} items but the catalog has {len(state.items):,}: "
            "use the data set it was trained on"
        )
    if falls_back and not personal_B.all():
        other = np.flatnonzero(~personal_B)
        features = None if query.features is None else query.features[other]
        fallback_RI = state.fallback(cold).scores(len(other), features)
        score_BI[torch.from_numpy(other)] = torch.from_numpy(fallback_RI).to(score_BI.device)
    return score_BI


def _sources(state: State, asked: Asked, personal_B: NDArray[np.bool_], cold: ColdStart) -> NDArray[np.int64]:
    """The source of each user's list, (B,), as a place in ``SOURCES``."""
    source_B = np.where(personal_B, MODEL, POPULAR)
    if asked.positive is not None:
        new_B = personal_B & (asked.rows < 0)
        source_B[new_B] = np.where(asked.positive > 0, FOLD_IN, FEATURES)[new_B]
    if personal_B.all() or not _falls_back(state, cold):
        return source_B
    fallback = state.fallback(cold)
    overall = RECENT if fallback.source == "recent" else POPULAR
    segment_B = fallback.places(len(personal_B), asked.query.features)
    source_B[~personal_B] = np.where(segment_B >= 0, SEGMENT, overall)[~personal_B]
    return source_B


def _found(
    state: State,
    query: Query,
    personal_B: NDArray[np.bool_],
    hidden: History | None,
    allowed_I: Tensor | None,
    options: RecommendOptions,
    exploration: Exploration | None,
) -> _Lists:
    """The lists of a chunk: searched in the index where the model answers, out of scores for all others."""
    index, model = state.index, state.model
    if index is None or not isinstance(model, Vectors) or not personal_B.any():
        return _scored(state, query, personal_B, hidden, allowed_I, options, exploration)
    vector_BD = model.query_vectors(query).to(torch.float32)
    parts = []
    for indexed_B in (personal_B, ~personal_B):
        row = np.flatnonzero(indexed_B)
        hide = None if hidden is None else hidden.select(row)
        some = None if exploration is None else exploration.take(row)
        if indexed_B is personal_B:
            search = _searching(index, vector_BD[torch.from_numpy(row)], hide, allowed_I)
            parts.append((row, _picked(search, len(row), hide, options, None, some)))
        elif len(row):
            features = None if query.features is None else query.features[row]
            new_users = Query(query.user[torch.from_numpy(row)], features=features)
            parts.append((row, _scored(state, new_users, personal_B[row], hide, allowed_I, options, some)))
    if len(parts) == 1:
        return parts[0][1]
    # The parts behind each other are out of order: sorting their row numbers gives the way back.
    place = np.concatenate([row for row, _ in parts]).argsort()
    order = torch.from_numpy(place)
    one, two = (lists for _, lists in parts)
    values, items = (torch.cat(pair)[order] for pair in zip(one[:2], two[:2], strict=True))
    picked = None
    if one.picked is not None and two.picked is not None:
        tables = (torch.cat(pair)[order] for pair in zip(one.picked, two.picked, strict=True))
        picked = type(one.picked)(*tables)
    drawn = None
    if one.explored is not None and two.explored is not None:
        drawn = one.explored.joined(two.explored, place)
    return _Lists(values, items, picked, drawn)


def _searching(index: Index, vector_BD: Tensor, hidden: History | None, allowed_I: Tensor | None) -> Candidates:
    def best(row: NDArray[np.int64], size: int) -> tuple[Tensor, Tensor]:
        hide = None if hidden is None else hidden.select(row)
        found = index.search(vector_BD[torch.from_numpy(row)], size, exclude=hide, allowed_I=allowed_I)
        return found.values, found.items

    return best


def _scored(
    state: State,
    query: Query,
    personal_B: NDArray[np.bool_],
    hidden: History | None,
    allowed_I: Tensor | None,
    options: RecommendOptions,
    exploration: Exploration | None,
) -> _Lists:
    """The lists of users with scores of the whole catalog."""
    score_BI = _scores(state, query, personal_B, options.cold)
    pin_values_BN = None if options.rules is None else score_BI[:, options.rules.pin_items]
    if hidden is not None:
        # One user owns all events: a scalar row is broadcast, where many rows need an owner for each event.
        owner_H = np.repeat(np.arange(len(hidden)), hidden.counts) if len(hidden) > 1 else np.zeros(1, np.int64)
        if score_BI.device.type == "cpu":
            score_BI.numpy()[owner_H, hidden.items] = -np.inf  # a fifth of the time of torch for a few cells
        else:
            score_BI[torch.from_numpy(owner_H), torch.from_numpy(hidden.items.astype(np.int64))] = -torch.inf
    if allowed_I is not None:
        score_BI.masked_fill_(~allowed_I.to(score_BI.device), -torch.inf)

    def best(row: NDArray[np.int64], size: int) -> tuple[Tensor, Tensor]:
        values, items = top_k(score_BI if len(row) == len(score_BI) else score_BI[torch.from_numpy(row)], size)
        # top_k puts NaN first, so looking at the list is enough: the catalog need not be read once more.
        if np.isnan(values.numpy(force=True)).any():
            raise ModelError("the model's scores are not numbers (NaN): train it again with a lower learning rate")
        return values, items

    return _picked(best, len(query), hidden, options, pin_values_BN, exploration)


def _picked(
    best: Candidates,
    users: int,
    hidden: History | None,
    options: RecommendOptions,
    pin_values_BN: Tensor | None,
    exploration: Exploration | None,
) -> _Lists:
    """The best k, with explored items among them if asked for, or the choice of the rules."""
    explored = None if exploration is None else exploration.draw(best, hidden)
    best = best if explored is None else explored.into(best)
    if options.rules is None:
        return _Lists(*best(np.arange(users), options.k), None, explored)
    picked = rerank(options.rules, best, users, options.k, excluded=hidden, pin_values_BN=pin_values_BN)
    # A pin whose score is unknown keeps its place.
    values_BK = picked.values_BK.where(picked.items_BK >= 0, -torch.inf).nan_to_num(nan=0.0, neginf=-torch.inf)
    return _Lists(values_BK, picked.items_BK, picked, explored)
