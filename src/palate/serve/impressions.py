"""The impression log: every served list, stored after its answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection

from palate.recommend.top_n import Answer
from palate.serve import tables
from palate.serve.experiments import Trial
from palate.serve.store import Store

FLUSH_SECONDS = 0.1  # a list waits so long for others: a transaction each would cost as much as the answer


class ImpressionLog:
    """Lists that wait to be stored.

    Args:
        store: their database.
        share: of the lists that are stored; those of an experiment always are.
    """

    def __init__(self, store: Store, share: float) -> None:
        self.store, self.share = store, share
        self.dropped = 0
        self._waiting: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        first: int,
        user: str | None,
        model: str,
        scenario: str | None,
        rows: Sequence[dict[str, Any]],
        answer: Answer | None,
        trial: Trial | None,
    ) -> None:
        """Keep a list, or a further page of one.

        Args:
            name: the recommendation id.
            first: number of rows that were served before.
            user: user or session, or None.
            model: version, or versions.
            scenario: of the request.
            rows: as answered.
            answer: the answer that ``rows`` were made of; None where they are of two.
            trial: the part in an experiment.
        """
        if self.share < 1.0 and trial is None and random.random() >= self.share:
            return
        propensity = None if answer is None else answer.propensities
        drafted = trial is not None and trial.arm is None
        self._waiting.append(
            {
                "recommendation_id": name,
                "first_rank": first + 1,
                "user_id": user,
                "time": time.time(),
                "model": model[:200],
                "scenario": scenario,
                "items": _text([row["item_id"] for row in rows]),
                "sources": _text([row["source"] for row in rows]),
                "propensity": None if propensity is None else _text(propensity.tolist()),
                "explored": None if answer is None or answer.explored is None else float(answer.explored[0]),
                "experiment": None if trial is None else trial.experiment,
                "arm": None if trial is None else trial.arm,
                "row_arms": _text([row["arm"] for row in rows]) if drafted else None,
            }
        )
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Hand the lists that wait to the store, as one statement."""
        records, self._waiting = self._waiting, []

        def insert(connection: Connection) -> None:
            connection.execute(tables.impressions.insert(), records)

        if records and not self.store.later(insert):
            self.dropped += len(records)


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()
