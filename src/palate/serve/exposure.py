"""Exposure: how the places of the lists that were served since the start are spread over the catalog."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

TOP_SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)


class Exposure:
    """Counts of listed items; one event loop writes."""

    def __init__(self) -> None:
        self.lists = 0
        self.places: Counter[str] = Counter()

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Count the rows of one list."""
        self.lists += 1
        self.places.update([row["item_id"] for row in rows])

    def describe(self, listed: int, limit: int, title: Callable[[str], str | None]) -> dict[str, Any]:
        """The share of places of the items shown most, and these items.

        Args:
            listed: number of items that a list may hold.
            limit: items to name.
            title: the title of an item.
        """
        counts = sorted(self.places.values(), reverse=True)
        total, size = sum(counts), max(listed, len(counts))

        def share(part: float) -> float:
            return sum(counts[: math.ceil(part * size)]) / total if total else 0.0

        return {
            "lists": self.lists,
            "places": total,
            "items": size,
            "items_shown": len(counts),
            "top": [{"items": part, "share": round(share(part), 6)} for part in TOP_SHARES],
            "most_shown": [
                {"item_id": item_id, "title": title(item_id), "places": count, "share": round(count / total, 6)}
                for item_id, count in self.places.most_common(limit)
            ],
        }
