"""A bundle while it is served: the recommender with counts that grow, ids and titles as Python texts, listed items.

Shape legend: I items, H events.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate import storage
from palate.bundle import Bundle
from palate.data.ids import IdMap
from palate.recommend import Recommender
from palate.recommend.cold_start import DAY
from palate.recommend.onboarding import Tastes

HALF_LIFE = 30.0  # days, of /v1/recent


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

    @classmethod
    def load(cls, path: Path) -> Deployment:
        """Read and check a bundle, and answer once, so that the first request does not wait for tables to be built.

        Raises:
            BundleError: it is missing, damaged or made by a newer Palate.
        """
        manifest = Bundle.info(path)
        bundle = Bundle.load(path)
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
        self.recommender.popularity[:] = self.bundle.recommender.popularity
        self.recent_I, self._newest = self._recent(), self._latest
        if self.recommender.cold.fallback == "recent":
            fresh = self.bundle.recommender.fallback(self.recommender.cold).overall
            self.recommender.fallback(self.recommender.cold).overall[:] = fresh

    def list_item(self, row: int, listed: bool) -> None:
        """Allow or forbid an item in every list."""
        self.listed_I[row] = listed
        self.all_listed = bool(self.listed_I.all())

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
        age = (seen.times.max() - seen.times) / DAY
        return np.bincount(seen.items, np.exp2(-age / HALF_LIFE), len(self.items)).astype(np.float64)
