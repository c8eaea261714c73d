"""Recommender: from a fitted model to lists of external ids, for known users, new users and new items.

    recommender = Recommender.of(model, train)
    recommender.recommend([196, 22], k=10)      # user_id, item_id, rank, score, source, title

Every row names its source: "model" (a user of the training data), "fold-in" (another user, known by a history of the
request), "features" (known by features alone) or "popular" (nothing personal is known, so the most popular items
answer). ``palate.recommend.cold_start`` describes the others and their order.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.columns import listed
from palate.data.dataset import Dataset, Interactions, Note
from palate.data.ids import stable_hashes
from palate.data.splits.split import Split
from palate.errors import DataError
from palate.progress import Progress, silent
from palate.recommend import request, top_n
from palate.recommend.attribution import Explainer
from palate.recommend.batch import write_all
from palate.recommend.cold_start import ColdStart
from palate.recommend.explain import Why, WhyNot, explain, why_not
from palate.recommend.new_items import with_items
from palate.recommend.request import Histories, Id, Ids, UserFeatures
from palate.recommend.state import State
from palate.recommend.top_n import SOURCES, RecommendOptions
from palate.rules import CompiledRules, Rules
from palate.rules.rerank import traces

if TYPE_CHECKING:
    from palate.retrieval import Kind

SOURCE_NAMES = pl.Series("source", SOURCES)
logger = logging.getLogger(__name__)


class Recommender(State):
    """A fitted model behind external ids and dataframes; the fields are those of ``State``.

    It needs no training data, and answering changes nothing in it, so threads may share one.
    """

    def recommend(
        self,
        users: Ids,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        items: Ids | None = None,
        exclude: Ids | None = None,
        histories: Histories | None = None,
        features: UserFeatures | None = None,
        rules: Rules | CompiledRules | None = None,
        at: float | datetime | None = None,
        cold: ColdStart | None = None,
        refold: bool = False,
        reasons: int = 0,
    ) -> pl.DataFrame:
        """The k best items of each user, best first: user_id (as given), item_id, rank, score, source, title.

        Args:
            users: one id or many; an id given twice is answered once. Unknown ids are answered too.
            k: list length. Lists are shorter where fewer items are left by ``exclude_seen``, ``items`` and ``rules``.
            exclude_seen: leave out the items of the training rows of a user and of ``histories``. Default: True.
            items: ids of the items to rank. Default: the whole catalog. Unknown ids are left out and logged.
            exclude: ids of items that must not be listed. Unknown ids have no effect.
            histories: events per user of the request, oldest first: item ids, pairs (id, weight), where a weight below
                0 is a dislike, or triples (id, weight, seconds since 1970). They introduce an unknown user; those of a
                known user follow the training history. Items that the catalog lacks are left out: see
                ``unknown_items``.
            features: values by name of user feature, per user of the request, for new users; see ``cold_start``.
            rules: what must and must not be listed; a column ``rule`` then holds their effect on each row.
            at: time of the request, and of events in ``histories`` without one. Default: the latest training row.
            cold: the policy for users without a personal answer. Default: that of the recommender.
            refold: fold in known users with events in ``histories`` from their training rows and these events. Default:
                False, a model with a learned vector per user answers by that vector, and the events only count as
                seen. Sequence and item-based models read all events either way.
            reasons: number of items of the history named in support of each row: a column ``because`` holds them with
                their shares, ``why`` says it in words. See ``attribution``; slow for models with a gradient fold-in.

        Returns:
            A polars DataFrame, or a pandas one where ``users`` is a pandas Series. Scores compare within one list
            only; those of "popular" are the model's own if it is not personal at all, and interaction counts
            otherwise. ``title`` is there if titles are known.

        Raises:
            DataError: k is below 1, an id is neither integer nor string, ``histories`` or ``features`` name a user
                that was not asked for, or features or policy do not fit the data.
            RuleError: the rules do not fit the catalog.
        """
        options = self._options(k, exclude_seen, rules, at, cold, items, exclude, refold)
        asked, reasons = request.as_users(users), request.as_reasons(reasons)
        rows = self.users.rows(asked)
        given = None if histories is None else request.given_events(asked, histories, self.items, self.default_weight)
        table = request.features_of(self.user_features, asked, rows, features) if features else None
        keys = stable_hashes(asked) if options.cold.explore else None
        answer = top_n.recommend(self, rows, options, given=given, features=table, keys=keys)
        owner = answer.owners
        columns = [
            _taken(asked, owner),
            _taken(self.items.ids, answer.items).alias("item_id"),
            pl.Series("rank", answer.ranks.astype(np.int32)),
            pl.Series("score", answer.scores),
            _taken(SOURCE_NAMES, answer.sources),
        ]
        if self.titles is not None:
            columns.append(_taken(self.titles, answer.items).alias("title"))
        if answer.moved is not None and answer.by_score is not None:
            columns.append(traces(answer.by_score, answer.moved, answer.ranks).alias("rule"))
        frame = columns[0].to_frame().hstack(columns[1:])  # the checks of pl.DataFrame take three times as long
        if reasons:
            query = top_n.ask(self, rows, options, given, table).query
            frame = frame.hstack(self.explainer.because(query, owner, answer.items, answer.personal, reasons))
        return frame.to_pandas() if _is_pandas(users) else frame

    def recommend_all(
        self,
        path: str | Path,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        rules: Rules | CompiledRules | None = None,
        at: float | datetime | None = None,
        cold: ColdStart | None = None,
        progress: Progress = silent,
    ) -> int:
        """Write the lists of all known users to one Parquet file in bounded memory; the number of rows written.

        The file appears under its name only when it is complete; a file of that name is replaced. A call that was
        killed is resumed (see ``palate.recommend.batch``).

        Raises:
            DataError: k is below 1, or ``path`` cannot be written.
            RuleError: the rules do not fit the catalog.
        """
        return write_all(self, Path(path), self._options(k, exclude_seen, rules, at, cold), progress=progress)

    def similar(self, item: Id, k: int = 10) -> pl.DataFrame:
        """The k items most similar to one item, by cosine: item_id, rank, score, source, title.

        Source "model": cosine of the model's item vectors. Source "co-occurrence", for models without item vectors:
        the share of users two items have in common, n_ij / sqrt(n_i n_j), where only items with n_ij > 0 are listed.

        Args:
            item: an item id, or a title (in any case) that belongs to exactly one item.
            k: list length.

        Raises:
            DataError: k is below 1, or the item is unknown; the message names near matches.
        """
        return self.similar_items.to(item, request.as_k(k))

    def explain(
        self,
        user: Id,
        item: Id,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        items: Ids | None = None,
        exclude: Ids | None = None,
        histories: Histories | None = None,
        features: UserFeatures | None = None,
        rules: Rules | CompiledRules | None = None,
        at: float | datetime | None = None,
        cold: ColdStart | None = None,
        refold: bool = False,
    ) -> Why:
        """Why an item is listed for a user, or would be, seen or not; arguments as for ``recommend``.

        Raises:
            DataError: the item is unknown; the message names near matches. Or as ``recommend``.
            RuleError: the rules do not fit the catalog.
        """
        options = self._options(k, exclude_seen, rules, at, cold, items, exclude, refold)
        return explain(self, self.explainer, user, item, options, histories, features)

    def why_not(
        self,
        user: Id,
        item: Id,
        rules: Rules | CompiledRules | None = None,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        items: Ids | None = None,
        exclude: Ids | None = None,
        histories: Histories | None = None,
        features: UserFeatures | None = None,
        at: float | datetime | None = None,
        cold: ColdStart | None = None,
        refold: bool = False,
    ) -> WhyNot:
        """Why an item is not among the k recommended to a user, or its place there; arguments as for ``recommend``.

        Raises:
            DataError: the item is unknown; the message names near matches. Or as ``recommend``.
            RuleError: the rules do not fit the catalog.
        """
        options = self._options(k, exclude_seen, rules, at, cold, items, exclude, refold)
        return why_not(self, user, item, options, histories, features)

    def against(self, test: Dataset) -> Split:
        """A split with this recommender's history as its training side and ``test``, in its row numbers, as the other.

        Rows of users or items that it does not know are dropped and counted.

        Raises:
            DataError: no row is left.
        """
        rows = test.interactions
        user, item = self.users.rows(test.users.ids)[rows.user], self.items.rows(test.items.ids)[rows.item]
        known = (user >= 0) & (item >= 0)
        if not known.any():
            raise DataError(
                f"none of the {len(rows):,} rows of {test.name} has a user and an item known to {self.name}: "
                "use rows of the same source"
            )
        owner = np.repeat(np.arange(len(self.seen), dtype=np.int64), self.seen.counts)
        seen = Interactions(owner.astype(np.int32), self.seen.items, self.seen.weights, self.seen.times)
        # The rule of the training data, whose scale was found from more rows than those of the test.
        about = self.seen.feedback if self.seen.feedback.kind == test.feedback.kind else test.feedback
        train = Dataset(self.name, self.users, self.items, seen, about, titles=self.titles)
        held = replace(rows, user=user, item=item).take(known)
        again = np.isin(held.user.astype(np.int64) * len(self.items) + held.item, owner * len(self.items) + seen.item)
        later = np.zeros(len(held), np.bool_)
        if held.time is not None and seen.time is not None:
            # A user may come back to an item; the trained row itself with its time cut off is not later.
            last = np.full(len(self.users), -np.inf)
            np.maximum.at(last, seen.user, seen.time)
            later = held.time >= last[held.user]
        notes = (
            Note("test rows of unknown users dropped", int((user < 0).sum())),
            Note("test rows of unknown items dropped", int(((item < 0) & (user >= 0)).sum())),
            Note("test rows that repeat a trained pair of user and item later on", int((again & later).sum())),
            Note(
                "test rows whose pair of user and item was trained, not later",
                int((again & ~later).sum()),
                "trained-pairs",
            ),
        )
        how = f"all {len(held):,} rows of {test.name} with known users and items"
        shown = tuple(note for note in notes if note.rows)
        return Split(train, replace(train.with_rows(held), name=test.name), how, shown)

    def with_items(self, table: pl.DataFrame) -> Recommender:
        """A recommender whose catalog also holds the items of a feature table; this one is unchanged.

        Args:
            table: one row per new item: a column item_id, or else the first, the features that the model reads, and
                perhaps a title. Lists may be written as text with | between the values.

        Raises:
            DataError: an id is null, duplicated or in the catalog already, or a feature is missing or does not fit.
            ModelError: the model cannot rank an item by its features.
        """
        return with_items(self, table)

    def indexed(self, kind: Kind = "auto", *, recall: float = 0.98, seed: int = 0) -> Recommender:
        """The same recommender with an index over the model's item vectors: see ``palate.retrieval.build_model_index``.

        Raises:
            ModelError: the model's score is no dot product, or FAISS is needed and not installed.
        """
        from palate.retrieval import build_model_index

        return replace(self, index=build_model_index(self.model, self.seen, kind, recall=recall, seed=seed))

    def unknown_users(self, users: Ids) -> list[str]:
        """A line for each of the first three unknown users whose id is nearly a known one."""
        asked = request.as_users(users)
        unknown = asked.filter(self.users.rows(asked) < 0).head(3).to_list()
        near = [(one, self.users.suggest(one)) for one in unknown]
        return [f"unknown user {one!r}: did you mean {found!r}?" for one, found in near if found is not None]

    def unknown_items(self, histories: Histories) -> Note | None:
        """A note on the history items that the catalog lacks (``recommend`` leaves them out), or None."""
        return request.unknown_items(histories, self.items, self.name)

    @cached_property
    def explainer(self) -> Explainer:
        """The reasons of listed rows."""
        return Explainer(self.model, self.items, self.positive, self.titles)

    def _options(
        self,
        k: int,
        exclude_seen: bool,
        rules: Rules | CompiledRules | None,
        at: float | datetime | None,
        cold: ColdStart | None,
        items: Any = None,
        exclude: Any = None,
        refold: bool = False,
    ) -> RecommendOptions:
        now = request.as_seconds(at)
        rows: NDArray[Any] | None = None
        if items is not None:
            ids = request.as_ids("items", items)
            rows = self.items.rows(ids)
            unknown = ids.filter(pl.Series(rows < 0)).cast(pl.String).fill_null("null")
            rows = rows[rows >= 0]
            if len(unknown) and not len(rows):
                raise DataError(f"none of the {len(ids):,} items is in the catalog of {self.name}: give ids it holds")
            if len(unknown):
                logger.warning("%d items are unknown and left out: %s", len(unknown), listed(unknown.head(5).to_list()))
        if exclude is not None:
            out = self.items.rows(request.as_ids("exclude", exclude))
            allowed_I = np.full(len(self.items), rows is None)
            if rows is not None:
                allowed_I[rows] = True
            allowed_I[out[out >= 0]] = False
            rows = allowed_I
        bound = self.bind(rules, now)
        if not isinstance(cold, ColdStart | None):
            raise DataError(f"cold={cold!r}: give a policy, such as ColdStart(), or leave it out")
        return RecommendOptions(request.as_k(k), exclude_seen, bound, now, cold or self.cold, rows, refold)

    def __repr__(self) -> str:
        index = "" if self.index is None else f", {self.index.info.kind} index"
        users, items = f"{len(self.users):,} users", f"{len(self.items):,} items"
        return f"<Recommender {self.name}: {type(self.model).__name__}, {users}, {items}{index}>"


def _taken(values: pl.Series, index: NDArray[np.integer[Any]]) -> pl.Series:
    """``values[index]``, for indices of at least 0."""
    # The answer to one user repeats one id and mostly one source: polars repeats a value in a tenth of a gather's time.
    if len(index) and (index == index[0]).all():
        return values.new_from_index(int(index[0]), len(index))
    # A series of polars' own type of index: the checks of an array of integers take longer than the gather.
    return values[pl.Series(index.astype(np.uint32))]


def _is_pandas(users: Any) -> bool:
    if isinstance(users, list | tuple | str | int | np.ndarray | pl.Series):
        return False  # the common cases, without the checks of narwhals
    native = nw.from_native(users, pass_through=True, allow_series=True)
    return isinstance(native, nw.Series) and native.implementation.is_pandas_like()
