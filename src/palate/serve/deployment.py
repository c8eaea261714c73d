"""A bundle while it is served: the recommender with counts and a catalog that grow, ids and titles as Python texts.

Shape legend: I items, H events.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate import storage
from palate.base import AddsItems
from palate.bundle import Bundle
from palate.data.ids import IdMap
from palate.recommend import Recommender
from palate.recommend.cold_start import DAY
from palate.recommend.new_items import with_items
from palate.recommend.onboarding import Tastes
from palate.recommend.request import typed

HALF_LIFE = 30.0  # days, of /v1/recent
MANY = 64  # events, from which arrays are faster than one after the other
# Values of a state that do not depend on the catalog, and those that depend on its size but not on features.
KEPT = {"device", "latest", "reads_ratings", "positive", "like_weight", "is_personal"}
KEPT_BY_PATCHES = {"new_items", "less_known", "similar_items", "_fallbacks"}


class LiveEvent(NamedTuple):
    """An event as it is kept in memory."""

    seq: int
    item_id: str
    type: str
    value: float | None
    time: float


class Deployment:
    """A loaded bundle. One event loop reads and changes it, so it needs no locks.

    Args:
        bundle: as loaded.
        path: its folder.
        version: the name of the data, the recipe and the first digits of the digest of the manifest.
    """

    def __init__(self, bundle: Bundle, path: Path, version: str) -> None:
        # A copy of the counts, which change with every event; everything else is shared and stays as it is.
        popularity = bundle.recommender.popularity.astype(np.float32, copy=True)
        self.recommender: Recommender = replace(bundle.recommender, popularity=popularity)
        self.bundle, self.path, self.version = bundle, path, version
        self.items, self.users = self.recommender.items, self.recommender.users
        self._integers = [one.ids.dtype.is_integer() for one in (self.users, self.items)]  # asking polars is slow
        self.ids: list[str] = [str(one) for one in self.items.ids.to_list()]
        titles = self.recommender.titles
        self.titles: list[str | None] | None = None if titles is None else titles.to_list()
        self.like_weight = self.recommender.like_weight
        self.listed_I: NDArray[np.bool_] = np.ones(len(self.items), bool)
        self.all_listed = True
        self.recent_I = self._recent()
        self._newest = self._latest = self.recommender.latest or 0.0
        self.trained_seq = 0  # stored events up to here may be in the training rows: see ``live``
        self.added: dict[str, tuple[str | None, Mapping[str, Any]]] = {}  # new items: title and features
        self._joined: list[list[str]] = []  # ids of ``added`` in the steps in which they joined
        self.patches: dict[int, Mapping[str, Any]] = {}  # changed features by row
        self._rows: dict[str, int] = {}  # of counted items: a million events are counted at a start, most of few items
        self._early: dict[str, list[tuple[float, int]]] = {}  # counted events of items that have not joined yet

    @classmethod
    def load(cls, path: Path, trusted_key: Path | None = None) -> Deployment:
        """Read and check a bundle, and answer once, so that the first request does not wait for tables to be built.

        Raises:
            BundleError: it is missing, damaged, made by a newer Palate, or not signed by a trusted key.
        """
        manifest = Bundle.info(path)
        bundle = Bundle.load(path, trusted_key=trusted_key)
        version = f"{manifest['data']}-{manifest['recipe']['name']}-{storage.digest_json(manifest)[:12]}"
        made = cls(bundle, path, version)
        known = made.users.ids.head(1).to_list()
        made.recommender.recommend([*known, "-"], k=1) if not known or isinstance(known[0], str) else (
            made.recommender.recommend(known, k=1)
        )
        made.items.row("-")
        return made

    def join(self, store: str) -> None:
        """Say which store is served: places in its log tell which events a refitted bundle was trained on."""
        refit = self.bundle.refit
        self.trained_seq = refit["seq"] if refit is not None and refit["store"] == store else 0

    def canonical(self, ids: IdMap, text: str) -> str:
        """The one spelling of an id: for a map of integers, 7 for 07 and +7."""
        if self._integers[ids is self.items]:
            digits = text[1:] if text[:1] in ("-", "+") else text
            if digits.isascii() and digits.isdigit() and len(digits) <= 19:
                return str(int(text))
        return text

    def count_item(self, item_id: str, time: float, sign: int) -> None:
        """``count`` by the id of the item; an item that joins the catalog later has its events counted then."""
        row = self._rows.get(item_id, -1)
        if row < 0:
            row = self.items.row(item_id)
        if row >= 0:
            self._rows[item_id] = row
            self.count(row, time, sign)
        else:
            self._early.setdefault(item_id, []).append((time, sign))

    def count_items(self, events: Sequence[LiveEvent]) -> None:
        """Count many events at once, as at a start: a tenth of the time."""
        if len(events) < MANY:
            for one in events:
                self.count_item(one.item_id, one.time, 1)
            return
        rows_of, recommender = self._rows, self.recommender
        for item_id in {one.item_id for one in events}.difference(rows_of):
            if (row := self.items.row(item_id)) >= 0:
                rows_of[item_id] = row
        row_E = np.array([rows_of.get(one.item_id, -1) for one in events], np.int64)
        time_E = np.array([one.time for one in events], np.float64)
        for place in np.flatnonzero(row_E < 0).tolist():
            self._early.setdefault(events[place].item_id, []).append((events[place].time, 1))
        row_E, time_E = row_E[row_E >= 0], time_E[row_E >= 0]
        if not len(row_E):
            return
        popularity = recommender.popularity
        popularity += np.bincount(row_E, minlength=len(popularity)).astype(np.float32)
        self._newest = max(self._newest, float(time_E.max()))
        days_E = (time_E - self._latest) / DAY
        self.recent_I += np.bincount(row_E, np.exp2(np.clip(days_E / HALF_LIFE, -1000, 1000)), len(self.recent_I))
        if recommender.cold.fallback == "recent":
            overall = recommender.fallback(recommender.cold).overall
            overall += np.bincount(
                row_E, np.exp2(np.clip(days_E / recommender.cold.half_life, -100, 100)), len(overall)
            )

    def count(self, row: int, time: float, sign: int) -> None:
        """Add an event to, or take it from, the counts that answer where nothing personal is known."""
        recommender = self.recommender
        recommender.popularity[row] += sign
        self._newest = max(self._newest, time)
        # Relative to the latest training event, so that the counts of before need not change; float64 holds 80 years.
        # ``math``: ten times as fast as NumPy for one number.
        weight = math.exp2(min(max((time - self._latest) / DAY / HALF_LIFE, -1000.0), 1000.0))
        self.recent_I[row] = max(float(self.recent_I[row]) + sign * weight, 0.0)
        if recommender.cold.fallback == "recent":
            fallback = recommender.fallback(recommender.cold)
            weight = math.exp2(min(max((time - self._latest) / DAY / recommender.cold.half_life, -100.0), 100.0))
            fallback.overall[row] = max(fallback.overall[row] + sign * weight, 0.0)

    @property
    def recent(self) -> NDArray[np.float64]:
        """Events of each item by their age at the newest event, (I,)."""
        # Divided in two steps: the power alone may be beyond the range of float64.
        half = float(np.exp2(-(self._newest - self._latest) / DAY / HALF_LIFE / 2))
        return self.recent_I * half * half

    def reset(self) -> None:
        """The counts as they were after training."""
        trained = self.bundle.recommender
        self.recommender.popularity[:] = _padded(trained.popularity, len(self.items))
        self.recent_I, self._newest = self._recent(), self._latest
        self._early.clear()
        if self.recommender.cold.fallback == "recent":
            fresh = trained.fallback(trained.cold).overall
            self.recommender.fallback(trained.cold).overall[:] = _padded(fresh, len(self.items))

    def list_item(self, row: int, listed: bool) -> None:
        """Allow or forbid an item in every list."""
        self.listed_I[row] = listed
        self.all_listed = bool(self.listed_I.all())

    @property
    def ranks_new_items(self) -> bool:
        """Whether the model ranks items without training rows by their features."""
        return isinstance(self.recommender.model, AddsItems) and self.bundle.recommender.item_features is not None

    def change_catalog(
        self, added: Mapping[str, tuple[str | None, Mapping[str, Any]]], patches: Mapping[int, Mapping[str, Any]]
    ) -> None:
        """Let items join the catalog, ranked by their features, and let rules see changed features of others.

        Args:
            added: title and features of new items, and of earlier ones whose features are others now.
            patches: changed features by row of the bundle's catalog.

        Raises:
            DataError: a feature does not fit the table of the bundle; nothing has changed then.
            ModelError: the model does not read the features of items.
        """
        trained, before = self.bundle.recommender, self.recommender
        table, old = trained.item_features, before.item_features
        if table is None or old is None:
            return
        patches = {**self.patches, **patches}
        everything = {**self.added, **added}
        made = replace(before, item_features=pl.concat([_patched(table, patches), old[len(table) :]]))
        if added.keys() & self.added.keys():  # a model takes features once, so all join again, in the same order
            made = replace(trained, item_features=_patched(table, patches))
            for ids in self._joined:
                made = with_items(made, _table(table, {one: everything[one] for one in ids}))
            made.popularity[:] = before.popularity
        new = [one for one in added if one not in self.added]
        if new:
            made = with_items(made, _table(table, {one: added[one] for one in new}))
            self._joined.append(new)
        for name in KEPT if added else KEPT | KEPT_BY_PATCHES:
            if name in vars(before):
                vars(made)[name] = vars(before)[name]
        size, grown = len(made.items), len(made.items) - len(before.items)
        if added:
            if isinstance(made.model, AddsItems):  # items with live events alone are new to the model
                vars(made)["new_items"] = _padded(trained.popularity, size) == 0
            if before.cold.fallback == "recent":
                overall = before.fallback(before.cold).overall
                made.fallback(made.cold).overall[:] = _padded(overall, size)
        self.recommender, self.items, self.added, self.patches = made, made.items, everything, patches
        if grown:
            self.ids += [str(one) for one in made.items.ids[-grown:].to_list()]
            self.titles = None if made.titles is None else made.titles.to_list()
            self.listed_I = np.concatenate([self.listed_I, np.ones(grown, bool)])
            self.recent_I = _padded(self.recent_I, size)
            for item_id in self.ids[-grown:]:
                for time, sign in self._early.pop(item_id, ()):
                    self.count_item(item_id, time, sign)

    @cached_property
    def tastes(self) -> Tastes:
        """The factor model that chooses onboarding questions; fitted at the first use."""
        return Tastes.of(self.recommender)

    def describe(self) -> dict[str, Any]:
        """What a person wants to know about the bundle."""
        bundle, data = self.bundle, self.recommender
        return {
            "version": self.version,
            "path": self.path.name,
            "data": data.name,
            "recipe": bundle.recipe.name,
            "created": bundle.created,
            "users": len(data.users),
            "items": len(data.items),
            "training_events": len(data.seen.items),
            "stored_events": 0 if bundle.refit is None else bundle.refit["events"],
            "metrics": list(bundle.metrics),
            "titles": self.titles is not None,
            "item_fields": [] if data.item_features is None else data.item_features.columns,
        }

    def _recent(self) -> NDArray[np.float64]:
        """Events of each item by age, (I,), relative to the latest training event; zeros where times are unknown."""
        seen = self.recommender.seen
        if seen.times is None or not len(seen.times):
            return np.zeros(len(self.items))
        # Five times as fast as ``exp2`` of float64; the result is rounded to seven digits.
        weight = np.exp(((seen.times - seen.times.max()) * (math.log(2) / DAY / HALF_LIFE)).astype(np.float32))
        return np.bincount(seen.items, weight, len(self.items)).astype(np.float64)


def _padded(values: NDArray[Any], size: int) -> NDArray[Any]:
    """Counts with zeros behind them for items that came later."""
    return np.concatenate([values, np.zeros(size - len(values), values.dtype)])


def _patched(table: pl.DataFrame, patches: Mapping[int, Mapping[str, Any]]) -> pl.DataFrame:
    """A table of features with some values replaced."""
    columns = []
    for name in table.columns:
        rows = [row for row, values in patches.items() if name in values and row < len(table)]
        column = table[name]
        if rows:
            # New values behind the old ones, then one gather: it works for every type of column.
            new = typed(name, [patches[row][name] for row in rows], column.dtype)
            index = np.arange(len(table))
            index[rows] = np.arange(len(table), len(table) + len(rows))
            column = pl.concat([column, new])[index]
        columns.append(column)
    return pl.DataFrame(columns)


def _table(features: pl.DataFrame, added: Mapping[str, tuple[str | None, Mapping[str, Any]]]) -> pl.DataFrame:
    """New items as a table; features that were not given are null."""
    own = {name: features[name].dtype for name in features.columns if name not in ("item_id", "title")}
    columns = [pl.Series("item_id", list(added)), pl.Series("title", [title for title, _ in added.values()], pl.String)]
    columns += [typed(name, [values.get(name) for _, values in added.values()], kind) for name, kind in own.items()]
    return pl.DataFrame(columns)
