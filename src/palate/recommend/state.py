"""State: everything that an answer reads, fixed when a recommender is made and shared by all threads.

It holds the model, the id maps, the training history as arrays and values derived from them. Derived values are
computed once, on first use; no request changes anything, so neither locks nor copies are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from palate.base import AddsItems, Model, Query, device_of, reads_ratings
from palate.data.dataset import Dataset, History
from palate.data.ids import IdMap
from palate.errors import RuleError
from palate.recommend.cold_start import PLAIN, ColdStart, Fallback
from palate.recommend.exploration import Explorable
from palate.recommend.similar_items import SimilarItems
from palate.rules import Catalog, CompiledRules, Rules, compile_rules

if TYPE_CHECKING:
    from palate.retrieval import Index

T = TypeVar("T")
CACHED = 8  # fallback policies, and bound rules, that are kept for the next request


@dataclass(frozen=True, eq=False, repr=False)
class State:
    """A fitted model with the ids, histories and titles that turn its scores into lists.

    Args:
        model: a fitted model; it is put into evaluation mode.
        users, items: the id maps of the training data.
        seen: the training history, one (perhaps empty) history per user row.
        popularity: (I,) float32 positive interactions per item: the scores where nothing personal is known.
        titles: one readable name per item row, or None.
        user_features, item_features: one row per id in map order, or None.
        name: the name of the data set.
        index: an index over the model's item vectors, searched instead of scoring the whole catalog; or None.
        cold: the cold-start policy of requests that give none. Default: the most popular items.
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
    def of(cls, model: Model, train: Dataset) -> Self:
        """The state of a model and the rows it was trained on, which count as seen.

        Raises:
            ModelError: the model was trained on other ids, or on the same ids in another order.
        """
        if model.trained_on is not None:
            model.trained_on.check_same_ids(train.users, train.items)
        return cls(
            model=model,
            users=train.users,
            items=train.items,
            seen=train.history,
            popularity=np.bincount(train.interactions.item[train.positive], minlength=train.n_items).astype(np.float32),
            titles=train.titles,
            user_features=train.user_features,
            item_features=train.item_features,
            name=train.name,
        )

    @cached_property
    def device(self) -> torch.device:
        """The device of the model."""
        return device_of(self.model)

    @cached_property
    def latest(self) -> float | None:
        """Time of the latest training event, or None where times are unknown."""
        return None if self.seen.times is None else float(self.seen.times.max(initial=0.0))

    @cached_property
    def reads_ratings(self) -> bool:
        """Whether the model is given every event with its rating, or only the positive ones."""
        return reads_ratings(self.model)

    @cached_property
    def positive(self) -> History:
        """The positive events of the training history."""
        return self.seen.positives()

    @cached_property
    def like_weight(self) -> float:
        """The weight of a like in a history: the upper quartile of the positive training weights."""
        weights = self.positive.weights
        return float(np.quantile(weights, 0.75)) if len(weights) else 1.0

    @property
    def default_weight(self) -> float:
        """The weight of an event of a request that comes without one: a like."""
        return self.like_weight if self.seen.feedback.kind == "rating" else 1.0

    @cached_property
    def is_personal(self) -> bool:
        """Whether the model is personal for the user with most training rows; assumed where there are no rows."""
        if not len(self.seen):
            return True
        most = np.array([self.positive.counts.argmax()])
        with torch.inference_mode():
            query = Query.of(most, self.seen.select(most), every_event=self.reads_ratings)
            return bool(self.model.can_personalize(query.to(self.device)).item())

    @cached_property
    def new_items(self) -> NDArray[np.bool_] | None:
        """(I,) bool, items without training rows, which the model ranks by their features; None if there are none."""
        new_I = self.popularity == 0
        return new_I if isinstance(self.model, AddsItems) and new_I.any() else None

    @cached_property
    def less_known(self) -> Explorable:
        """The items that exploration draws from, by default."""
        return Explorable.less_known(self.positive, len(self.items))

    @cached_property
    def similar_items(self) -> SimilarItems:
        """The catalog as neighbors of items."""
        return SimilarItems(self.model, self.items, self.positive, self.titles)

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog as rules see it."""
        return Catalog(
            items=self.items,
            features=self.item_features,
            titles=self.titles,
            seen=self.seen,
            unit_items=self.similar_items.unit_items,
        )

    def fallback(self, cold: ColdStart) -> Fallback:
        """The scores of a policy for users without a personal answer, kept for the next request.

        Raises:
            DataError: the policy does not fit the user features or the times of events.
        """
        # The other fields of a policy do not change the scores.
        key = replace(cold, min_history=1, features=True, explore=0.0, explore_among="less-known", seed=0)
        return _kept(self._fallbacks, key, lambda: Fallback.of(key, self.positive, self.popularity, self.user_features))

    def bind(self, rules: Rules | CompiledRules | None, at: float | None = None) -> CompiledRules | None:
        """Rules compiled for this catalog, kept for the next request with the same rules.

        Args:
            rules: compiled ones are returned as they are.
            at: the moment that windows in days reach back from, seconds since 1970. Default: the latest event.

        Raises:
            RuleError: they name a column that the items do not have, or contradict each other.
        """
        if rules is None or isinstance(rules, CompiledRules):
            return rules
        if not isinstance(rules, Rules):
            raise RuleError(f"rules={rules!r}: give Rules, for example Rules.load('rules.toml')")
        # Only windows in days depend on the time of the request, which differs with every request.
        moment = at if any(window.days is not None for window in rules.recency) else None
        return _kept(self._compiled, (repr(rules), moment), lambda: compile_rules(rules, self.catalog, moment))

    @cached_property
    def _fallbacks(self) -> dict[Hashable, Any]:
        return {}

    @cached_property
    def _compiled(self) -> dict[Hashable, Any]:
        return {}


def _kept(cache: dict[Hashable, Any], key: Hashable, make: Callable[[], T]) -> T:
    found = cache.get(key)
    if found is None:
        found = make()
        # Each step is atomic in CPython; a race costs a second computation, never a wrong value.
        if len(cache) >= CACHED:
            cache.pop(next(iter(cache), None), None)
        cache[key] = found
    return cast(T, found)
