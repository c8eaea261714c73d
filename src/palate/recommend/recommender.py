"""Recommender: from a fitted model to lists of external ids, for people known, new and unknown.

    recommender = Recommender.of(model, train)
    recommender.recommend([196, 22], k=10)      # user_id, item_id, rank, score, source, title

Every row says where it came from: "model" (a user of the training data), "fold-in" (somebody else, known by a
history that was given with the request), "features" (known by features alone) or "popular" (nothing personal can be
said, so the most popular items answer). ``palate.recommend.cold_start`` names the others and what decides.

Shape legend: I items.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.base import Model, Query
from palate.data.dataset import Dataset, History, Interactions, Note
from palate.data.ids import IdMap
from palate.data.splits.split import Split
from palate.errors import DataError
from palate.recommend import request as ask
from palate.recommend.attribution import Explainer
from palate.recommend.batch import write_all
from palate.recommend.cold_start import PLAIN, ColdStart, Fallback
from palate.recommend.exploration import LessKnown
from palate.recommend.new_entities import UserFeatures, features_of, with_items
from palate.recommend.request import Histories, Id, Ids
from palate.recommend.similar_items import SimilarItems
from palate.recommend.top_n import RecommendOptions, answer, chunks, empty
from palate.recommend.why_not import WhyNot, why_not

if TYPE_CHECKING:
    from palate.retrieval import Index, Kind
    from palate.rules import Catalog, CompiledRules, Rules

__all__ = ["Recommender"]

KEPT_FALLBACKS = 8  # policies whose scores are kept


@dataclass(frozen=True, eq=False)
class Recommender:
    """A fitted model with the ids, histories and titles that turn its scores into lists.

    It needs no training data, and answering changes nothing in it, so threads may share one.

    Args:
        model: a fitted model; it is put into evaluation mode.
        users, items: the id maps of the training data.
        seen: the training history, one (perhaps empty) history per user row.
        popularity: (I,) float32 interactions per item, the answer when nothing personal can be said.
        titles: one readable name per item row, or None.
        user_features, item_features: one row per id in map order, or None.
        name: the name of the data set.
        index: over the model's item vectors, asked instead of scoring the whole catalog; or None.
        cold: what answers where the model knows nothing, unless a request says otherwise.
    """

    model: Model
    users: IdMap
    items: IdMap
    seen: History
    popularity: NDArray[np.float32]
    titles: pl.Series | None = None
    user_features: pl.DataFrame | None = None
    item_features: pl.DataFrame | None = None
    name: str = ""
    index: Index | None = None
    cold: ColdStart = PLAIN

    def __post_init__(self) -> None:
        cast(nn.Module, self.model).eval()

    @classmethod
    def of(cls, model: Model, train: Dataset) -> Recommender:
        """The recommender of a model and the rows it was trained on, which are what counts as seen."""
        return cls(
            model=model,
            users=train.users,
            items=train.items,
            seen=train.history,
            popularity=np.bincount(train.interactions.item, minlength=train.n_items).astype(np.float32),
            titles=train.titles,
            user_features=train.user_features,
            item_features=train.item_features,
            name=train.name,
        )

    def recommend(
        self,
        users: Ids,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        histories: Histories | None = None,
        features: UserFeatures | None = None,
        rules: Rules | CompiledRules | None = None,
        at: float | datetime | None = None,
        cold: ColdStart | None = None,
        reasons: int = 0,
    ) -> pl.DataFrame:
        """The k best items of each user, best first: user_id (as asked), item_id, rank, score, source, title.

        Args:
            users: one id or many; an id asked for twice is answered once. Unknown ids are answered too.
            k: list length. Lists are shorter where fewer items are left after ``exclude_seen`` and the rules.
            exclude_seen: leave out what the user had in the training rows or has in ``histories``.
            histories: events per asked user, oldest first: item ids, pairs (id, weight), where a weight below 0 is a
                dislike, or triples (id, weight, seconds since 1970). They introduce an unknown user; for a known one
                they come after the training history. Items that the catalog lacks are left out: see
                ``unknown_items``.
            features: values by name of user feature, per asked user, for strangers; see ``cold_start``.
            rules: what must and must not be listed; a column ``rule`` then says what they did to each row.
            at: time of the request, and of events in ``histories`` that tell none; the latest of the training rows if
                left out.
            cold: what answers where the model knows nothing; the recommender's own policy if left out.
            reasons: name that many items of the history that support each row: a column ``because`` holds them with
                their shares, ``why`` says it in words. See ``attribution``; slow for models with a gradient fold-in.

        Scores compare within one list only; for "popular" they are the model's own if it is not personal at all, and
        interaction counts otherwise. ``title`` is there if titles are known.

        Raises:
            DataError: k is below 1, an id is neither integer nor string, ``histories`` or ``features`` name somebody
                not asked for, or features or policy do not fit what is known about users.
            RuleError: the rules do not fit the catalog.
        """
        ask.check_k(k)
        now = ask.as_seconds(at)
        wish = RecommendOptions(k, exclude_seen, self.bind(rules, now), now, cold or self.cold, reasons)
        asked = ask.as_ids("user_id", users).unique(maintain_order=True)
        rows, history = self.histories_of(asked, histories, wish.at)
        told = features_of(self.user_features, asked, self.users.rows(asked), features)
        parts = (
            answer(
                self,
                asked[part],
                rows[part],
                history.select(np.arange(len(rows))[part]),
                wish,
                None if told is None else told[part],
            )
            for part in chunks(len(rows), self)
        )
        return pl.concat([empty(self, asked.dtype, wish), *parts])

    def recommend_all(
        self,
        path: str | Path,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        rules: Rules | CompiledRules | None = None,
        at: float | datetime | None = None,
        cold: ColdStart | None = None,
        progress: bool = False,
    ) -> int:
        """Write the lists of all known users to one Parquet file in bounded memory; the number of rows written.

        The file appears under its name only when it is whole; a file of that name is replaced. A call that was killed
        goes on where it was (see ``palate.recommend.batch``).

        Raises:
            DataError: k is below 1, or ``path`` cannot be written.
            RuleError: the rules do not fit the catalog.
        """
        ask.check_k(k)
        now = ask.as_seconds(at)
        wish = RecommendOptions(k, exclude_seen, self.bind(rules, now), now, cold or self.cold)
        return write_all(self, Path(path), wish, progress=progress)

    def similar(self, item: Id, k: int = 10) -> pl.DataFrame:
        """The k items most like one item, by cosine: item_id, rank, score, source, title.

        Source "model": cosine of the model's item vectors. Source "co-occurrence", for models without item vectors:
        the share of users two items have in common, n_ij / sqrt(n_i n_j), where only items with n_ij > 0 are listed.

        Args:
            item: an item id, or a title (in any case) that belongs to exactly one item.
            k: list length.

        Raises:
            DataError: k is below 1, or the item is unknown; the message names what was perhaps meant.
        """
        ask.check_k(k)
        return self.similar_items.to(item, k)

    def why_not(
        self,
        user: Id,
        item: Id,
        rules: Rules | CompiledRules | None = None,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        histories: Histories | None = None,
    ) -> WhyNot:
        """Why an item is not among the k recommended to a user, or that it is; arguments as for ``recommend``.

        Raises:
            DataError: the item is unknown; the message names what was perhaps meant.
            RuleError: the rules do not fit the catalog.
        """
        return why_not(self, user, item, rules, k, exclude_seen=exclude_seen, histories=histories)

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
        owner = np.repeat(np.arange(len(self.seen), dtype=np.int32), self.seen.counts)
        seen = Interactions(owner, self.seen.items, self.seen.weights, self.seen.times)
        train = Dataset(self.name, self.users, self.items, seen, explicit=test.explicit, titles=self.titles)
        held = replace(rows, user=user, item=item).take(known)
        notes = (
            Note("test rows of unknown users dropped", int((user < 0).sum())),
            Note("test rows of unknown items dropped", int(((item < 0) & (user >= 0)).sum())),
        )
        how = f"all {len(held):,} rows of {test.name} with known users and items"
        shown = tuple(note for note in notes if note.rows)
        return Split(train, replace(train.with_rows(held), name=test.name), how, shown)

    def with_items(self, table: pl.DataFrame) -> Recommender:
        """A recommender whose catalog holds the items of a feature table too; this one stays as it is.

        Args:
            table: one row per new item: a column item_id, or else the first, the features that the model reads, and
                perhaps a title. Lists may be written as text with | between the values.

        Raises:
            DataError: an id is null, there twice or in the catalog already, or a feature is missing or does not fit.
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

    def unknown_items(self, histories: Histories) -> Note | None:
        """A note on the history items that the catalog lacks (``recommend`` leaves them out), or None."""
        return ask.unknown_items(histories, self.items, self.name)

    def bind(self, rules: Rules | CompiledRules | None, at: float | None = None) -> CompiledRules | None:
        """Rules compiled for this catalog: compile once the rules of many requests.

        Args:
            rules: compiled ones are returned as they are.
            at: the moment that windows in days reach back from, seconds since 1970; the latest event if left out.

        Raises:
            RuleError: they name a column that the items do not have, or contradict each other.
        """
        if rules is None:
            return None
        from palate.rules import Rules, compile_rules

        return compile_rules(rules, self.catalog, at) if isinstance(rules, Rules) else rules

    def histories_of(
        self, asked: pl.Series, histories: Histories | None, at: float | None
    ) -> tuple[NDArray[np.int64], History]:
        """Row numbers of the asked users, -1 for strangers, and all events of each."""
        rows = self.users.rows(asked)
        history = self.seen.select(rows)
        # Somebody without a training row has no learned parameters, in the map or not: a stranger.
        rows_B = np.where(history.counts > 0, rows, -1).astype(np.int64)
        if histories is None:
            return rows_B, history
        # What is given happened after the training rows; which second it was may not be known.
        latest = None if self.seen.times is None else float(self.seen.times.max(initial=0.0))
        now = at if at is not None and latest is not None else latest
        return rows_B, ask.joined(history, ask.given(asked, histories, self.items, now))

    @cached_property
    def device(self) -> torch.device:
        """Where the model is."""
        module = cast(nn.Module, self.model)
        first = next(chain(module.parameters(), module.buffers()), None)
        return torch.device("cpu") if first is None else first.device

    @cached_property
    def popular(self) -> Tensor:
        """Popularity (I,) on the model's device."""
        return torch.tensor(self.popularity, device=self.device)

    def fallback(self, cold: ColdStart) -> Fallback:
        """What a policy scores for those whom the model does not know, kept for the next request.

        Raises:
            DataError: the policy does not fit what is known about users.
        """
        key = replace(cold, min_history=1, features=True, explore=0.0, seed=0)
        found = self._fallbacks.get(key)
        if found is None:
            found = Fallback.of(key, self.seen, self.popularity, self.user_features)
            if len(self._fallbacks) < KEPT_FALLBACKS:
                self._fallbacks[key] = found
        return found

    @cached_property
    def _fallbacks(self) -> dict[ColdStart, Fallback]:
        return {}

    @cached_property
    def less_known(self) -> LessKnown:
        """What exploration draws from."""
        return LessKnown.of(self.seen, len(self.items))

    @cached_property
    def is_personal(self) -> bool:
        """Whether the model says anything personal to the user it has most rows of."""
        if not len(self.seen):
            return True
        most = np.array([self.seen.counts.argmax()])
        with torch.inference_mode():
            return bool(self.model.can_personalize(Query.of(most, self.seen.select(most)).to(self.device)).item())

    @cached_property
    def similar_items(self) -> SimilarItems:
        """The catalog as neighbors of items."""
        return SimilarItems(self.model, self.items, self.seen, self.titles)

    @cached_property
    def explainer(self) -> Explainer:
        """Reasons for what is listed."""
        return Explainer(self.model, self.items, self.seen, self.titles)

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog as rules see it."""
        from palate.rules import Catalog

        return Catalog(
            items=self.items,
            features=self.item_features,
            titles=self.titles,
            seen=self.seen,
            unit_items=self.similar_items.unit_items,
        )
