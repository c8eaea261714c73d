"""Micro-batches: the requests that wait in the same tick of the event loop are scored in one matrix product.

No request waits for another one to come: a batch holds those that have arrived while the batch before was scored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.dataset import History
from palate.data.ids import stable_hashes
from palate.recommend.state import State
from palate.recommend.top_n import Answer, RecommendOptions, recommend

EMPTY = np.zeros(0, np.int32)


@dataclass(eq=False, slots=True)
class Ask:
    """One user of one request, in rows of the state.

    Args:
        state: the state that answers.
        row: of the user, or -1.
        user_id: as text; exploration draws from it.
        options: of the request.
        key: equal for requests whose options are the same, so that one call answers them; None is always alone.
        given: one history with the events of the request and of the live state, or None.
        hide: rows of items that must not be listed.
        features: one row of user features, or None.
    """

    state: State
    row: int
    user_id: str
    options: RecommendOptions
    key: Hashable | None = None
    given: History | None = None
    hide: NDArray[np.int32] = field(default_factory=lambda: EMPTY)
    features: pl.DataFrame | None = None


class Batcher:
    """Collects what is asked in one tick and answers it together."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self.batches = 0
        self.asked = 0

    async def ask(self, ask: Ask) -> Answer:
        """The list of one user: an ``Answer`` with one user.

        Raises:
            PalateError: as ``top_n.recommend``.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((ask, done))
        if len(self._waiting) == 1:
            loop.call_soon(self._run)
        return await done

    def _run(self) -> None:
        waiting, self._waiting = self._waiting, []
        self.batches += 1
        self.asked += len(waiting)
        groups: dict[Hashable, list[tuple[Ask, asyncio.Future[Answer]]]] = {}
        for number, one in enumerate(waiting):
            ask = one[0]
            alone = ask.key is None or ask.features is not None
            groups.setdefault((number,) if alone else (id(ask.state), ask.key), []).append(one)
        for group in groups.values():
            try:
                answers = answer([ask for ask, _ in group])
            except Exception as error:
                for _, done in group:
                    if not done.done():
                        done.set_exception(error)
                continue
            for (_, done), found in zip(group, answers, strict=True):
                if not done.done():  # its client may have gone away
                    done.set_result(found)


def answer(asks: list[Ask]) -> list[Answer]:
    """The lists of requests with the same state and options."""
    first = asks[0]
    rows = np.array([ask.row for ask in asks], np.int64)
    keys = None
    if first.options.cold.explore:
        keys = stable_hashes(pl.Series([ask.user_id for ask in asks], dtype=pl.String))
    found = recommend(
        first.state,
        rows,
        first.options,
        given=_stacked([ask.given for ask in asks]),
        features=first.features,
        keys=keys,
        hide=_hidden([ask.hide for ask in asks]),
    )
    if len(asks) == 1:
        return [found]
    return [_part(found, place) for place in range(len(asks))]


def _part(found: Answer, place: int) -> Answer:
    """The answer to one user of a batch."""
    rows = slice(int(found.offsets[place]), int(found.offsets[place + 1]))
    return Answer(
        np.array([0, rows.stop - rows.start], np.int64),
        found.items[rows],
        found.scores[rows],
        found.sources[rows],
        found.personal[place : place + 1],
        None if found.by_score is None else found.by_score[rows],
        None if found.moved is None else found.moved[rows],
    )


def _offsets(counts: list[int]) -> NDArray[np.int64]:
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def _stacked(parts: list[History | None]) -> History | None:
    """Histories of one user each as one table; None where no user has any."""
    there = [part for part in parts if part is not None]
    if not there:
        return None
    if len(parts) == 1:
        return there[0]
    columns: list[Any] = [
        np.concatenate(list(arrays)) for arrays in zip(*((p.items, p.weights, p.times) for p in there), strict=True)
    ]
    return History(_offsets([0 if part is None else len(part.items) for part in parts]), *columns)


def _hidden(parts: list[NDArray[np.int32]]) -> History | None:
    counts = [len(part) for part in parts]
    if not any(counts):
        return None
    items = np.concatenate(parts)
    return History(_offsets(counts), items, np.zeros(len(items), np.float32))
